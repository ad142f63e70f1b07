//! Probes over HTTP, over the life of a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use testbed::{Ended, Fault, Testbed, Valkey, http_get};

use crate::tools::{LIMIT, ask, each, populate, standalone, stopped, supervised, wait_logged};

const PORT: u16 = 8080;
const PATHS: [(&str, &str); 3] = [("/startupz", "startup"), ("/livez", "liveness"), ("/readyz", "readiness")];

/// The status and the reason; none where nobody listens.
fn get(bed: &Testbed, path: &str) -> anyhow::Result<(u16, String)> {
    let (status, body) = http_get((bed.pod(0).addr(), PORT).into(), path)?;
    let body: Value = serde_json::from_str(&body)?;
    Ok((status, body["reason"].as_str().unwrap_or_default().to_owned()))
}

#[track_caller]
fn expect(bed: &Testbed, codes: [u16; 3], unready: &str) {
    for ((path, _), code) in PATHS.into_iter().zip(codes) {
        let (status, reason) = get(bed, path).unwrap();
        assert_eq!(status, code, "{path}: {reason}");
        assert!(path != "/readyz" || reason.contains(unready), "{path}: {reason}");
    }
}

/// What the commands say is what HTTP says.
#[track_caller]
fn commands_agree(bed: &Testbed, mode: &str) {
    for (path, kind) in PATHS {
        let (status, reason) = get(bed, path).unwrap();
        let args = ["probe", kind, "--mode", mode, "--timeout", "20s"];
        let ended = Ended::of(&mut bed.valkeeper_in(0, &args), LIMIT).unwrap();
        assert_eq!(ended.code == Some(0), status == 200, "{path}: {reason}, {ended}");
    }
}

fn listen(bed: &Testbed, args: &[&str]) {
    let listen = format!("{}:{PORT}", bed.pod(0).addr());
    bed.pod(0).set_run_args(&[args, &["--listen", &listen]].concat());
}

#[test]
fn a_member_is_ready_from_its_first_ok_until_it_drains() {
    each(Valkey::all(), |valkey| {
        let bed = supervised(&valkey, &[]).start_servers(false).build().unwrap();
        listen(&bed, &["--handover-timeout", "50s", "--grace-period", "120s"]);
        // A new node waits for its first look at its peers.
        bed.dns().fault_all(Fault::Silent);
        bed.pod(0).spawn().unwrap();
        bed.wait_for("probes to be answered", LIMIT, || get(&bed, "/livez").map(Some)).unwrap();
        expect(&bed, [503, 200, 503], "the server is not started yet");
        bed.dns().heal_all();
        bed.pod(0).wait_ready().unwrap();
        bed.wait_for("the server to have started", LIMIT, || Ok((get(&bed, "/startupz")?.0 == 200).then_some(())))
            .unwrap();
        expect(&bed, [200, 200, 503], "the node is blank");
        commands_agree(&bed, "cluster");

        bed.form(1, 0).unwrap();
        bed.wait_for("the pod to be ready", LIMIT, || Ok((get(&bed, "/readyz")?.0 == 200).then_some(()))).unwrap();
        expect(&bed, [200, 200, 200], "");
        commands_agree(&bed, "cluster");

        testbed::fill(&bed, 0, 1_500, 10).unwrap();
        ask::<()>(&bed, 0, &["CONFIG", "SET", "rdb-key-save-delay", "1000"]);
        let started = std::time::Instant::now();
        bed.pod(0).terminate().unwrap();
        wait_logged(&bed, 0, "saving: ", LIMIT);
        expect(&bed, [200, 200, 503], "draining");
        commands_agree(&bed, "cluster");
        stopped(&bed, 0, started).expect(0, &["drained: {"]);
        assert!(get(&bed, "/livez").is_err(), "nobody is left to answer");
    });
}

/// The samples, by name and labels.
fn metrics(bed: &Testbed) -> anyhow::Result<BTreeMap<String, f64>> {
    let (status, text) = http_get((bed.pod(0).addr(), PORT).into(), "/metrics")?;
    anyhow::ensure!(status == 200, "{status}: {text}");
    let (mut samples, mut described) = (BTreeMap::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# ") {
            described.insert(about.split(' ').take(2).map(str::to_owned).collect::<Vec<_>>());
            continue;
        }
        let (name, value) = line.rsplit_once(' ').context("a value")?;
        let family = name.split('{').next().unwrap_or_default();
        for kind in ["HELP", "TYPE"] {
            anyhow::ensure!(described.contains(&vec![kind.to_owned(), family.to_owned()]), "no {kind} of {name}");
        }
        anyhow::ensure!(family.starts_with("valkeeper_"), "{name}");
        anyhow::ensure!(samples.insert(name.to_owned(), value.parse()?).is_none(), "{name} is there twice");
    }
    Ok(samples)
}

