//! A primary dies: somebody takes over at once, and what it comes back with never takes the place of better data.
//!
//! Nodes count as failed after 15 s, far longer than any test waits, so that Valkey's own failover is not what helps.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use testbed::redis::cmd;
use testbed::{Builder, Pod, Report, Testbed, Valkey, Writer};

#[path = "crash/coming_back.rs"]
mod coming_back;

/// Two heirs that ask for votes in the same moment may both fail, and 8.0 then tries again after a minute.
const LIMIT: Duration = Duration::from_secs(120);

/// Sooner than Valkey's own failover could be. How soon exactly is for the bench `crashing` to say, on a machine that does
/// nothing else.
const BY_OUR_DOING: Duration = Duration::from_secs(5);

/// Replication does not wait for the replica: what a primary has acknowledged in its last loop may be unsent. One writer
/// that waits for each answer has one write under way, so few can be lost; to lose more would mean that an old copy won.
const UNREPLICATED: u64 = 5;

/// One test at a time: writers and servers take what processors there are, and pauses are measured.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pods under `run` that save nothing by themselves, and resynchronise without delay.
fn builder(valkey: &Valkey, pods: u8) -> Builder {
    Testbed::builder(valkey)
        .pods(pods)
        .config("save", "\"\"")
        .config("repl-diskless-sync-delay", "0")
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .supervised(true)
        .in_memory(true)
}

/// Three shards with one replica each.
fn cluster(valkey: &Valkey, args: &[&str]) -> Testbed {
    let bed = builder(valkey, 6).config("cluster-node-timeout", "15000").run_args(args).build().unwrap();
    bed.form(3, 1).unwrap();
    bed
}

/// The writers' own count of acknowledgements grows by that many in every shard.
fn go_on(bed: &Testbed, writer: &Writer, count: u64) {
    let mark = writer.mark();
    bed.wait_for("every shard to be written to", LIMIT, || {
        let report = writer.report_since(&mark);
        anyhow::ensure!(report.shards.iter().all(|shard| shard.acknowledged >= count), "{report}");
        Ok(Some(()))
    })
    .unwrap();
}

fn a_primary(bed: &Testbed) -> usize {
    bed.primaries().unwrap()[0]
}

/// Another pod than before serves as many shards, and everybody is in sync.
#[track_caller]
fn assert_follows(bed: &Testbed, pod: usize) {
    bed.wait_in_sync(LIMIT).unwrap();
    let primaries = bed.primaries().unwrap();
    assert!(!primaries.contains(&pod) && primaries.len() == 3, "{}: pod {pod}, {primaries:?}", bed.valkey().version);
}

/// While a writer writes: it soon goes on after that death, and nothing is lost but what was never sent.
#[track_caller]
fn assert_goes_on(bed: &Testbed, what: &str, death: impl FnOnce()) {
    let writer = Writer::start(bed).unwrap();
    go_on(bed, &writer, 100);
    death();
    go_on(bed, &writer, 100);
    let report = writer.stop();
    let (version, gap) = (&bed.valkey().version, report.longest_gap().length);
    println!("{version}: {what}: writes paused for {gap:.1?}");
    assert!(gap <= BY_OUR_DOING, "{version}: {what}: {report}");
    assert_kept(bed, &report);
}

/// Nothing was lost but what was never sent.
#[track_caller]
fn assert_kept(bed: &Testbed, report: &Report) {
    let lost = report.verify(bed).unwrap();
    println!("{}: {} of {} acknowledged writes lost", bed.valkey().version, lost.keys, lost.checked);
    assert!(lost.keys <= UNREPLICATED && lost.checked > 100, "{lost:?}\n{report}");
}

fn epochs(bed: &Testbed) -> Vec<String> {
    bed.pods().iter().map(|pod| bed.cluster_info(pod.ordinal()).unwrap()["cluster_current_epoch"].clone()).collect()
}

#[test]
fn writes_go_on_at_once_when_the_server_or_the_pod_of_a_primary_is_killed_and_only_then() {
    let _alone = alone();
    for valkey in Valkey::all() {
        let bed = cluster(&valkey, &[]);
        let primary = a_primary(&bed);
        assert_goes_on(&bed, "server killed", || {
            bed.pod(primary).kill_server().unwrap();
            let status = bed.pod(primary).wait_end(LIMIT).unwrap();
            assert_eq!(status.code(), Some(128 + 9), "{}: {}", valkey.version, bed.pod(primary).run_log());
        });
        bed.pod(primary).start().unwrap();
        assert_follows(&bed, primary);

        let primary = bed.primaries().unwrap()[1];
        assert_goes_on(&bed, "pod killed", || {
            bed.pod(primary).kill().unwrap();
        });
        bed.pod(primary).start().unwrap();
        assert_follows(&bed, primary);

        assert_unmoved_by_what_is_no_death(&bed);
    }
}

