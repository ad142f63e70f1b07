//! A server that nobody can take over from: what it was told is on disk, or we say that it is not.

use std::fs;
use std::time::Duration;

use testbed::{Ended, Testbed, Valkey, fill};

use crate::tools::{LIMIT, Numbers, ask, each, populate, put, standalone, stop, stopped, supervised, wait_logged};

const MIB: u64 = 1 << 20;

#[track_caller]
fn nothing_is_lost_at_sigterm(bed: &Testbed, keys: u64) {
    let numbers = Numbers::start(bed, 0, "a");
    let stopped = stop(bed, 0);
    stopped.expect(0, &[r#"drained: {"outcome":"clean""#, r#""writes_paused":true"#]);
    let (acknowledged, lost) = numbers.acknowledged();
    assert!(acknowledged >= 1_000);
    bed.pod(0).start().unwrap();
    assert_eq!(lost(bed), 0, "of {acknowledged}: {}", stopped.log);
    let kept: u64 = bed.keys(0).unwrap();
    assert!(kept >= keys + acknowledged, "{kept} of {keys} and {acknowledged} keys");
    println!("{}: {kept} keys in {:.1?}", bed.valkey().version, stopped.took);
}

#[test]
fn sigterm_to_a_standalone_server_that_never_saves_loses_no_acknowledged_write() {
    // One after the other: each takes what processors and memory there are.
    for valkey in Valkey::all() {
        let bed = standalone(&valkey, &["--grace-period", "120s"]).build().unwrap();
        populate(&bed, 0, 4_000_000, "key");
        nothing_is_lost_at_sigterm(&bed, 4_000_000);
    }
}

#[test]
fn sigterm_to_a_primary_without_replicas_loses_no_acknowledged_write() {
    each(Valkey::all(), |valkey| {
        let bed = supervised(&valkey, &["--grace-period", "60s"]).build().unwrap();
        bed.form(1, 0).unwrap();
        fill(&bed, 0, 100_000, 100).unwrap();
        nothing_is_lost_at_sigterm(&bed, 100_000);
    });
}

/// A server with an RDB of its first thousand keys.
fn saved(valkey: &Valkey, grace: &str, disk: u64) -> (Testbed, Vec<u8>) {
    let bed = standalone(valkey, &["--grace-period", grace]).config("rdbcompression", "no").start_servers(false);
    let bed = bed.build().unwrap();
    bed.pod(0).limit_disk(disk).unwrap();
    bed.pod(0).start().unwrap();
    populate(&bed, 0, 1_000, "old");
    ask::<()>(&bed, 0, &["SAVE"]);
    let rdb = rdb(&bed);
    (bed, rdb)
}

fn rdb(bed: &Testbed) -> Vec<u8> {
    fs::read(bed.pod(0).dir().join("dump.rdb")).unwrap()
}

#[test]
fn a_full_disk_is_told_of_and_the_last_rdb_stays_as_it_was() {
    each(Valkey::all(), |valkey| {
        let (bed, old) = saved(&valkey, "8s", 4 * MIB);
        put(&bed, 0, 50_000, "new");
        let stopped = stop(&bed, 0);
        stopped.expect(
            75,
            &[
                "the save failed",
                "is the disk full",
                "50000 writes since the last complete save, whose file stays, are not on disk",
            ],
        );
        assert!(rdb(&bed) == old, "{}", stopped.log);
        bed.pod(0).start().unwrap();
        assert_eq!(bed.keys(0).unwrap(), 1_000);
    });
}

#[test]
fn a_grace_period_that_is_too_short_is_used_up_and_told_of_in_time() {
    const GRACE: Duration = Duration::from_secs(6);
    each(Valkey::all(), |valkey| {
        let (bed, old) = saved(&valkey, "6s", 100 * MIB);
        put(&bed, 0, 60_000, "new");
        // For each of the keys, in microseconds. How far it is is told by the thousand.
        ask::<()>(&bed, 0, &["CONFIG", "SET", "rdb-key-save-delay", "300"]);
        let started = std::time::Instant::now();
        bed.pod(0).terminate().unwrap();
        wait_logged(&bed, 0, "of the grace period are left: it will not be complete", GRACE - Duration::from_secs(2));
        let stopped = stopped(&bed, 0, started);
        stopped.expect(
            75,
            &["60000 writes since the last complete save, whose file stays, are not on disk", "--grace-period"],
        );
        assert!(stopped.took >= GRACE - Duration::from_millis(1_500), "it was stopped after {:?}", stopped.took);
        assert!(stopped.took <= GRACE + Duration::from_secs(1), "it took {:?}", stopped.took);
        assert!(rdb(&bed) == old, "{}", stopped.log);
    });
}

#[test]
fn a_grace_period_that_nothing_fits_in_is_refused_before_the_server_starts() {
    let bed = standalone(&Valkey::newest(), &[]).start_servers(false).build().unwrap();
    let server = bed.valkey().server.display().to_string();
    let run = |args: &[&str]| {
        let args = [&["run"], args, &["--", &server, "--dir", bed.dir().to_str().unwrap()]].concat();
        Ended::of(&mut bed.valkeeper_in(0, &args), LIMIT).unwrap()
    };
    run(&["--grace-period", "4s"]).expect(64, &["a grace period of 4.0 s is too short", "5 s at least"]);
    run(&["--grace-period", "10s", "--delay", "8s"]).expect(64, &["13 s at least, with the 8.0 s of --delay"]);
}
