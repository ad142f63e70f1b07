//! The writer that other tests judge by sees what it must: pauses, errors and losses.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use testbed::redis::cmd;
use testbed::{Leave, Ready, Rolling, Testbed, Valkey, Writer, fill, rolling_restart};

const LIMIT: Duration = Duration::from_secs(60);

/// One test at a time: writers take what processors there are, and pauses are measured.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A formed cluster of shards with one replica each; a single pod has none. Nodes count as failed after so
/// many milliseconds.
fn bed_with_timeout(valkey: &Valkey, pods: u8, timeout: &str) -> Testbed {
    let bed = Testbed::builder(valkey)
        .pods(pods)
        .in_memory(true)
        .config("requirepass", "secret")
        .config("cluster-node-timeout", timeout)
        .config("repl-diskless-sync-delay", "0")
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .build()
        .unwrap();
    let shards = u16::from(pods).div_ceil(2);
    bed.form(shards, u16::from(pods) / shards - 1).unwrap();
    bed
}

/// [`bed_with_timeout`], which no busy machine makes nodes miss each other in.
fn bed(valkey: &Valkey, pods: u8) -> Testbed {
    bed_with_timeout(valkey, pods, "15000")
}

/// The writers' own count of acknowledgements grows by that many in every shard.
fn go_on(bed: &Testbed, writer: &Writer, count: u64) {
    let mark = writer.mark();
    bed.wait_for("every shard to be written to", LIMIT, || {
        let report = writer.report_since(&mark);
        let all = report.shards.iter().all(|shard| shard.acknowledged >= count);
        Ok(all.then_some(()))
    })
    .unwrap();
}

#[test]
fn a_handover_by_hand_is_a_short_pause_and_loses_nothing() {
    let _alone = alone();
    for valkey in Valkey::all() {
        let bed = bed(&valkey, 6);
        let writer = Writer::start(&bed).unwrap();
        go_on(&bed, &writer, 1000);
        let primaries = bed.primaries().unwrap();
        assert_eq!(primaries.len(), 3);
        for heir in (0..6).filter(|pod| !primaries.contains(pod)) {
            let mark = writer.mark();
            cmd("CLUSTER").arg("FAILOVER").exec(&mut bed.connection(heir).unwrap()).unwrap();
            bed.wait_for("the heir to serve", LIMIT, || Ok(bed.primaries()?.contains(&heir).then_some(()))).unwrap();
            bed.wait_in_sync(LIMIT).unwrap();
            go_on(&bed, &writer, 1000);
            let report = writer.report_since(&mark);
            // A machine that has no time for us may let 200 ms pass.
            assert!(report.errors().keys().all(|kind| kind == "timeout"), "{report}");
            assert!(report.redirects() > 0, "{report}");
            assert!(report.longest_gap().length < Duration::from_secs(1), "{report}");
        }
        let report = writer.stop();
        println!("{}:\n{report}", valkey.version);
        let lost = report.verify(&bed).unwrap();
        assert_eq!((lost.checked, lost.keys), (report.acknowledged(), 0), "{lost:?}");
    }
}

#[test]
fn the_death_of_a_primary_is_a_long_pause_with_errors_in_its_shard_alone() {
    let _alone = alone();
    let bed = bed_with_timeout(&Valkey::newest(), 6, "1000");
    let writer = Writer::start(&bed).unwrap();
    go_on(&bed, &writer, 1000);
    let dead = bed.primaries().unwrap()[0];
    let mark = writer.mark();
    bed.pod(dead).kill().unwrap();
    go_on(&bed, &writer, 1000);
    let report = writer.report_since(&mark);
    println!("{report}");
    assert!(report.error_count() > 0 && report.reconnects() > 0, "{report}");
    // The others agree on a death only after the time that they allow a node.
    let paused = report.shards.iter().filter(|shard| shard.longest_gap.length > Duration::from_millis(500));
    assert_eq!(paused.count(), 1, "{report}");
    bed.pod(dead).start().unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    let last = writer.mark();
    go_on(&bed, &writer, 1000);
    let calm = writer.report_since(&last);
    assert!(calm.errors().keys().all(|kind| kind == "timeout"), "{calm}");
    assert!(calm.longest_gap().length < report.longest_gap().length, "{calm}");
}

#[test]
fn keys_that_a_server_forgot_are_missed() {
    let _alone = alone();
    let bed = bed(&Valkey::newest(), 1);
    let writer = Writer::start_many(&bed, 2).unwrap();
    go_on(&bed, &writer, 1000);
    let forgotten = writer.report().acknowledged();
    bed.pod(0).restart_at_once().unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    go_on(&bed, &writer, 1000);
    let report = writer.stop();
    let lost = report.verify(&bed).unwrap();
    assert_eq!(lost.checked, report.acknowledged());
    assert!(lost.keys >= forgotten && lost.keys < lost.checked, "{lost:?} of {forgotten} at least\n{report}");
    assert_eq!(lost.first.len(), 2, "{lost:?}");
    // What was written after that is whole.
    assert_eq!(bed.keys(0).unwrap(), lost.checked - lost.keys);
}

