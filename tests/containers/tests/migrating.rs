//! The steps of docs/migrating.md: a cluster that another chart has made, over its volumes.

use std::time::Duration;

use containers::{Chart, ChartPods, some_writes, writer};
use serde_json::json;
use testbed::{Access, wait_for};

const LIMIT: Duration = Duration::from_secs(90);
const PASSWORD: &str = "password-of-the-old-chart";
const PODS: usize = 6;

/// The values that the guide names for volumes and users of the other chart.
fn chart() -> Chart {
    let user = json!({ "runAsUser": 1001, "runAsGroup": 1001, "fsGroup": 1001 });
    let values = json!({
        "fullnameOverride": "old",
        "resources": { "limits": { "memory": "128Mi" } },
        "config": { "nodeTimeout": 5000 },
        "auth": { "enabled": true, "password": PASSWORD },
        "podSecurityContext": user,
        "persistence": {
            "volumeName": "valkey-data",
            "mountPath": "/bitnami/valkey/data",
            "subPath": "data",
            "aof": { "enabled": true },
        },
    });
    Chart::render(&values).unwrap()
}

/// Six servers as the other chart starts them, and `valkey-cli --cluster create`.
fn made_by_hand() -> ChartPods {
    let pods = ChartPods::before(chart(), &[], Access::with_password(Some(PASSWORD.to_owned()))).unwrap();
    for ordinal in 0..PODS {
        let script = format!(
            "exec valkey-server --dir /bitnami/valkey/data --cluster-enabled yes \
             --cluster-node-timeout 5000 --appendonly yes --protected-mode no --requirepass {PASSWORD} --primaryauth {PASSWORD}"
        );
        pods.start_foreign(ordinal, ("valkey-data", "/bitnami/valkey"), &["-c", &script]).unwrap();
    }
    pods.as_cluster()
        .wait_for("servers", LIMIT, || {
            let answers = |(_, node): (_, _)| pods.as_cluster().access().connect(node).is_ok();
            Ok(pods.as_cluster().nodes().into_iter().all(answers).then_some(()))
        })
        .unwrap();
    let addresses: Vec<_> = pods.as_cluster().nodes().iter().map(|(_, node)| node.to_string()).collect();
    let create = ["-a", PASSWORD, "--no-auth-warning", "--cluster", "create"];
    let shape = ["--cluster-replicas", "1", "--cluster-yes"];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    pods.cli(0, &[&create[..], &addresses, &shape].concat()).unwrap();
    pods.as_cluster().wait_in_sync(LIMIT).unwrap();
    pods
}

fn wait_ours(pods: &ChartPods) {
    pods.wait_ready(LIMIT).unwrap();
    wait_for("the cluster to be as it should", LIMIT, || pods.run_to_end("test").map(Some)).unwrap();
}

#[test]
fn it_is_taken_over_pod_by_pod_without_a_failed_write() {
    let pods = made_by_hand();
    let writer = writer(pods.as_cluster()).unwrap();
    let cli =
        |ordinal, command: &[&str]| pods.cli(ordinal, &[&["-a", PASSWORD, "--no-auth-warning"], command].concat());
    for ordinal in 0..PODS {
        // A primary hands over first: whoever replicates it is asked to take over.
        if pods.primaries().unwrap().contains(&ordinal) {
            let own = cli(ordinal, &["CLUSTER", "MYID"]).unwrap();
            let nodes = cli(ordinal, &["CLUSTER", "NODES"]).unwrap();
            let replica = nodes.lines().find(|line| line.contains(&format!("slave {own}"))).unwrap();
            let address = replica.split(['@', ' ']).nth(1).unwrap().split(':').next().unwrap().to_owned();
            let heir = pods.pods().iter().position(|pod| pod.address().unwrap().to_string() == address).unwrap();
            cli(heir, &["CLUSTER", "FAILOVER"]).unwrap();
            pods.as_cluster()
                .wait_for("the replica to take over", LIMIT, || {
                    Ok((!pods.primaries()?.contains(&ordinal)).then_some(()))
                })
                .unwrap();
            pods.as_cluster().wait_in_sync(LIMIT).unwrap();
        }
        pods.replace(ordinal).unwrap();
        pods.as_cluster().wait_in_sync(LIMIT).unwrap();
    }
    wait_ours(&pods);
    let report = writer.stop();
    println!("{report}");
    assert_eq!(report.error_count(), 0, "{report}");
    assert_eq!(report.verify(pods.as_cluster()).unwrap().keys, 0, "{report}");
}

#[test]
fn it_is_taken_over_while_it_stands_still() {
    let pods = made_by_hand();
    let report = some_writes(pods.as_cluster()).unwrap();
    pods.pods().iter().try_for_each(|pod| pod.ask_docker_to("stop")).unwrap();
    (0..PODS).try_for_each(|ordinal| pods.replace(ordinal)).unwrap();
    wait_ours(&pods);
    assert_eq!(report.verify(pods.as_cluster()).unwrap().keys, 0, "{report}");
}
