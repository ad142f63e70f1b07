//! Servers with an append-only file: what it holds is not saved twice, and a restart stays cheap.

use std::fs;

use testbed::{Testbed, Valkey, fill};

use crate::tools::{
    LIMIT, Numbers, ask, each, info, populate, setting, standalone, stop, stopped, supervised, wait_logged,
};

/// What `run` logs when it has started a server from its RDB.
const FROM_RDB: &str = "the server begins its append-only file";

fn wait_complete(bed: &Testbed, pod: usize) {
    bed.wait_for("the append-only file", LIMIT, || {
        let state = ["aof_enabled", "aof_rewrite_in_progress", "aof_last_bgrewrite_status"];
        let state = state.map(|field| info(bed, pod, field));
        anyhow::ensure!(state == ["1", "0", "ok"], "{state:?}");
        Ok(Some(()))
    })
    .unwrap();
}

#[test]
fn a_server_with_an_append_only_file_loses_nothing_and_writes_no_rdb() {
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &[]).config("appendonly", "yes").config("appendfsync", "no").build().unwrap();
        let numbers = Numbers::start(&bed, 0, "a");
        stop(&bed, 0).expect(0, &[r#""outcome":"append-only file""#]);
        assert!(!bed.pod(0).dir().join("dump.rdb").exists());
        let (acknowledged, lost) = numbers.acknowledged();
        bed.pod(0).start().unwrap();
        assert_eq!(lost(&bed), 0, "of {acknowledged}");
    });
}

#[test]
fn an_append_only_file_is_made_from_an_rdb_however_often_that_is_cut_off() {
    const KEYS: u64 = 3_000;
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &[]).config("appendonly", "yes").config("rdb-key-save-delay", "500");
        let bed = bed.build().unwrap();
        populate(&bed, 0, KEYS, "key");
        ask::<()>(&bed, 0, &["CONFIG", "SET", "appendonly", "no", "rdb-key-save-delay", "0"]);
        ask::<()>(&bed, 0, &["SAVE"]);
        bed.pod(0).kill().unwrap();
        fs::remove_dir_all(bed.pod(0).dir().join("appendonlydir")).unwrap();

        bed.pod(0).spawn().unwrap();
        stopped(&bed, 0, std::time::Instant::now()).expect(76, &["--aof-from-rdb"]);

        bed.pod(0).set_run_args(&["--mode", "standalone", "--aof-from-rdb"]);
        bed.pod(0).start().unwrap();
        bed.wait_for("the conversion to run", LIMIT, || {
            Ok((info(&bed, 0, "aof_rewrite_in_progress") == "1").then_some(()))
        })
        .unwrap();
        bed.pod(0).kill().unwrap();

        bed.pod(0).start().unwrap();
        assert_eq!(bed.keys(0).unwrap(), KEYS);
        wait_complete(&bed, 0);
        assert_eq!(setting(&bed, 0, "appendonly"), "yes");
        ask::<()>(&bed, 0, &["SET", "one", "more"]);
        wait_logged(&bed, 0, "the append-only file is complete", LIMIT);
        stop(&bed, 0).expect(0, &[FROM_RDB]);

        bed.pod(0).set_run_args(&["--mode", "standalone"]);
        bed.pod(0).start().unwrap();
        assert_eq!(bed.keys(0).unwrap(), KEYS + 1);
        assert!(!bed.pod(0).run_log().contains(FROM_RDB));
    });
}

/// How often the pod has sent whole copies, and parts.
fn syncs(bed: &Testbed, pod: usize) -> (u64, u64) {
    (info(bed, pod, "sync_full").parse().unwrap(), info(bed, pod, "sync_partial_ok").parse().unwrap())
}

/// Pod 0 copied by pod 1, both with an append-only file.
fn shard(valkey: &Valkey) -> Testbed {
    let bed = supervised(valkey, &["--aof-partial-resync"])
        .pods(2)
        .config("appendonly", "yes")
        .config("repl-diskless-sync-delay", "0")
        .build()
        .unwrap();
    bed.form(1, 1).unwrap();
    fill(&bed, 0, 5_000, 100).unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    bed
}

#[test]
fn a_planned_restart_with_an_append_only_file_needs_only_what_was_missed() {
    each(Valkey::all(), |valkey| {
        let bed = shard(&valkey);
        assert_eq!(bed.primaries().unwrap(), [0]);
        // First the replica, then the primary, which the other takes over from.
        for (restarted, other) in [(1, 0), (0, 1)] {
            let before = syncs(&bed, other);
            stop(&bed, restarted).expect(0, &[r#""outcome":"saved""#]);
            fill(&bed, other, 100, 100).unwrap();
            bed.pod(restarted).start().unwrap();
            bed.wait_in_sync(LIMIT).unwrap();
            wait_complete(&bed, restarted);
            let after = syncs(&bed, other);
            let log = bed.pod(restarted).run_log();
            assert_eq!(after.0, before.0, "whole copies, {}: {log}", valkey.version);
            assert!(after.1 > before.1, "parts, {}: {before:?} {after:?}: {log}", valkey.version);
            assert!(log.contains(FROM_RDB), "{log}");
            assert_eq!(bed.keys(restarted).unwrap(), bed.keys(other).unwrap());
        }
        assert_eq!(bed.primaries().unwrap(), [1]);

        // The RDB of a drain serves once: it is old when the node dies later.
        bed.pod(0).kill().unwrap();
        bed.pod(0).start().unwrap();
        bed.wait_in_sync(LIMIT).unwrap();
        assert!(!bed.pod(0).run_log().contains(FROM_RDB), "{}", bed.pod(0).run_log());
    });
}

#[test]
fn without_a_primary_to_send_the_rest_a_replica_starts_from_its_append_only_file() {
    each(Valkey::all(), |valkey| {
        let bed = shard(&valkey);
        stop(&bed, 1).expect(0, &[r#""outcome":"saved""#]);
        bed.pod(0).kill().unwrap();
        bed.pod(1).start().unwrap();
        assert_eq!(setting(&bed, 1, "appendonly"), "yes");
        assert_eq!(bed.keys(1).unwrap(), 5_000);
        assert!(!bed.pod(1).run_log().contains(FROM_RDB), "{}", bed.pod(1).run_log());
    });
}
