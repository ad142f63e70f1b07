//! A rolling restart under clients that write without pause: nobody notices, and nothing is lost.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use testbed::{Leave, PodRestart, Ready, Rolling, Testbed, Valkey, Writer, fill, rolling_restart};

const LIMIT: Duration = Duration::from_secs(60);

/// One at a time: a machine that is busy with two answers late, and a late answer counts as an error.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster with a replica each and some data, and with save points, so that a bare server would save on its way out.
fn cluster(valkey: &Valkey, shards: u8, supervised: bool) -> Testbed {
    let bed = Testbed::builder(valkey)
        .pods(shards * 2)
        .config("save", "3600 1")
        .config("cluster-node-timeout", "5000")
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .supervised(supervised)
        .in_memory(true)
        .build()
        .unwrap();
    bed.form(shards.into(), 1).unwrap();
    for primary in bed.primaries().unwrap() {
        fill(&bed, primary, 20_000, 100).unwrap();
    }
    bed.wait_in_sync(LIMIT).unwrap();
    bed
}

/// Restarts every pod and holds it to what is promised.
fn assert_unnoticed(bed: &Testbed, leave: Leave) {
    let writer = Writer::start_patient(bed, Duration::from_secs(1)).unwrap();
    let rolling = Rolling { leave, away: Duration::from_millis(500), ready: Ready::Probe, deadline: LIMIT };
    let restarts = rolling_restart(bed, &writer, &rolling).unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    let report = writer.stop();
    let version = &bed.valkey().version;
    assert_eq!(report.error_count(), 0, "{version}: {report}");
    assert_eq!(report.verify(bed).unwrap().keys, 0, "{version}: {report}");
    assert!(report.acknowledged() > 1_000, "{version}: {report}");
    let mut handovers: Vec<_> =
        restarts.iter().filter(|restart| restart.was_primary).map(|PodRestart { gap, .. }| gap.length).collect();
    handovers.sort();
    assert!(handovers.len() >= bed.pods().len() / 2, "{version}: {restarts:?}");
    println!("{version}: gaps of the primaries {handovers:.1?}; in all:\n{report}");
}

#[test]
fn sigterm_to_run_restarts_every_pod_and_no_write_is_lost_or_refused() {
    let _alone = alone();
    for valkey in Valkey::all() {
        assert_unnoticed(&cluster(&valkey, 3, true), Leave::Terminate);
    }
}

#[test]
fn drain_before_sigterm_restarts_every_stock_server_and_no_write_is_lost_or_refused() {
    let _alone = alone();
    for valkey in Valkey::all() {
        assert_unnoticed(&cluster(&valkey, 3, false), Leave::Drain(Vec::new()));
    }
}

#[test]
fn a_cluster_of_one_shard_is_restarted_unnoticed_too() {
    let _alone = alone();
    assert_unnoticed(&cluster(&Valkey::newest(), 1, true), Leave::Terminate);
}
