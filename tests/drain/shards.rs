//! Shards, whose members leave one by one, together, or all at once.

use std::fs;
use std::thread;
use std::time::Duration;

use testbed::{Ended, Testbed, Valkey, wait_for};

use crate::tools::{ask, cluster, command, drain, drained, each, follows, info, is_primary, keys, spawn, write};

/// Lets so much time go by; what happens meanwhile is what the test is about.
fn pass(milliseconds: u64) {
    let _ = wait_for("nothing", Duration::from_millis(milliseconds), || Ok(None::<()>));
}

/// Drains several at once, each so many milliseconds after the last.
fn drain_together(bed: &Testbed, pods: &[usize], apart: u64) -> Vec<Ended> {
    thread::scope(|scope| {
        let begin = |pod: &usize| {
            let pod = *pod;
            let run = scope.spawn(move || drain(bed, pod, &["-o", "json"]));
            pass(apart);
            run
        };
        let runs: Vec<_> = pods.iter().map(begin).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

#[test]
fn a_primary_hands_over_saves_as_replica_and_comes_back_by_partial_resync() {
    each(Valkey::all(), |valkey| {
        let bed = cluster(&valkey, 3, &[]);
        assert_eq!(write(&bed, "a", 3_000), 3_000);
        let report = drained(&bed, 0, &[]);
        assert_eq!((report["outcome"].as_str(), report["save"]["outcome"].as_str()), (Some("clean"), Some("saved")));
        assert!(report["handover"]["heir"].is_string() && report["handover"]["attempts"] == 1, "{report}");
        assert!(report["save"]["keys"].as_u64() > Some(900) && report["save"]["writes_paused"] == false, "{report}");
        assert!(report["handover"]["took_ms"].as_u64() < Some(1_000), "{report}");
        assert!(is_primary(&bed, 3) && !is_primary(&bed, 0));

        let again = drained(&bed, 0, &[]);
        assert!(again["handover"]["heir"].is_null() && again["save"]["outcome"] == "nothing new", "{again}");
        assert_eq!(info(&bed, 0, "rdb_saves"), "1");

        let syncs = |kind| info(&bed, 3, kind).parse::<u32>().unwrap();
        let (full, partial) = (syncs("sync_full"), syncs("sync_partial_ok"));
        assert_eq!(write(&bed, "b", 300), 300);
        bed.pod(0).stop().unwrap();
        assert_eq!(write(&bed, "c", 300), 300);
        bed.pod(0).start().unwrap();
        follows(&bed, 0);
        assert_eq!((syncs("sync_full"), syncs("sync_partial_ok")), (full, partial + 1), "{}", valkey.version);

        let replica = drained(&bed, 0, &[]);
        assert!(replica["handover"]["attempts"] == 0 && replica["save"]["outcome"] == "saved", "{replica}");
        bed.pod(0).restart_same_address().unwrap();
        assert_eq!(keys(&bed), 3_600);
    });
}

#[test]
fn both_members_of_a_shard_leave_together_and_nothing_is_lost() {
    // By turns one or the other begins.
    each([[0, 7, 40, 150], [2, 12, 80, 1_500]], |distances| {
        let bed = cluster(&Valkey::newest(), 1, &[]);
        let mut written = 0;
        for (round, apart) in distances.into_iter().enumerate() {
            written += write(&bed, &format!("round{round}-"), 500);
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for ended in drain_together(&bed, &order, apart) {
                ended.expect(0, &["drained: {"]);
                assert!(ended.took < Duration::from_secs(10), "{ended}");
                let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
                assert!(report["handover"]["attempts"].as_u64() <= Some(1), "{ended}");
            }
            for pod in order {
                bed.pod(pod).stop().unwrap();
            }
            bed.pods().iter().try_for_each(testbed::Pod::spawn).unwrap();
            bed.pods().iter().try_for_each(testbed::Pod::wait_ready).unwrap();
            assert_eq!(keys(&bed), written, "round {round}");
        }
    });
}

#[test]
fn all_leave_at_once_and_nothing_is_lost() {
    each([Valkey::all().remove(0), Valkey::newest()], |valkey| {
        let bed = cluster(&valkey, 3, &[]);
        let written = write(&bed, "key", 3_000);
        for ended in drain_together(&bed, &[0, 1, 2, 3, 4, 5], 5) {
            ended.expect(0, &[]);
            assert!(ended.took < Duration::from_secs(15), "{ended}");
        }
        bed.pods().iter().for_each(|pod| assert!(pod.stop().unwrap().success()));
        bed.pods().iter().try_for_each(testbed::Pod::spawn).unwrap();
        bed.pods().iter().try_for_each(testbed::Pod::wait_ready).unwrap();
        assert_eq!(keys(&bed), written, "{}", valkey.version);
    });
}

#[test]
fn a_replica_in_its_first_full_sync_is_waited_for() {
    let bed = cluster(&Valkey::newest(), 1, &[("repl-diskless-sync-delay", "3")]);
    let written = write(&bed, "key", 1_000);
    // Without an RDB it needs a whole copy, which the primary begins three seconds later.
    bed.pod(1).stop().unwrap();
    fs::remove_file(bed.pod(1).dir().join("dump.rdb")).unwrap();
    bed.pod(1).start().unwrap();
    drain(&bed, 0, &[]).expect(0, &["waiting for a replica that can take over", "is told to take over"]);
    bed.pod(0).restart_same_address().unwrap();
    assert_eq!(keys(&bed), written);
}

#[test]
fn a_slot_that_a_client_moves_is_waited_for_and_then_handed_over_as_it_is() {
    let bed = cluster(&Valkey::all().remove(0), 2, &[]);
    let target: String = ask(&bed, 1, &["CLUSTER", "MYID"]).unwrap();
    ask::<()>(&bed, 0, &["CLUSTER", "SETSLOT", "5", "MIGRATING", &target]).unwrap();
    let ended = drain(&bed, 0, &[]);
    ended.expect(0, &["slots that are on their way", "told to take over"]);
    assert!(is_primary(&bed, 2) && ended.took > Duration::from_secs(4), "{ended}");
}

#[test]
fn an_atomic_slot_migration_is_cancelled_where_it_would_take_too_long() {
    let valkey = Valkey::newest();
    if valkey.version.starts_with('8') {
        return;
    }
    let bed = cluster(&valkey, 2, &[]);
    let written = write(&bed, "{06S}", 3_000);
    let target: String = ask(&bed, 1, &["CLUSTER", "MYID"]).unwrap();
    ask::<()>(&bed, 0, &["CONFIG", "SET", "rdb-key-save-delay", "10000"]).unwrap();
    ask::<()>(&bed, 0, &["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", "100", "NODE", &target]).unwrap();
    let mut run = command(&bed, 0, &["--save", "never"]);
    let ended = Ended::of(&mut run, crate::tools::LIMIT).unwrap();
    ended.expect(0, &["slots that are on their way", "told to cancel slot migrations", "told to take over"]);
    assert!(is_primary(&bed, 2));
    assert_eq!(keys(&bed), written);
}

#[test]
fn a_drain_killed_at_any_moment_is_completed_by_the_next() {
    let bed = cluster(&Valkey::newest(), 1, &[]);
    let written = write(&bed, "key", 1_000);
    for moment in (0..12).map(|step| 4 + step * 6) {
        let mut run = spawn(&bed, 0);
        pass(moment);
        run.kill().unwrap();
        run.wait().unwrap();
    }
    drained(&bed, 0, &[]);
    assert!(is_primary(&bed, 1));
    bed.pod(0).restart_same_address().unwrap();
    assert_eq!(keys(&bed), written);
}

#[test]
fn of_two_drains_of_one_node_the_second_waits_and_finds_nothing_to_do() {
    let bed = cluster(&Valkey::newest(), 1, &[("rdb-key-save-delay", "300")]);
    write(&bed, "key", 3_000);
    let ended = drain_together(&bed, &[0, 0], 300);
    ended.iter().for_each(|ended| ended.expect(0, &[]));
    ended[1].expect(0, &["waiting for another drain of this node to end"]);
    assert!(ended[1].stdout.contains("nothing new"), "{}", ended[1]);
    assert_eq!(info(&bed, 0, "rdb_saves"), "1");
}
