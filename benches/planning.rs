//! How long a round of planning takes: `plan` on a cluster that stands, and on one that has lost a pod.
//!
//! `cargo bench --bench planning`; VALKEEPER_BENCH_RUNS sets how often each is measured (default 20).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use valkeeper::topology::parse::{ClusterInfo, ReplicaLink, Replication};
use valkeeper::topology::{
    ClusterId, Decision, DesiredTopology, NodeReport, Observation, Peer, PodName, Policy, Settings, Shape, SlotRange,
    Version, View, parse, plan,
};

/// The longest that one decision about a thousand nodes may take.
const PROMISE: Duration = Duration::from_millis(50);
const SHARDS: u16 = 500;

fn main() -> Result<()> {
    let runs: usize = std::env::var("VALKEEPER_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(20);
    let shape = Shape { shards: NonZeroU16::new(SHARDS).context("shards")?, replicas: 1 };
    let desired = DesiredTopology { cluster: ClusterId::new("ours").context("a cluster id")?, shape };
    let stands = observation(shape)?;
    let mut without_one = stands.clone();
    without_one.peers.pop();
    println!("one decision about {} nodes, the median of {runs}", shape.members());
    let mut broken = Vec::new();
    for (what, observation) in [("all answer", &stands), ("one is missing", &without_one)] {
        let mut took = Vec::new();
        for _ in 0..runs {
            let started = Instant::now();
            let decision = plan(observation, &desired, &Policy::KEEP);
            took.push(started.elapsed());
            let is_right = matches!(decision, Decision::Converged(_) | Decision::Wait(_));
            ensure!(is_right, "{what}: {decision}");
        }
        took.sort();
        let median = took.get(took.len() / 2).copied().context("a run at least")?;
        println!("{what:>18} {:>8.1} ms (promised: {} ms)", median.as_secs_f64() * 1e3, PROMISE.as_millis());
        if median > PROMISE {
            broken.push(what);
        }
    }
    ensure!(broken.is_empty(), "promise not kept: {broken:?}");
    Ok(())
}

/// Every node's answer, each with its own copy of the view of all, as it comes from the wire.
fn observation(shape: Shape) -> Result<Observation> {
    let shards = shape.shards.get();
    let nodes = u16::try_from(shape.members())?;
    let mut lines = Vec::new();
    for node in 0..nodes {
        let (id, ip) = (format!("{node:040x}"), ip(node));
        let mut line = format!("{id} {ip}:6379@16379,valkey-{node}.valkey.test ");
        match SlotRange::share(node, shards) {
            Some(share) => write!(line, "master - 0 0 {node} connected {share}")?,
            None => write!(line, "slave {:040x} 0 0 {} connected", node % shards, node % shards)?,
        }
        lines.push(line);
    }
    let all = lines.join("\n");
    let mut peers = Vec::new();
    for node in 0..nodes {
        let own = lines.get(usize::from(node)).context("a line for each node")?;
        let view =
            all.replace(own.as_str(), &own.replacen("master", "myself,master", 1).replacen("slave", "myself,slave", 1));
        let link = ReplicaLink { up: true, syncing: false, last_heard: None, down_for: None };
        let report = NodeReport {
            name: format!("ours/valkey-{node}"),
            version: Some(Version::new(9, 1, 2)),
            view: View::new(parse::nodes(&view)?).context("a view")?,
            cluster: ClusterInfo { ok: true, slots_assigned: 16_384, current_epoch: u64::from(nodes) },
            keys: 1_000,
            used_memory: 0,
            save_failed: false,
            replication: Replication { link: (node >= shards).then_some(link), offset: 0 },
            settings: Settings::DEFAULT,
        };
        let pod = PodName::of_statefulset("valkey", node.into());
        peers.push(Peer { pod, address: SocketAddr::new(ip(node), 6379), answer: Ok(Box::new(report)) });
    }
    Ok(Observation { peers, ..Observation::default() })
}

fn ip(node: u16) -> IpAddr {
    let [high, low] = (node + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}