/// A server that stands still, or throws its clients out, or has no room for any, is not dead.
fn assert_unmoved_by_what_is_no_death(bed: &Testbed) {
    let before = (epochs(bed), bed.primaries().unwrap());
    let primary = before.1[0];
    let replica = replica_of(bed, primary);
    // Time itself is what is tested here: for as long as this, nothing happens. Each watcher looks once a second.
    let stands_still = Duration::from_millis(1200);
    for pod in [primary, replica] {
        bed.pod(pod).pause().unwrap();
        thread::sleep(stands_still);
        bed.pod(pod).resume().unwrap();
    }
    for pod in [primary, replica] {
        signal(bed.pod(pod), "-STOP");
    }
    thread::sleep(stands_still);
    for pod in [primary, replica] {
        signal(bed.pod(pod), "-CONT");
    }
    let mut connection = bed.connection(primary).unwrap();
    for _ in 0..3 {
        cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut connection).unwrap();
    }
    cmd("CONFIG").arg(&["SET", "maxclients", "1"]).exec(&mut connection).unwrap();
    cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut connection).unwrap();
    thread::sleep(stands_still);
    cmd("CONFIG").arg(&["SET", "maxclients", "1000"]).exec(&mut connection).unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    assert_eq!((epochs(bed), bed.primaries().unwrap()), before, "{}", bed.valkey().version);
}

/// A signal to `run` alone.
fn signal(pod: &Pod, what: &str) {
    let pid = pod.pid().unwrap().to_string();
    assert!(std::process::Command::new("kill").args([what, &pid]).status().unwrap().success());
}

/// The pod that copies this one.
fn replica_of(bed: &Testbed, primary: usize) -> usize {
    let nodes = bed.cluster_nodes(primary).unwrap();
    let own = nodes.lines().find(|line| line.contains("myself")).unwrap().split(' ').next().unwrap();
    let replica = nodes.lines().find(|line| line.split(' ').nth(3) == Some(own)).unwrap();
    let address = replica.split(' ').nth(1).unwrap().split(':').next().unwrap();
    bed.pods().iter().find(|pod| pod.addr().to_string() == address).unwrap().ordinal()
}

#[test]
fn told_to_wait_it_leaves_a_dead_primary_to_valkeys_own_failover() {
    let _alone = alone();
    for valkey in Valkey::all() {
        let node_timeout = Duration::from_secs(2);
        let bed = builder(&valkey, 6)
            .config("cluster-node-timeout", "2000")
            .run_args(&["--on-primary-lost", "wait"])
            .build()
            .unwrap();
        bed.form(3, 1).unwrap();
        let writer = Writer::start(&bed).unwrap();
        let primary = a_primary(&bed);
        let mark = writer.mark();
        bed.pod(primary).kill_server().unwrap();
        bed.pod(primary).wait_end(LIMIT).unwrap();
        go_on(&bed, &writer, 100);
        let gap = writer.report_since(&mark).longest_gap().length;
        println!("{}: Valkey's own failover: writes paused for {gap:.1?}", valkey.version);
        // It takes a node for failed when half of that has passed twice, counted from a ping that may be a little older.
        assert!(gap > node_timeout / 2, "{}: {gap:?}", valkey.version);
        bed.pod(primary).start().unwrap();
        assert_follows(&bed, primary);
    }
}

#[test]
fn of_two_replicas_one_takes_over_every_time() {
    let _alone = alone();
    let valkey = Valkey::newest();
    let bed = builder(&valkey, 9)
        .config("cluster-node-timeout", "15000")
        .run_args(&["--shards", "3", "--replicas", "2"])
        .build()
        .unwrap();
    bed.form(3, 2).unwrap();
    for time in 0..10 {
        let primary = bed.primaries().unwrap()[time % 3];
        let what = format!("of two replicas, time {time}");
        if time % 2 == 0 {
            assert_goes_on(&bed, &what, || {
                bed.pod(primary).kill().unwrap();
            });
        } else {
            assert_goes_on(&bed, &what, || {
                bed.pod(primary).kill_server().unwrap();
                bed.pod(primary).wait_end(LIMIT).unwrap();
            });
        }
        bed.pod(primary).start().unwrap();
        assert_follows(&bed, primary);
    }
}
