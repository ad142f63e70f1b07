//! `valkeeper status` and `valkeeper doctor` on real servers: what is shown, and what the exit code says.

use std::time::Duration;

use serde_json::Value;
use testbed::redis::cmd;
use testbed::{Ended, Testbed, Valkey};

const LIMIT: Duration = Duration::from_secs(60);

fn formed(valkey: &Valkey) -> Testbed {
    let bed = Testbed::builder(valkey).pods(6).binary(env!("CARGO_BIN_EXE_valkeeper")).build().unwrap();
    run(&bed, &["bootstrap"]).expect(0, &[]);
    bed
}

fn run(bed: &Testbed, args: &[&str]) -> Ended {
    Ended::of(&mut bed.valkeeper(args), LIMIT).unwrap()
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"))
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().filter_map(|finding| finding["code"].as_str()).collect()
}

#[test]
fn a_healthy_cluster_is_shown_by_shard_and_exits_0() {
    for valkey in Valkey::all() {
        let bed = formed(&valkey);
        bed.wait_for("the replicas to have their first copy", LIMIT, || {
            let status = run(&bed, &["status", "--shards", "3", "--replicas", "1"]);
            Ok((!status.stdout.contains("syncing")).then_some(()))
        })
        .unwrap();
        let table = run(&bed, &["status", "--shards", "3", "--replicas", "1"]);
        table.expect(0, &[]);
        assert!(table.stdout.contains("ok, 16384 of 16384 slots served"), "{table}");
        assert_eq!(table.stdout.matches(" replica ").count(), 3, "{table}");
        assert_eq!(table.stdout.matches(" up ").count(), 3, "{table}");

        let status = run(&bed, &["status", "-o", "json"]);
        status.expect(0, &[]);
        let report = json(&status);
        assert_eq!((report["schema"].as_u64(), report["state"].as_str()), (Some(1), Some("ok")), "{status}");
        assert_eq!(report["cluster"], "valkey-headless.test.svc.cluster.local");
        let nodes = report["nodes"].as_array().unwrap();
        let shown: Vec<_> =
            nodes.iter().map(|node| (node["shard"].as_u64().unwrap(), node["pod"].as_str().unwrap())).collect();
        assert_eq!(
            shown,
            [(0, "valkey-0"), (0, "valkey-3"), (1, "valkey-1"), (1, "valkey-4"), (2, "valkey-2"), (2, "valkey-5")]
        );
        assert_eq!(nodes[0]["slots"], serde_json::json!([[0, 5461]]));
        assert_eq!(nodes[1]["primary"], nodes[0]["id"]);
        assert!(nodes[1]["lag_bytes"].is_u64() && nodes[0]["lag_bytes"].is_null() && nodes[0]["memory_bytes"].is_u64());
        run(&bed, &["doctor", "--shards", "3", "--replicas", "1"]).expect(0, &[]);
    }
}

#[test]
fn a_dead_primary_is_the_first_thing_said_and_exits_1() {
    let bed = formed(&Valkey::newest());
    bed.pod(1).kill().unwrap();
    let status = run(&bed, &["status", "--shards", "3", "--replicas", "1"]);
    status.expect(1, &["the cluster is degraded"]);
    let lines: Vec<_> = status.stdout.lines().collect();
    assert!(lines[0].contains("DEGRADED, 10923 of 16384 slots served"), "{status}");
    assert!(lines[1].starts_with("! valkey-1 (") && lines[1].contains("connection refused"), "{status}");
    assert!(status.stdout.contains("! 5461 slots without a primary that answers: 5462-10922"), "{status}");

    let doctor = run(&bed, &["doctor", "-o", "json"]);
    doctor.expect(1, &[]);
    let report = json(&doctor);
    assert_eq!(report["verdict"], "sick");
    assert!(codes(&report).starts_with(&["silent", "slots"]), "{doctor}");
    assert!(
        report["findings"].as_array().unwrap().iter().all(|finding| !finding["remedy"].as_str().unwrap().is_empty())
    );
}

