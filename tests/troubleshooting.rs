//! What docs/troubleshooting.md says of clients' errors and of a cluster in need, tried: the symptom, what is shown, and
//! that what it says to do ends it. What keeps pods from getting ready, and what `run` ends with, are tried in `discovery`,
//! `refusals`, `start` and `process`; restarts in `rolling` and `crash`.

use std::fs;
use std::time::Duration;

use testbed::redis::{Connection, RedisError, cmd};
use testbed::{Ended, Testbed, Valkey};

const LIMIT: Duration = Duration::from_secs(60);

fn pods(count: u8) -> testbed::Builder {
    let small = Testbed::builder(&Valkey::newest()).pods(count).binary(env!("CARGO_BIN_EXE_valkeeper"));
    small.config("repl-diskless-sync-delay", "0").config("cluster-node-timeout", "2000")
}

fn formed() -> Testbed {
    let bed = pods(6).supervised(true).run_args(&["--shards", "3", "--replicas", "1"]).build().unwrap();
    bed.form(3, 1).unwrap();
    wait_ok(&bed);
    bed
}

fn run(bed: &Testbed, args: &[&str]) -> Ended {
    Ended::of(&mut bed.valkeeper(args), LIMIT).unwrap()
}

fn status(bed: &Testbed) -> Ended {
    run(bed, &["status", "--shards", "3", "--replicas", "1"])
}

fn wait_ok(bed: &Testbed) {
    bed.wait_for("status to say ok", LIMIT, || Ok((status(bed).code == Some(0)).then_some(()))).unwrap();
}

/// Waits until `status` says all of this.
fn wait_said(bed: &Testbed, texts: &[&str]) {
    let says = || {
        let status = status(bed);
        anyhow::ensure!(texts.iter().all(|text| status.stdout.contains(text)), "{status}");
        Ok(Some(()))
    };
    bed.wait_for("status to say it", LIMIT, says).unwrap();
}

fn set(connection: &mut Connection, key: &str) -> Result<(), RedisError> {
    cmd("SET").arg(key).arg("x".repeat(1000)).exec(connection)
}

/// The word that an error begins with.
fn word(error: &RedisError) -> &str {
    error.code().unwrap_or_default()
}

/// A key of pod 0.
const OWN: &str = "{06S}";

#[test]
fn clusterdown_ends_when_the_primary_comes_back_or_its_replica_is_told_to_take_over() {
    let bed = formed();
    let mut client = bed.connection(0).unwrap();
    let lose_the_shard = |client: &mut Connection| {
        for pod in [1, 4] {
            bed.pod(pod).kill().unwrap();
        }
        bed.wait_for("CLUSTERDOWN", LIMIT, || {
            Ok(set(client, OWN).is_err_and(|error| word(&error) == "CLUSTERDOWN").then_some(()))
        })
        .unwrap();
        wait_said(&bed, &["5462", "valkey-1", "valkey-4"]);
    };
    let wait_writes = |client: &mut Connection| {
        bed.wait_for("writes", LIMIT, || Ok(set(client, OWN).is_ok().then_some(()))).unwrap();
    };

    lose_the_shard(&mut client);
    bed.pod(1).start().unwrap();
    wait_writes(&mut client);
    wait_said(&bed, &["shard 1 has no replica"]);
    bed.pod(4).start().unwrap();
    wait_ok(&bed);

    lose_the_shard(&mut client);
    bed.pod(4).start().unwrap();
    cmd("CLUSTER").arg(&["FAILOVER", "TAKEOVER"]).exec(&mut bed.connection(4).unwrap()).unwrap();
    wait_writes(&mut client);
    bed.pod(1).start().unwrap();
    wait_ok(&bed);
    assert!(bed.primaries().unwrap().contains(&4));
}

#[test]
fn a_server_that_takes_no_writes_says_why_by_a_word() {
    let bed = formed();
    let (mut primary, mut replica) = (bed.connection(0).unwrap(), bed.connection(3).unwrap());
    set(&mut primary, OWN).unwrap();
    let configure = |connection: &mut Connection, name: &str, value: &str| {
        cmd("CONFIG").arg("SET").arg(name).arg(value).exec(connection).unwrap();
    };

    configure(&mut primary, "maxmemory", "1");
    let error = set(&mut primary, OWN).unwrap_err();
    assert!(error.to_string().contains("OOM command not allowed") || word(&error) == "OOM", "{error}");
    configure(&mut primary, "maxmemory", "0");
    set(&mut primary, OWN).unwrap();

    // Where the dump would be there is a folder.
    configure(&mut primary, "save", "3600 1");
    let dump = bed.pod(0).dir().join("dump.rdb");
    let _ = fs::remove_file(&dump);
    fs::create_dir(&dump).unwrap();
    cmd("BGSAVE").exec(&mut primary).unwrap();
    bed.wait_for("MISCONF", LIMIT, || {
        Ok(set(&mut primary, OWN).is_err_and(|error| word(&error) == "MISCONF").then_some(()))
    })
    .unwrap();
    wait_said(&bed, &["the last save of valkey-0 has failed"]);
    fs::remove_dir(&dump).unwrap();
    cmd("BGSAVE").exec(&mut primary).unwrap();
    bed.wait_for("writes", LIMIT, || Ok(set(&mut primary, OWN).is_ok().then_some(()))).unwrap();

    assert_eq!(word(&set(&mut replica, OWN).unwrap_err()), "MOVED");
    let error = cmd("FLUSHALL").exec(&mut replica).unwrap_err();
    assert_eq!(word(&error), "READONLY", "{error}");
    wait_ok(&bed);
}

#[test]
fn a_server_that_was_given_another_password_by_hand_is_told_the_former_one_again() {
    const OURS: &str = "of-the-pods";
    let bed = pods(1)
        .config("requirepass", OURS)
        .run_args(&["--shards", "1", "--replicas", "0"])
        .supervised(true)
        .build()
        .unwrap();
    bed.form(1, 0).unwrap();
    let mut admin = bed.connection(0).unwrap();
    let give = |admin: &mut Connection, password: &str| {
        cmd("CONFIG").arg("SET").arg("requirepass").arg(password).exec(admin).unwrap();
    };
    give(&mut admin, "another");
    let status = run(&bed, &["status", "--timeout", "5s"]);
    assert!(status.code != Some(0) && format!("{status}").contains("WRONGPASS"), "{status}");
    give(&mut admin, OURS);
    bed.wait_for("status to say ok", LIMIT, || Ok((run(&bed, &["status"]).code == Some(0)).then_some(()))).unwrap();
}

#[test]
fn a_pod_that_was_told_to_leave_is_not_ready_until_its_next_start() {
    let bed = formed();
    let replica = (0..6).find(|pod| !bed.primaries().unwrap().contains(pod)).unwrap();
    let own = |args: &[&str]| Ended::of(&mut bed.valkeeper_in(replica, args), LIMIT).unwrap();
    own(&["probe", "readiness"]).expect(0, &[]);
    own(&["drain", "--grace-period", "20s"]).expect(0, &[]);
    let probe = own(&["probe", "readiness"]);
    assert!(probe.code != Some(0) && format!("{probe}").contains("the node is leaving"), "{probe}");
    bed.pod(replica).stop().unwrap();
    bed.pod(replica).start().unwrap();
    wait_ok(&bed);
    own(&["probe", "readiness"]).expect(0, &[]);
}
