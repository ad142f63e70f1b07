//! Asking a server for its report: one round trip.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{FromRedisValue, RedisResult, Value};

use super::connection::Connection;
use super::error::silence;
use crate::topology::identity::Settings;
use crate::topology::observation::{NodeReport, Silence, View};
use crate::topology::parse::{self, ClusterInfo, Info};

/// The configuration directives that a report holds.
pub(super) const NAME: &str = "cluster-announce-human-nodename";
pub(super) const NODE_TIMEOUT: &str = "cluster-node-timeout";
pub(super) const MIN_REPLICAS: &str = "min-replicas-to-write";
pub(super) const MAX_LAG: &str = "min-replicas-max-lag";
pub(super) const SYNC_DELAY: &str = "repl-diskless-sync-delay";

pub(super) async fn ask(connection: &mut Connection) -> Result<NodeReport, Silence> {
    let mut commands = redis::pipe();
    commands.cmd("CLUSTER").arg("NODES");
    commands.cmd("CLUSTER").arg("INFO");
    commands.cmd("INFO").arg(["server", "memory", "persistence", "replication", "keyspace"].as_slice());
    commands.cmd("CONFIG").arg("GET").arg([NAME, NODE_TIMEOUT, MIN_REPLICAS, MAX_LAG, SYNC_DELAY].as_slice());
    let answers = connection.send(commands).await.map_err(|error| silence(&error))?;
    let mut answers = answers.into_iter();
    let nodes: String = next(&mut answers)?;
    let cluster: String = next(&mut answers)?;
    let info: String = next(&mut answers)?;
    let config: BTreeMap<String, String> = next(&mut answers)?;

    let view = view(&nodes)?;
    let info = Info::parse(&info);
    Ok(NodeReport {
        name: config.get(NAME).cloned().unwrap_or_default(),
        version: info.version(),
        view,
        cluster: cluster_info(&cluster)?,
        keys: info.keys(),
        used_memory: info.used_memory(),
        save_failed: info.save_failed(),
        replication: info.replication(),
        settings: settings(&config)
            .ok_or_else(|| Silence::Unusable(format!("CONFIG GET does not show {NODE_TIMEOUT} and the like")))?,
    })
}

/// The answer to CLUSTER NODES.
pub(super) fn view(nodes: &str) -> Result<View, Silence> {
    let entries = parse::nodes(nodes).map_err(|error| Silence::Unusable(error.to_string()))?;
    let doubtful = || "CLUSTER NODES does not name the node itself, or names one id twice".to_owned();
    View::new(entries).ok_or_else(|| Silence::Unusable(doubtful()))
}

/// The answer to CLUSTER INFO.
pub(super) fn cluster_info(info: &str) -> Result<ClusterInfo, Silence> {
    ClusterInfo::parse(info).map_err(|error| Silence::Unusable(error.to_string()))
}

fn settings(config: &BTreeMap<String, String>) -> Option<Settings> {
    Some(Settings {
        node_timeout: Duration::from_millis(config.get(NODE_TIMEOUT)?.parse().ok()?),
        min_replicas_to_write: config.get(MIN_REPLICAS)?.parse().ok()?,
        replicas_max_lag: Duration::from_secs(config.get(MAX_LAG)?.parse().ok()?),
        sync_delay: Duration::from_secs(config.get(SYNC_DELAY)?.parse().ok()?),
    })
}

pub(super) fn next<T: FromRedisValue>(answers: &mut impl Iterator<Item = RedisResult<Value>>) -> Result<T, Silence> {
    let value = answers
        .next()
        .ok_or_else(|| Silence::Unusable("fewer answers than commands".to_owned()))?
        .map_err(|error| silence(&error))?;
    redis::from_redis_value(value).map_err(|error| Silence::Unusable(error.to_string()))
}
