//! `valkeeper probe` on real servers: what passes, what fails, why, and how soon.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use testbed::redis::{Value, cmd};
use testbed::{Builder, Ended, Testbed, Valkey};

const LIMIT: Duration = Duration::from_secs(60);
/// The probe's own second, and what a busy machine needs to start a process.
const SOON: Duration = Duration::from_secs(10);
/// For servers that answer: on a busy machine that may take a while.
const PATIENT: &str = "20s";
const KINDS: [&str; 3] = ["startup", "liveness", "readiness"];

fn bed(valkey: &Valkey) -> Builder {
    Testbed::builder(valkey).binary(env!("CARGO_BIN_EXE_valkeeper"))
}

fn alone(valkey: &Valkey) -> Builder {
    bed(valkey).config("cluster-enabled", "no").config("enable-debug-command", "yes")
}

fn probe(bed: &Testbed, pod: usize, args: &[&str]) -> Ended {
    let mut command = bed.valkeeper_in(pod, &[&["probe"], args].concat());
    command.env("VALKEEPER_TIMEOUT", PATIENT);
    if !bed.pod(pod).nodes_conf().exists() {
        command.env("VALKEEPER_MODE", "standalone");
    }
    Ended::of(&mut command, LIMIT).unwrap()
}

/// Asserts how each kind ends; what is printed is one line, and nothing is logged.
#[track_caller]
fn expect(bed: &Testbed, pod: usize, codes: [i32; 3], text: &str) {
    for (kind, code) in KINDS.into_iter().zip(codes) {
        let ended = probe(bed, pod, &[kind]);
        ended.expect(code, &[]);
        assert_eq!((ended.stdout.lines().count(), &*ended.stderr), (1, ""), "{kind}: {ended}");
        assert!(code == 0 || ended.stdout.contains(text), "{kind}: no {text:?} in {ended}");
    }
}

#[track_caller]
fn wait_ready(bed: &Testbed, pod: usize) {
    bed.wait_for("readiness", LIMIT, || {
        let ended = probe(bed, pod, &["readiness"]);
        anyhow::ensure!(ended.code == Some(0), "{ended}");
        Ok(Some(()))
    })
    .unwrap();
}

fn tell(bed: &Testbed, pod: usize, words: &[&str]) {
    cmd(words[0]).arg(&words[1..]).query::<Value>(&mut bed.connection(pod).unwrap()).unwrap();
}

/// Sends a command and does not wait for the answer, which comes when the connection is long forgotten.
fn send(bed: &Testbed, pod: usize, words: &[&str]) -> testbed::redis::Connection {
    let mut connection = bed.connection(pod).unwrap();
    connection.send_packed_command(&cmd(words[0]).arg(&words[1..]).get_packed_command()).unwrap();
    connection
}

#[test]
fn a_server_that_loads_has_started_and_lives_and_is_not_ready() {
    for valkey in Valkey::all() {
        let slow = [("key-load-delay", "10000"), ("loading-process-events-interval-bytes", "1024")];
        let builder = slow.iter().fold(alone(&valkey), |builder, (name, value)| builder.config(name, value));
        let bed = builder.config("rdbcompression", "no").build().unwrap();
        tell(&bed, 0, &["DEBUG", "POPULATE", "800", "key", "200"]);
        tell(&bed, 0, &["SAVE"]);
        bed.pod(0).stop().unwrap();
        bed.pod(0).spawn().unwrap();
        bed.wait_for("the server to be loading", LIMIT, || {
            let ended = probe(&bed, 0, &["startup"]);
            anyhow::ensure!(ended.stdout.contains("loading its data:") && ended.stdout.contains(" %, "), "{ended}");
            Ok(Some(()))
        })
        .unwrap();
        expect(&bed, 0, [0, 0, 1], "is loading its data:");
        bed.pod(0).wait_ready().unwrap();
        expect(&bed, 0, [0, 0, 0], "");
    }
}

