//! Before a server starts: where the other nodes are, when its nodes.conf is from before all had another address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::settings::Settings;
use crate::datadir;
use crate::discovery::{Discovery, Found};
use crate::exit::{Exit, Failure};
use crate::topology::identity::PodName;
use crate::topology::node::NodeId;
use crate::topology::parse::ServerConfig;
use crate::topology::start::{NodesConf, are_outdated};

/// How long DNS is asked at most, and how often.
const WITHIN: Duration = Duration::from_secs(2);
const OFTEN: Duration = Duration::from_millis(100);

/// Puts the addresses in nodes.conf right where another node is said to be at our own. What DNS says counts only once it
/// says where this pod is: before, it may be as old as the file. All are waited for, but not for long.
pub(super) async fn put_right(settings: &Settings, config: &ServerConfig, nodes: &NodesConf) -> Result<(), Failure> {
    let (Some(_), Some(reach), NodesConf::Nodes(entries)) = (settings.ip, &settings.reach, nodes) else {
        return Ok(());
    };
    let own = settings.address;
    if !are_outdated(entries, own) {
        return Ok(());
    }
    let discovery = Discovery::new(reach, settings.members())?;
    let until = Instant::now() + WITHIN;
    let mut pods = BTreeMap::new();
    while let Ok(found) = timeout_at(until, discovery.round()).await {
        let found = by_pod(found, own.is_ipv4());
        if settings.name.as_ref().and_then(|name| found.get(name)) == Some(&own) {
            pods = found;
        }
        if pods.len() >= entries.len() {
            break;
        }
        sleep(OFTEN).await;
    }
    let file = config.nodes_conf();
    let mended = datadir::mend_addresses(&file, own, &pods).map_err(|error| Exit::System.because(error))?;
    if !mended.is_empty() {
        let nodes: Vec<_> = mended.iter().map(NodeId::short).collect();
        tracing::warn!(
            "{}: had another node at our own address {own}, so it is from before the pods got their addresses; it has those \
             that DNS says, or none, for {} now",
            file.display(),
            nodes.join(", ")
        );
    }
    Ok(())
}

/// The pods that have one address of that family.
fn by_pod(found: Found, is_ipv4: bool) -> BTreeMap<PodName, SocketAddr> {
    let mut pods: BTreeMap<PodName, Option<SocketAddr>> = BTreeMap::new();
    for candidate in found.candidates {
        let Some(pod) = candidate.pod.filter(|_| candidate.address.is_ipv4() == is_ipv4) else { continue };
        pods.entry(pod).and_modify(|known| *known = None).or_insert(Some(candidate.address));
    }
    pods.into_iter().filter_map(|(pod, address)| Some((pod, address?))).collect()
}