#[test]
fn a_slot_on_its_way_is_written_to_where_it_goes() {
    let _alone = alone();
    let bed = bed(&Valkey::newest(), 4);
    let writer = Writer::start(&bed).unwrap();
    // The first shard is the one of the lowest slots.
    let tag = writer.report().shards[0].tag.clone();
    let [first, second] = bed.primaries().unwrap()[..] else { panic!("two shards") };
    let [from, to] = if owns(&bed, first, &tag) { [first, second] } else { [second, first] };
    let mark = writer.mark();
    set_slot(&bed, to, &tag, "IMPORTING", from);
    set_slot(&bed, from, &tag, "MIGRATING", to);
    go_on(&bed, &writer, 100);
    let report = writer.report_since(&mark);
    // A redirect for each: the slot's keys are new, and its owner is who it was.
    assert!(report.redirects() >= 100 && report.errors().keys().all(|kind| kind == "timeout"), "{report}");
    assert!(bed.keys(to).unwrap() > report.shards[1].acknowledged, "{report}");
}

fn owns(bed: &Testbed, pod: usize, tag: &str) -> bool {
    cmd("GET").arg(format!("{{{tag}}}")).query::<Option<String>>(&mut bed.connection(pod).unwrap()).is_ok()
}

fn set_slot(bed: &Testbed, pod: usize, tag: &str, state: &str, other: usize) {
    let id: String = cmd("CLUSTER").arg("MYID").query(&mut bed.connection(other).unwrap()).unwrap();
    let mut connection = bed.connection(pod).unwrap();
    let slot: u16 = cmd("CLUSTER").arg("KEYSLOT").arg(tag).query(&mut connection).unwrap();
    cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).arg(id).exec(&mut connection).unwrap();
}

#[test]
fn a_rolling_restart_takes_every_pod_and_tells_what_it_cost() {
    let _alone = alone();
    let bed = bed(&Valkey::newest(), 2);
    for pod in 0..2 {
        cmd("CONFIG").arg("SET").arg("save").arg("3600 1").exec(&mut bed.connection(pod).unwrap()).unwrap();
    }
    let primary = bed.primaries().unwrap()[0];
    let writer = Writer::start(&bed).unwrap();
    let leave = Leave::SaveAndSleep(Duration::ZERO);
    let how = Rolling { leave, away: Duration::ZERO, ready: Ready::InSync, deadline: LIMIT };
    let restarts = rolling_restart(&bed, &writer, &how).unwrap();
    let told: Vec<_> = restarts.iter().map(|one| (one.pod, one.was_primary, one.status.success())).collect();
    assert_eq!(told, [(1, primary == 1, true), (0, primary == 0, true)]);
    // Nobody can vote where the only primary is away: writes wait until it is back.
    let [of_primary, of_replica] =
        [true, false].map(|role| restarts.iter().find(|one| one.was_primary == role).unwrap());
    assert!(of_primary.gap.length > of_replica.gap.length, "{restarts:?}");
    assert!(of_primary.report.error_count() + of_primary.report.reconnects() > 0, "{restarts:?}");
    let report = writer.stop();
    assert!(report.longest_gap() >= of_primary.gap, "{report}");
    assert_eq!(report.verify(&bed).unwrap().keys, 0);
}

#[test]
fn a_server_that_hangs_is_told_by_timeouts() {
    let _alone = alone();
    let bed = bed(&Valkey::newest(), 1);
    let writer = Writer::start(&bed).unwrap();
    bed.pod(0).pause().unwrap();
    bed.wait_for("a write to time out", LIMIT, || Ok(writer.report().errors().get("timeout").copied())).unwrap();
    let open = writer.report().longest_gap();
    assert!(open.length >= Duration::from_millis(200), "a gap counts while it is open: {open:?}");
    bed.pod(0).resume().unwrap();
    go_on(&bed, &writer, 100);
    assert_eq!(writer.stop().verify(&bed).unwrap().keys, 0);
}

#[test]
fn much_data_is_there_soon_and_on_the_replica_too() {
    let _alone = alone();
    let bed = bed(&Valkey::newest(), 2);
    let primary = bed.primaries().unwrap()[0];
    fill(&bed, primary, 150_500, 100).unwrap();
    assert_eq!(bed.keys(primary).unwrap(), 150_500);
    bed.wait_for("the replica to have it", LIMIT, || Ok((bed.keys(1 - primary)? == 150_500).then_some(()))).unwrap();
}
