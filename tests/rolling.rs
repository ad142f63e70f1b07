//! A rolling restart under clients that write without pause: nobody notices, and nothing is lost.

use std::time::Duration;

use testbed::{Leave, PodRestart, Ready, Rolling, Testbed, Valkey, Writer, fill, rolling_restart};

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster of six with some data, and save points, so that a bare server would save on its way out.
fn cluster(valkey: &Valkey, supervised: bool) -> Testbed {
    let bed = Testbed::builder(valkey)
        .pods(6)
        .config("save", "3600 1")
        .config("cluster-node-timeout", "5000")
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .supervised(supervised)
        .in_memory(true)
        .build()
        .unwrap();
    bed.form(3, 1).unwrap();
    for primary in bed.primaries().unwrap() {
        fill(&bed, primary, 20_000, 100).unwrap();
    }
    bed.wait_in_sync(LIMIT).unwrap();
    bed
}

/// Restarts every pod and holds it to what is promised.
fn assert_unnoticed(bed: &Testbed, leave: Leave, ready: Ready) {
    let writer = Writer::start(bed).unwrap();
    let rolling = Rolling { leave, away: Duration::from_millis(500), ready, deadline: LIMIT };
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
    assert!(handovers.len() >= 3, "{version}: {restarts:?}");
    println!("{version}: gaps of the primaries {handovers:.1?}, longest {:.1?}", report.longest_gap().length);
}

#[test]
fn sigterm_to_run_restarts_every_pod_and_no_write_is_lost_or_refused() {
    for valkey in Valkey::all() {
        assert_unnoticed(&cluster(&valkey, true), Leave::Terminate, Ready::InSync);
    }
}

#[test]
fn drain_before_sigterm_restarts_every_stock_server_and_no_write_is_lost_or_refused() {
    for valkey in Valkey::all() {
        assert_unnoticed(&cluster(&valkey, false), Leave::Drain(Vec::new()), Ready::InSync);
    }
}
