//! How long it takes until a cluster under `run` is whole again by itself: after all its pods were stopped at once and came
//! back at once under new addresses, and after pods came back without their disks. Checks that afterwards nobody but a
//! lost disk's node is another, and that every shard has the slots and the keys it had. Fails where what is promised does
//! not hold.
//!
//! What is timed begins when the last of the servers that come back accepts connections, not when it answers: it may still
//! load its data. Timeouts and delays are those of a server that is told nothing; files are in memory.
//!
//! `cargo bench --bench healing`; VALKEEPER_BENCH_ROUNDS sets how often each is measured (default 3),
//! VALKEEPER_TEST_VERSIONS=9.1 which versions are.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result, ensure};
use testbed::{Pod, Testbed, Valkey};
use valkeeper::topology::{NodeId, Role, SlotRange};

use tools::{LIMIT, cluster, keys, pods, view, wait_whole};

#[path = "../tests/keep/tools.rs"]
mod tools;

const PODS: usize = 6;

/// What pods can lose, and how long it takes at most until that is made good.
struct Loss {
    name: &'static str,
    promise: Duration,
    /// Ends pods and takes from them what they lose; says which.
    strike: fn(&Testbed) -> Result<Vec<usize>>,
    /// Waits for what is promised.
    heal: fn(&Testbed) -> Result<()>,
    /// How many nodes are replaced by new ones.
    replaced: usize,
}

const LOSSES: [Loss; 4] = [
    Loss { name: "all addresses", promise: Duration::from_secs(8), strike: lose_addresses, heal: wait_ok, replaced: 0 },
    Loss {
        name: "a replica's disk",
        promise: Duration::from_secs(20),
        strike: |bed| lose_disks(bed, [replica(bed, 0)?]),
        heal: wait_replaced,
        replaced: 1,
    },
    Loss {
        name: "a primary's disk",
        promise: Duration::from_secs(20),
        strike: |bed| lose_disks(bed, [primary(bed, 1)?]),
        heal: wait_replaced,
        replaced: 1,
    },
    Loss {
        name: "a primary's and another shard's replica's",
        promise: Duration::from_secs(20),
        strike: |bed| lose_disks(bed, [primary(bed, 0)?, replica(bed, 2)?]),
        heal: wait_replaced,
        replaced: 2,
    },
];

fn main() -> Result<()> {
    let rounds = env::var("VALKEEPER_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let mut broken = Vec::new();
    for valkey in &Valkey::all() {
        // What a drain saves is there after the restart.
        let (bed, keys) = cluster(pods(valkey).config("repl-diskless-sync-delay", "5").run_args(&["--save", "always"]));
        println!("what is lost, and how long until all is well, {keys} keys, Valkey {}", valkey.version);
        for loss in &LOSSES {
            let took = (0..rounds).map(|_| measure(&bed, loss)).collect::<Result<Vec<_>>>()?;
            let longest = took.iter().max().copied().unwrap_or_default();
            println!("{:<42} longest {longest:>5.1?}, promised {:?}, each {took:.1?}", loss.name, loss.promise);
            if longest > loss.promise {
                broken.push(format!("{}, {}: {longest:?}", valkey.version, loss.name));
            }
        }
        println!();
    }
    ensure!(broken.is_empty(), "promises not kept: {broken:#?}");
    Ok(())
}

/// How long that takes, in a cluster that is whole before and after.
fn measure(bed: &Testbed, loss: &Loss) -> Result<Duration> {
    wait_whole(bed);
    let before = (slots(bed)?, keys(bed));
    let struck = (loss.strike)(bed)?;
    struck.iter().try_for_each(|pod| bed.pod(*pod).spawn())?;
    let accepted = bed.wait_for("every server to accept connections", LIMIT, || {
        let servers = struck.iter().map(|pod| bed.pod(*pod));
        servers.map(|pod| TcpStream::connect((pod.addr(), pod.port()))).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Instant::now()))
    })?;
    (loss.heal)(bed)?;
    let took = accepted.elapsed();
    wait_whole(bed);
    let after = (slots(bed)?, keys(bed));
    let kept = before.0.iter().filter(|(node, slots)| after.0.get(node) == Some(slots)).count();
    ensure!(kept == PODS - loss.replaced && before.1 == after.1, "{}: {before:?} became {after:?}", loss.name);
    Ok(took)
}

/// The slots of each node's shard.
fn slots(bed: &Testbed) -> Result<BTreeMap<NodeId, Vec<SlotRange>>> {
    let view = view(bed, 0)?;
    let owned = |id| view.entries().iter().find(|node| node.id == id).map(|node| node.slots.clone());
    let of_shard = |id, role| match role {
        Role::Replica(Some(primary)) => owned(primary),
        _ => owned(id),
    };
    Ok(view.entries().iter().filter_map(|node| Some((node.id, of_shard(node.id, node.role)?))).collect())
}

/// Of the pods that serve slots, the one of that number, from 0.
fn primary(bed: &Testbed, number: usize) -> Result<usize> {
    bed.primaries()?.get(number).copied().context("fewer than three own slots")
}

/// The pod that follows it.
fn replica(bed: &Testbed, number: usize) -> Result<usize> {
    let followed = Role::Replica(Some(view(bed, primary(bed, number)?)?.myself().id));
    let follows = |pod: &usize| view(bed, *pod).is_ok_and(|view| view.myself().role == followed);
    bed.pods().iter().map(Pod::ordinal).find(follows).context("it has no replica")
}

/// Stops all pods at once, and has them scheduled anew.
fn lose_addresses(bed: &Testbed) -> Result<Vec<usize>> {
    thread::scope(|scope| {
        let stops: Vec<_> = bed.pods().iter().map(|pod| scope.spawn(|| pod.stop())).collect();
        stops.into_iter().try_for_each(|stop| {
            let status = stop.join().expect("a stop does not panic")?;
            ensure!(status.success(), "a pod ended with {status}");
            Ok(())
        })
    })?;
    bed.pods().iter().for_each(|pod| pod.move_to(bed.spare_addr()));
    Ok(bed.pods().iter().map(Pod::ordinal).collect())
}

/// Kills pods at once and empties their disks. They stay away until every shard has a primary again.
fn lose_disks<const COUNT: usize>(bed: &Testbed, lost: [usize; COUNT]) -> Result<Vec<usize>> {
    lost.iter().try_for_each(|pod| bed.pod(*pod).lose_disk())?;
    bed.wait_for("every shard to have a primary that is there", LIMIT, || {
        let primaries = bed.primaries()?;
        ensure!(primaries.len() == PODS / 2 && !primaries.iter().any(|one| lost.contains(one)), "{primaries:?}");
        Ok(Some(()))
    })?;
    Ok(lost.into())
}

/// Every node says ok.
fn wait_ok(bed: &Testbed) -> Result<()> {
    bed.wait_for("every node to say ok", LIMIT, || {
        for pod in bed.pods() {
            let info = bed.cluster_info(pod.ordinal())?;
            ensure!(info["cluster_state"] == "ok", "{}: {info:?}", pod.name());
        }
        Ok(Some(()))
    })
}

/// The new nodes have joined and are in sync, and nobody names the old ones.
fn wait_replaced(bed: &Testbed) -> Result<()> {
    wait_whole(bed);
    Ok(())
}