#[test]
fn one_nodes_address_is_enough_to_see_the_whole_cluster() {
    let bed = formed(&Valkey::newest());
    let addr = bed.pod(4).addr().to_string();
    let status = run(&bed, &["status", "--service", &addr, "-o", "json"]);
    status.expect(0, &[]);
    let report = json(&status);
    assert_eq!(report["nodes"].as_array().unwrap().len(), 6, "{status}");
    assert_eq!(report["cluster"], "valkey-headless.test.svc.cluster.local", "{status}");
    run(&bed, &["bootstrap", "--service", &addr]).expect(64, &["--cluster-id"]);
}

#[test]
fn the_rest_of_the_cluster_is_seen_though_dns_names_only_one() {
    let bed = formed(&Valkey::newest());
    for pod in 1..6 {
        bed.dns().pod_gone(bed.pod(pod).name());
    }
    let report = json(&run(&bed, &["status", "--shards", "3", "--replicas", "1", "-o", "json"]));
    assert_eq!(report["nodes"].as_array().unwrap().len(), 6);
    assert_eq!(report["state"], "ok");
}

#[test]
fn a_shape_that_is_not_met_is_degraded_and_says_by_what() {
    let bed = formed(&Valkey::newest());
    let status = run(&bed, &["status", "--shards", "4", "--replicas", "2"]);
    status.expect(1, &[]);
    assert!(status.stdout.contains("! there are 3 shards, and 4 shards were asked for"), "{status}");
    assert!(status.stdout.contains("! shard 0 has only 1 replica, 2 were asked for"), "{status}");
    run(&bed, &["status", "--shards", "3"]).expect(64, &["--replicas"]);
}

#[test]
fn nobody_there_is_exit_69_and_says_what_dns_said() {
    let bed = Testbed::builder(&Valkey::newest())
        .pods(3)
        .start_servers(false)
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .build()
        .unwrap();
    let status = run(&bed, &["status", "--timeout", "3s"]);
    status.expect(69, &["no member of the cluster answers"]);
    assert!(status.stdout.contains("DNS named nobody that is ours"), "{status}");
}

#[test]
fn output_that_cannot_be_written_is_exit_71() {
    let bed = formed(&Valkey::newest());
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = bed.valkeeper(&["status"]).stdout(full).stderr(std::process::Stdio::piped()).output().unwrap();
    let log = String::from_utf8_lossy(&status.stderr);
    assert_eq!(status.status.code(), Some(71), "{log}");
    assert!(log.contains("cannot write to standard output") && log.contains("No space left"), "{log}");
}

#[test]
fn doctor_explains_a_refusal_and_how_to_end_it() {
    let bed = formed(&Valkey::newest());
    let doctor = run(&bed, &["doctor", "--shards", "2", "--replicas", "2"]);
    doctor.expect(1, &[]);
    assert!(doctor.stdout.contains("1. bootstrap and run refuse to go on: the slots lie on 3 primaries"), "{doctor}");
    assert!(doctor.stdout.contains("what to do: say `--shards 3`"), "{doctor}");
}

#[test]
fn doctor_finds_what_a_killed_run_has_left() {
    let bed = Testbed::builder(&Valkey::newest()).pods(3).binary(env!("CARGO_BIN_EXE_valkeeper")).build().unwrap();
    let set =
        ["SET", "cluster-announce-human-nodename", "valkey-headless.test.svc.cluster.local/valkey-0/15000-0-10-5"];
    cmd("CONFIG").arg(set.as_slice()).query::<()>(&mut bed.connection(0).unwrap()).unwrap();
    let doctor = run(&bed, &["doctor"]);
    doctor.expect(1, &[]);
    assert!(doctor.stdout.contains("valkey-0 still has the settings of a cluster that is being formed"), "{doctor}");
    assert!(doctor.stdout.contains("`valkeeper bootstrap` again"), "{doctor}");
}
