//! How long a round of planning takes: `plan` on a cluster that stands, on one that has lost a pod, and on one half of
//! which has not heard of a failover; and what moving slots begins with.
//!
//! `cargo bench --bench planning`; VALKEEPER_BENCH_RUNS sets how often each is measured (default 20).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use valkeeper::topology::parse::{ClusterInfo, ReplicaLink, Replication};
use valkeeper::topology::rebalance::Ground;
use valkeeper::topology::{
    ClusterId, Decision, DesiredTopology, Membership, NodeReport, Observation, Peer, PodName, Policy, Settings, Shape,
    SlotRange, Version, View, parse, plan,
};

/// The longest that one decision about a thousand nodes may take.
const PROMISE: Duration = Duration::from_millis(50);
const SHARDS: u16 = 500;
/// A primary that its replica has taken over from.
const FORMER: u16 = 3;

fn main() -> Result<()> {
    let runs: usize = std::env::var("VALKEEPER_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(20);
    let shape = Shape { shards: NonZeroU16::new(SHARDS).context("shards")?, replicas: 1 };
    let desired = DesiredTopology { cluster: ClusterId::new("ours").context("a cluster id")?, shape };
    let stands = observation(shape, |_| true)?;
    let halved = observation(shape, |node| node % 2 == 0)?;
    let mut without_one = stands.clone();
    without_one.peers.pop();
    let decide = |observation| {
        let decision = plan(observation, &desired, &Policy::KEEP);
        ensure!(matches!(decision, Decision::Converged(_) | Decision::Wait(_)), "{decision}");
        Ok(())
    };
    let survey = || {
        let ground = Ground::survey(&Membership::of(&stands, &desired.cluster));
        ensure!(ground.is_ok_and(|ground| ground.agreed), "no ground to move slots on");
        Ok(())
    };
    println!("one decision about {} nodes, the median of {runs}", shape.members());
    let kept = [
        measure("all answer", runs, || decide(&stands))?,
        measure("one is missing", runs, || decide(&without_one))?,
        measure("half are behind", runs, || decide(&halved))?,
        measure("slots may move", runs, survey)?,
    ];
    ensure!(kept.iter().all(|kept| *kept), "promise not kept");
    Ok(())
}

/// Whether the promise is kept.
fn measure(what: &str, runs: usize, decide: impl Fn() -> Result<()>) -> Result<bool> {
    let mut took = Vec::new();
    for _ in 0..runs {
        let started = Instant::now();
        decide().context(what.to_owned())?;
        took.push(started.elapsed());
    }
    took.sort();
    let median = took.get(took.len() / 2).copied().context("a run at least")?;
    println!("{what:>18} {:>8.1} ms (promised: {} ms)", median.as_secs_f64() * 1e3, PROMISE.as_millis());
    Ok(median <= PROMISE)
}

/// Every node's answer, each with its own copy of the view of all, as it comes from the wire; `heard` says who knows of
/// the failover.
fn observation(shape: Shape, heard: impl Fn(u16) -> bool) -> Result<Observation> {
    let heir = FORMER + shape.shards.get();
    let (before, now) = (lines(shape, FORMER, heir)?, lines(shape, heir, FORMER)?);
    let mut peers = Vec::new();
    for node in 0..u16::try_from(shape.members())? {
        let place = usize::from(node);
        let mut view = if heard(node) { now.clone() } else { before.clone() };
        let own = now.get(place).context("a line for each node")?;
        view[place] = own.replacen("master", "myself,master", 1).replacen("slave", "myself,slave", 1);
        let link = ReplicaLink { up: true, syncing: false, last_heard: None, down_for: None };
        let report = NodeReport {
            name: format!("ours/valkey-{node}"),
            version: Some(Version::new(9, 1, 2)),
            view: View::new(parse::nodes(&view.join("\n"))?).context("a view")?,
            cluster: ClusterInfo { ok: true, slots_assigned: 16_384, current_epoch: shape.members() as u64 },
            keys: 1_000,
            used_memory: 0,
            save_failed: false,
            replication: Replication { link: own.contains("slave").then_some(link), offset: 0 },
            settings: Settings::DEFAULT,
        };
        let pod = PodName::of_statefulset("valkey", node.into());
        peers.push(Peer { pod, address: SocketAddr::new(ip(node), 6379), answer: Ok(Box::new(report)) });
    }
    Ok(Observation { peers, ..Observation::default() })
}

/// Everybody's line, where of the two nodes of one shard one is the primary and the other its replica.
fn lines(shape: Shape, primary: u16, replica: u16) -> Result<Vec<String>> {
    let shards = shape.shards.get();
    let mut lines = Vec::new();
    for node in 0..u16::try_from(shape.members())? {
        let mut line = format!("{node:040x} {}:6379@16379,valkey-{node}.valkey.test ", ip(node));
        let of = if node == replica { primary } else { node % shards };
        match SlotRange::share(node % shards, shards) {
            Some(share) if node == primary || (node < shards && node != replica) => {
                write!(line, "master - 0 0 {node} connected {share}")?;
            }
            _ => write!(line, "slave {of:040x} 0 0 {of} connected")?,
        }
        lines.push(line);
    }
    Ok(lines)
}

fn ip(node: u16) -> IpAddr {
    let [high, low] = (node + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}
