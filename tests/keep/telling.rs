//! What reconciliation refuses and waits for is seen: over HTTP, in the log, and by `status`. It makes no pod unready.

use anyhow::ensure;
use serde_json::Value;
use testbed::redis::cmd;
use testbed::{Ended, Testbed, Valkey, http_get};

use crate::tools::{LIMIT, pods};

const PORT: u16 = 8080;

/// What readiness says in that pod, and how far reconciliation is.
fn readiness(bed: &Testbed, pod: usize) -> anyhow::Result<(u16, Value)> {
    let (status, body) = http_get((bed.pod(pod).addr(), PORT).into(), "/readyz")?;
    Ok((status, serde_json::from_str::<Value>(&body)?["reconciliation"].take()))
}

/// Waits until reconciliation is at that in a pod, and says in which words.
#[track_caller]
fn wait_state(bed: &Testbed, pod: usize, state: &str) -> Value {
    bed.wait_for(&format!("reconciliation to be {state}"), LIMIT, || {
        let (_, reconciliation) = readiness(bed, pod)?;
        ensure!(reconciliation["state"] == state, "{reconciliation}");
        Ok(Some(reconciliation))
    })
    .unwrap()
}

/// That sample of a pod, its name with its labels.
#[track_caller]
fn metric(bed: &Testbed, pod: usize, name: &str) -> u64 {
    let (_, text) = http_get((bed.pod(pod).addr(), PORT).into(), "/metrics").unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn status(bed: &Testbed, shape: [&str; 2]) -> Ended {
    let args = ["status", "-o", "json", "--shards", shape[0], "--replicas", shape[1]];
    Ended::of(&mut bed.valkeeper(&args), LIMIT).unwrap()
}

fn codes(status: &Ended) -> Vec<String> {
    let report: Value = serde_json::from_str(&status.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().clone();
    findings.into_iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_waited_for_and_what_is_refused_is_seen_and_costs_no_pod_its_readiness() {
    Valkey::each(Valkey::all(), assert_told);
}

fn assert_told(valkey: &Valkey) {
    let bed = pods(valkey).supervised(true).start_servers(false).build().unwrap();
    for pod in bed.pods() {
        // One of them was told another shape than the cluster has.
        let shape = if pod.ordinal() == 5 { ["2", "2"] } else { ["3", "1"] };
        let listen = format!("{}:{PORT}", pod.addr());
        pod.set_run_args(&["--listen", &listen, "--shards", shape[0], "--replicas", shape[1]]);
        pod.start().unwrap();
    }
    assert_eq!(wait_state(&bed, 0, "unformed")["remedy"], "`valkeeper bootstrap` forms it");
    bed.form(3, 1).unwrap();

    assert_eq!(wait_state(&bed, 0, "converged")["remedy"], Value::Null);
    assert_eq!(codes(&status(&bed, ["3", "1"])), <[&str; 0]>::default());
    let refused = wait_state(&bed, 5, "refused");
    assert!(refused["reason"].as_str().unwrap().starts_with("refused: the slots lie on 3 primaries"), "{refused}");
    assert!(refused["remedy"].as_str().unwrap().contains("--shards 3"), "{refused}");
    assert_eq!(readiness(&bed, 5).unwrap().0, 200);
    assert_eq!(metric(&bed, 5, "valkeeper_reconciliation_state{state=\"refused\"}"), 1);
    assert!(metric(&bed, 5, "valkeeper_reconciliation_refusals_total") >= 1);
    bed.wait_for("the log to tell", LIMIT, || Ok(bed.pod(5).run_log().contains("What to do: say").then_some(())))
        .unwrap();
    assert!(codes(&status(&bed, ["2", "2"])).contains(&"refused".to_owned()));

    bed.pod(4).kill().unwrap();
    let waiting = wait_state(&bed, 0, "waiting");
    assert!(waiting["reason"].as_str().unwrap().contains("valkey-4"), "{waiting}");
    assert_eq!(readiness(&bed, 0).unwrap().0, 200);
    assert!(codes(&status(&bed, ["3", "1"])).contains(&"waiting".to_owned()));
    bed.pod(4).start().unwrap();
    wait_state(&bed, 0, "converged");
    // A second look at a refusal is not a second line.
    assert_eq!(bed.pod(5).run_log().matches("refused: ").count(), 1, "{}", bed.pod(5).run_log());
    // As a preStop hook does it: the server runs on, and its node is to be left as it is.
    Ended::of(&mut bed.valkeeper_in(0, &["drain"]), LIMIT).unwrap().expect(0, &[]);
    assert_eq!(wait_state(&bed, 0, "paused")["reason"], "this node is marked as leaving");

    // What that node alone can do stays undone, and that is no secret.
    let unmarked = ["SET", "cluster-announce-human-nodename", ""];
    cmd("CONFIG").arg(&unmarked).exec(&mut bed.connection(0).unwrap()).unwrap();
    let other = 1;
    bed.wait_for("the others to tell of it", LIMIT, || {
        let (_, waiting) = readiness(&bed, other)?;
        let told = waiting["reason"].as_str().is_some_and(|reason| reason.contains("waiting for valkey-0 to do"));
        ensure!(told && waiting["state"] == "waiting", "{waiting}");
        Ok(Some(()))
    })
    .unwrap();
    bed.wait_for("the log to tell", LIMIT, || {
        Ok(bed.pod(other).run_log().contains("waiting for valkey-0 to do its part").then_some(()))
    })
    .unwrap();
}
