//! Clusters that are formed, filled, drained and counted.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use testbed::redis::{self, ConnectionLike as _, cmd, pipe};
use testbed::{Ended, Testbed, Valkey};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn builder(valkey: &Valkey, pods: u8) -> testbed::Builder {
    Testbed::builder(valkey).pods(pods).binary(env!("CARGO_BIN_EXE_valkeeper"))
}

/// The same test for each of several, all at once: servers mostly wait.
pub(crate) fn each<T: Send>(those: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    thread::scope(|scope| those.into_iter().for_each(|one| drop(scope.spawn(|| test(one)))));
}

/// A cluster of so many shards, each with one replica: pod n of the first half is copied by pod n + shards.
pub(crate) fn cluster(valkey: &Valkey, shards: u8, config: &[(&str, &str)]) -> Testbed {
    let describe = |builder: testbed::Builder, (name, value): &(&str, &str)| builder.config(name, value);
    let bed = config.iter().fold(builder(valkey, 2 * shards), describe).build().unwrap();
    let shards = shards.to_string();
    Ended::of(&mut bed.valkeeper(&["bootstrap", "--shards", &shards]), LIMIT)
        .unwrap()
        .expect(0, &["the cluster stands"]);
    bed
}

pub(crate) fn alone(valkey: &Valkey, config: &[(&str, &str)]) -> Testbed {
    let describe = |builder: testbed::Builder, (name, value): &(&str, &str)| builder.config(name, value);
    config.iter().fold(builder(valkey, 1).config("cluster-enabled", "no"), describe).build().unwrap()
}

pub(crate) fn command(bed: &Testbed, pod: usize, args: &[&str]) -> Command {
    let args: Vec<&str> = ["drain"].into_iter().chain(args.iter().copied()).collect();
    bed.valkeeper_in(pod, &args)
}

pub(crate) fn drain(bed: &Testbed, pod: usize, args: &[&str]) -> Ended {
    Ended::of(&mut command(bed, pod, args), LIMIT).unwrap()
}

/// A drain that must succeed, and its report.
#[track_caller]
pub(crate) fn drained(bed: &Testbed, pod: usize, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
    let ended = drain(bed, pod, &args);
    ended.expect(0, &["drained: {"]);
    serde_json::from_str(&ended.stdout).unwrap()
}

pub(crate) fn spawn(bed: &Testbed, pod: usize) -> Child {
    command(bed, pod, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub(crate) fn ask<T: redis::FromRedisValue>(bed: &Testbed, pod: usize, words: &[&str]) -> redis::RedisResult<T> {
    let mut connection = bed.connection(pod).unwrap();
    cmd(words[0]).arg(&words[1..]).query(&mut connection)
}

/// A field of INFO.
pub(crate) fn info(bed: &Testbed, pod: usize, field: &str) -> String {
    let text: String = ask(bed, pod, &["INFO", "everything"]).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in INFO")).trim().to_owned()
}

pub(crate) fn is_primary(bed: &Testbed, pod: usize) -> bool {
    bed.cluster_nodes(pod).is_ok_and(|nodes| nodes.lines().any(|line| line.contains("myself,master")))
}

/// Sets keys NAME0, NAME1 … wherever they belong, and says how many were acknowledged.
pub(crate) fn write(bed: &Testbed, name: &str, keys: usize) -> usize {
    let mut sets = pipe();
    for key in 0..keys {
        sets.cmd("SET").arg(format!("{name}{key}")).arg(format!("value {key}"));
    }
    let set = |pod: usize| {
        let mut connection = bed.connection(pod).ok()?;
        let answers = connection.req_packed_commands(&sets.get_packed_pipeline(), 0, keys).ok()?;
        Some(answers.iter().filter(|answer| **answer == redis::Value::Okay).count())
    };
    (0..bed.pods().len()).filter_map(set).sum()
}

/// How many keys all primaries hold together, once everybody says that the cluster is ok and follows.
pub(crate) fn keys(bed: &Testbed) -> usize {
    let count = || {
        let mut keys = 0;
        for pod in 0..bed.pods().len() {
            if bed.cluster_info(pod)?["cluster_state"] != "ok" {
                return Ok(None);
            }
            match is_primary(bed, pod) {
                true => keys += ask::<usize>(bed, pod, &["DBSIZE"])?,
                false if info(bed, pod, "master_link_status") == "up" => {}
                false => return Ok(None),
            }
        }
        Ok(Some(keys))
    };
    bed.wait_for("the cluster to be whole", LIMIT, count).unwrap()
}

/// Waits until a node follows its primary.
pub(crate) fn follows(bed: &Testbed, pod: usize) {
    bed.wait_for("the link to be up", LIMIT, || Ok((info(bed, pod, "master_link_status") == "up").then_some(())))
        .unwrap();
}
