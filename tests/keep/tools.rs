//! A cluster of three shards with one replica each, its keys, and what each node knows of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testbed::redis::cmd;
use testbed::{Builder, Testbed, Valkey};
use valkeeper::topology::parse;
use valkeeper::topology::{NodeEntry, NodeId, Role, View};

pub(crate) const LIMIT: Duration = Duration::from_secs(40);
const PODS: u8 = 6;
/// In each shard.
const KEYS: u64 = 3_500;

/// Six pods. Files are in memory, as a server syncs its nodes.conf before it tells anybody.
pub(crate) fn pods(valkey: &Valkey) -> Builder {
    Testbed::builder(valkey)
        .pods(PODS)
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .in_memory(true)
        .config("repl-diskless-sync-delay", "0")
}

/// The same under `run`, formed, with keys in every shard, which are what the second value says.
pub(crate) fn cluster(builder: Builder) -> (Testbed, u64) {
    let bed = builder.build().unwrap();
    bed.form(3, 1).unwrap();
    let keys = fill(&bed);
    (bed, keys)
}

/// Puts keys into every shard, waits until the replicas have them, and says how many there are.
pub(crate) fn fill(bed: &Testbed) -> u64 {
    let primaries = bed.primaries().unwrap();
    for primary in &primaries {
        testbed::fill(bed, *primary, KEYS, 100).unwrap();
        bed.wait_for("the replica to have the keys", LIMIT, || {
            let replicas: u64 = cmd("WAIT").arg(1).arg(1_000).query(&mut bed.connection(*primary)?)?;
            Ok((replicas == 1).then_some(()))
        })
        .unwrap();
    }
    keys(bed)
}

/// How many keys the primaries hold.
pub(crate) fn keys(bed: &Testbed) -> u64 {
    bed.primaries().unwrap().into_iter().map(|primary| bed.keys(primary).unwrap()).sum()
}

/// What the pod's server knows.
pub(crate) fn view(bed: &Testbed, pod: usize) -> Result<View> {
    let view = View::new(parse::nodes(&bed.cluster_nodes(pod)?)?);
    view.ok_or_else(|| anyhow::anyhow!("{} does not name itself", bed.pod(pod).name()))
}

/// Who the pods' servers are.
pub(crate) fn ids(bed: &Testbed) -> Result<BTreeSet<NodeId>> {
    bed.pods().iter().map(|pod| Ok(view(bed, pod.ordinal())?.myself().id)).collect()
}

/// Waits until all is as it is to be, in the eyes of every node: six nodes that say ok and reach each other, and one
/// replica in sync for each of three primaries. Nobody knows anybody else. Says how long that took.
#[track_caller]
pub(crate) fn wait_whole(bed: &Testbed) -> Duration {
    let started = Instant::now();
    bed.wait_for("the cluster to be whole", LIMIT, || assert_whole(bed).map(Some)).unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    started.elapsed()
}

fn assert_whole(bed: &Testbed) -> Result<()> {
    let ids = ids(bed)?;
    for pod in bed.pods() {
        let (name, view) = (pod.name(), view(bed, pod.ordinal())?);
        let known: BTreeSet<_> = view.entries().iter().map(|node| node.id).collect();
        ensure!(known == ids, "{name} knows {known:?}, and there are {ids:?}");
        let lost: Vec<_> = view.others().filter(|node| node.is_lost()).collect();
        ensure!(lost.is_empty(), "{name} has lost {lost:?}");
        let primaries: Vec<_> = view.entries().iter().filter(|node| node.owns_slots()).collect();
        ensure!(primaries.len() == 3, "{name} sees {} primaries", primaries.len());
        for primary in primaries {
            let follows = |node: &&NodeEntry| node.role == Role::Replica(Some(primary.id));
            let replicas = view.entries().iter().filter(follows).count();
            ensure!(replicas == 1, "{name} sees {replicas} replicas of {:?}", primary.id);
        }
    }
    Ok(())
}