#[test]
fn a_busy_server_lives_and_one_that_is_busy_for_less_than_the_timeout_passes_everything() {
    for valkey in Valkey::all() {
        let bed = alone(&valkey).config("busy-reply-threshold", "100").build().unwrap();
        let sleeping = send(&bed, 0, &["DEBUG", "SLEEP", "2.5"]);
        for kind in KINDS {
            probe(&bed, 0, &[kind]).expect(0, &[]);
        }
        drop(sleeping);
        let script = send(&bed, 0, &["EVAL", "while true do end", "0"]);
        bed.wait_for("the server to say BUSY", LIMIT, || {
            let answer = cmd("PING").query::<Value>(&mut bed.connection(0)?);
            Ok(answer.is_err_and(|error| error.code() == Some("BUSY")).then_some(()))
        })
        .unwrap();
        expect(&bed, 0, [0, 0, 1], "BUSY");
        tell(&bed, 0, &["SCRIPT", "KILL"]);
        drop(script);
        wait_ready(&bed, 0);
    }
}

#[test]
fn a_server_that_does_not_let_us_in_lives_and_readiness_names_the_remedy() {
    for valkey in Valkey::all() {
        let bed = alone(&valkey).config("requirepass", "right").build().unwrap();
        expect(&bed, 0, [0, 0, 0], "");
        for password in [None, Some("wrong-one")] {
            for (kind, code) in KINDS.into_iter().zip([0, 0, 1]) {
                let mut command = bed.valkeeper_in(0, &["probe", kind, "--mode", "standalone", "--timeout", PATIENT]);
                command.env_remove("VALKEY_PASSWORD").envs(password.map(|password| ("VALKEY_PASSWORD", password)));
                let ended = Ended::of(&mut command, LIMIT).unwrap();
                ended.expect(code, &[]);
                assert!(
                    code == 0 || ended.stdout.contains("--password-file") && ended.stdout.contains("VALKEY_PASSWORD"),
                    "{ended}"
                );
                assert!(!ended.stdout.contains("wrong-one"), "{ended}");
            }
        }
        probe(&bed, 0, &["liveness", "--password-file", "/nowhere"]).expect(0, &[]);
        probe(&bed, 0, &["readiness", "--password-file", "/nowhere"]).expect(64, &["/nowhere"]);
    }
}

#[test]
fn a_server_that_has_no_room_for_another_client_is_not_killed_for_it() {
    let each = Valkey::all().into_iter().flat_map(|valkey| [false, true].map(|tls| (valkey.clone(), tls)));
    for (valkey, tls) in each {
        let bed = alone(&valkey).config("maxclients", "1").tls(tls).build().unwrap();
        // The place that the bed's own look has had is free a moment later.
        let only_one = bed
            .wait_for("the only place", LIMIT, || {
                let mut connection = bed.connection(0)?;
                Ok(cmd("PING").query::<()>(&mut connection).is_ok().then_some(connection))
            })
            .unwrap();
        for _ in 0..20 {
            probe(&bed, 0, &["liveness"]).expect(0, &[]);
            probe(&bed, 0, &["startup"]).expect(0, &[]);
        }
        probe(&bed, 0, &["readiness"]).expect(1, &[]);
        // Nor is one that hangs taken for one that has no room.
        bed.pod(0).pause().unwrap();
        probe(&bed, 0, &["liveness", "--timeout", "500ms"]).expect(1, &[]);
        bed.pod(0).resume().unwrap();
        drop(only_one);
    }
}

#[test]
fn a_replica_whose_primary_is_dead_lives_and_is_ready_only_if_it_was_before() {
    for valkey in Valkey::all() {
        let bed = alone(&valkey)
            .config("replica-serve-stale-data", "no")
            .config("repl-diskless-sync-delay", "0")
            .pods(3)
            .build()
            .unwrap();
        let follow = |pod| tell(&bed, pod, &["REPLICAOF", &bed.pod(0).addr().to_string(), "6379"]);
        follow(1);
        wait_ready(&bed, 1);
        bed.pod(0).kill().unwrap();
        follow(2);
        for pod in [1, 2] {
            bed.wait_for("MASTERDOWN", LIMIT, || {
                let answer = cmd("GET").arg("x").query::<Value>(&mut bed.connection(pod)?);
                Ok(answer.is_err_and(|error| error.code() == Some("MASTERDOWN")).then_some(()))
            })
            .unwrap();
        }
        expect(&bed, 1, [0, 0, 0], "");
        expect(&bed, 2, [0, 0, 1], "link to its primary is not up");
    }
}