#[test]
fn metrics_tell_what_is_known_of_the_server_and_of_its_cluster() {
    each(Valkey::all(), |valkey| {
        let bed = supervised(&valkey, &[]).pods(2).start_servers(false).build().unwrap();
        listen(&bed, &["--shards", "1", "--replicas", "1", "--grace-period", "60s"]);
        bed.pod(1).set_run_args(&["--shards", "1", "--replicas", "1"]);
        bed.pods().iter().for_each(|pod| pod.start().unwrap());
        let wait = |what: &str, is: &dyn Fn(&BTreeMap<String, f64>) -> bool| {
            bed.wait_for(what, LIMIT, || metrics(&bed).map(|seen| is(&seen).then_some(seen))).unwrap()
        };
        wait("the missing cluster to be told of", &|seen| {
            seen.get("valkeeper_reconciliation_state{state=\"unformed\"}") == Some(&1.0)
        });
        bed.form(1, 1).unwrap();
        testbed::fill(&bed, 0, 1_500, 10).unwrap();
        let seen = wait("the cluster to be told of", &|seen| {
            seen.get("valkeeper_reconciliation_state{state=\"converged\"}") == Some(&1.0)
                && seen.get("valkeeper_server_keys") == Some(&1_500.0)
        });
        for (name, value) in [
            ("valkeeper_server_up", 1.0),
            ("valkeeper_server_state{state=\"running\"}", 1.0),
            ("valkeeper_server_state{state=\"draining\"}", 0.0),
            ("valkeeper_cluster_ok", 1.0),
            ("valkeeper_cluster_nodes", 2.0),
            ("valkeeper_reconciliation_state{state=\"refused\"}", 0.0),
            ("valkeeper_reconciliation_refusals_total", 0.0),
            ("valkeeper_takeovers_asked_total", 0.0),
            ("valkeeper_save_last_ok", 1.0),
            ("valkeeper_probes_total{probe=\"liveness\",answer=\"pass\"}", 0.0),
        ] {
            assert_eq!(seen.get(name), Some(&value), "{name} in {seen:#?}");
        }
        let primary = ask::<Vec<testbed::redis::Value>>(&bed, 0, &["ROLE"]).len() == 3;
        let role = format!("valkeeper_server_role{{role=\"{}\"}}", if primary { "primary" } else { "replica" });
        assert_eq!(seen.get(&role), Some(&1.0), "{seen:#?}");
        assert_eq!(seen.contains_key("valkeeper_replication_link_up"), !primary, "{seen:#?}");
        let slots = if primary { 16_384.0 } else { 0.0 };
        assert_eq!(seen.get("valkeeper_cluster_slots_owned"), Some(&slots), "{seen:#?}");
        assert!(
            seen["valkeeper_reconciliation_rounds_total"] >= 1.0 && seen["valkeeper_replication_offset_bytes"] > 0.0
        );
        get(&bed, "/livez").unwrap();
        assert_eq!(metrics(&bed).unwrap()["valkeeper_probes_total{probe=\"liveness\",answer=\"pass\"}"], 1.0);

        bed.pod(0).pause().unwrap();
        let seen = wait("the silence to be told of", &|seen| seen["valkeeper_server_up"] == 0.0);
        assert!(
            !seen.contains_key("valkeeper_server_keys"),
            "nothing is told of a server that does not answer: {seen:#?}"
        );
        bed.pod(0).resume().unwrap();
        wait("the server to be up again", &|seen| seen["valkeeper_server_up"] == 1.0);
        bed.pod(0).restart_same_address().unwrap();
        let seen = wait("the server to be up again", &|seen| seen["valkeeper_server_up"] == 1.0);
        assert_eq!(seen.get("valkeeper_last_drain_clean"), Some(&1.0), "{seen:#?}");
    });
}

#[test]
fn a_standalone_server_is_ready_as_soon_as_it_has_its_data() {
    let bed = standalone(&Valkey::newest(), &[]).start_servers(false).build().unwrap();
    listen(&bed, &["--mode", "standalone"]);
    bed.pod(0).start().unwrap();
    bed.wait_for("the pod to be ready", LIMIT, || Ok((get(&bed, "/readyz")?.0 == 200).then_some(()))).unwrap();
    populate(&bed, 0, 10, "key");
    expect(&bed, [200, 200, 200], "");
    commands_agree(&bed, "standalone");
    bed.pod(0).pause().unwrap();
    bed.wait_for("the server's silence to be noticed", LIMIT, || Ok((get(&bed, "/livez")?.0 == 503).then_some(())))
        .unwrap();
    bed.pod(0).resume().unwrap();
    bed.wait_for("the server to live", LIMIT, || Ok((get(&bed, "/livez")?.0 == 200).then_some(()))).unwrap();
}

#[test]
fn an_address_that_is_taken_is_told_of_before_the_server_starts() {
    let bed = standalone(&Valkey::newest(), &[]).start_servers(false).build().unwrap();
    listen(&bed, &["--mode", "standalone"]);
    let taken = TcpListener::bind((bed.pod(0).addr(), PORT)).unwrap();
    bed.pod(0).spawn().unwrap();
    let status = bed.pod(0).wait_end(Duration::from_secs(20)).unwrap();
    let log = bed.pod(0).run_log();
    assert_eq!(status.code(), Some(71), "{log}");
    assert!(log.contains("cannot listen on") && log.contains("--listen"), "{log}");
    assert!(!log.contains("starts"), "{log}");
    drop(taken);
}