#[test]
fn the_timeout_holds_where_nobody_answers_and_where_nobody_accepts() {
    for valkey in Valkey::all() {
        let bed = alone(&valkey).config("tcp-backlog", "1").build().unwrap();
        let in_time = |text: &str| {
            for kind in KINDS {
                let ended = probe(&bed, 0, &[kind, "--timeout", "1s"]);
                ended.expect(1, &[]);
                assert!(ended.stdout.contains(text) && ended.took < SOON, "{kind}: {ended}");
            }
        };
        bed.pod(0).pause().unwrap();
        let address = SocketAddr::new(bed.pod(0).addr().into(), bed.pod(0).port());
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200));
        in_time("answer");
        let crowd: Vec<_> = std::iter::from_fn(|| connect().ok()).take(50).collect();
        assert!(crowd.len() < 50, "the kernel still accepts");
        in_time("answer");
        drop(crowd);
        bed.pod(0).resume().unwrap();
        wait_ready(&bed, 0);
        bed.pod(0).kill().unwrap();
        in_time("connection refused");
    }
}

#[test]
fn a_node_is_ready_once_it_is_in_step_and_others_cannot_take_it_out_afterwards() {
    for valkey in Valkey::all() {
        let bed = bed(&valkey).pods(3).config("cluster-node-timeout", "1000").build().unwrap();
        expect(&bed, 0, [0, 0, 1], "the node is blank");
        let formed = Ended::of(&mut bed.valkeeper(&["bootstrap", "--replicas", "0"]), LIMIT).unwrap();
        formed.expect(0, &[]);
        wait_ready(&bed, 0);

        tell(&bed, 0, &["CONFIG", "SET", "cluster-replica-no-failover", "yes"]);
        expect(&bed, 0, [0, 0, 1], "is leaving");
        tell(&bed, 0, &["CONFIG", "SET", "cluster-replica-no-failover", "no"]);
        expect(&bed, 0, [0, 0, 0], "");

        bed.pod(1).kill().unwrap();
        bed.wait_for("the loss to be seen", LIMIT, || {
            let failed = |pod| anyhow::Ok(bed.cluster_info(pod)?["cluster_state"] == "fail");
            Ok((failed(0)? && failed(2)?).then_some(()))
        })
        .unwrap();
        expect(&bed, 0, [0, 0, 0], "");
        expect(&bed, 2, [0, 0, 1], "cluster_state:fail");
        let elsewhere = bed.dir().to_str().unwrap();
        probe(&bed, 0, &["readiness", "--data-dir", elsewhere]).expect(1, &[]);

        bed.pod(0).restart_same_address().unwrap();
        expect(&bed, 0, [0, 0, 1], "cluster_state:fail");
        bed.pod(1).start().unwrap();
        wait_ready(&bed, 0);
        let unwritable = probe(&bed, 0, &["readiness", "--data-dir", "/proc", "--log-level", "debug"]);
        unwritable.expect(0, &["probes by command stay strict"]);
    }
}

#[test]
fn a_replica_is_not_ready_before_it_is_in_step_nor_while_it_receives_a_full_copy_again() {
    for valkey in Valkey::all() {
        let bed = alone(&valkey).config("repl-diskless-sync-delay", "1").pods(2).build().unwrap();
        let follow = || tell(&bed, 1, &["REPLICAOF", &bed.pod(0).addr().to_string(), "6379"]);
        follow();
        probe(&bed, 1, &["readiness"]).expect(1, &[]);
        wait_ready(&bed, 1);
        // A copy that takes some seconds, and a history of its own, so that it has to be copied.
        tell(&bed, 0, &["DEBUG", "POPULATE", "600"]);
        tell(&bed, 0, &["CONFIG", "SET", "rdb-key-save-delay", "5000"]);
        tell(&bed, 1, &["REPLICAOF", "NO", "ONE"]);
        tell(&bed, 1, &["SET", "x", "y"]);
        follow();
        bed.wait_for("the copy to be seen", LIMIT, || {
            let ended = probe(&bed, 1, &["readiness"]);
            Ok((ended.code == Some(1) && ended.stdout.contains("full copy")).then_some(()))
        })
        .unwrap();
        wait_ready(&bed, 1);
    }
}
