//! The steps of docs/migrating.md: a cluster that another chart has made, over its volumes.

use std::time::{Duration, Instant};

use containers::{Chart, ChartPods, some_writes, writer};
use serde_json::json;
use testbed::{Access, wait_for};

const LIMIT: Duration = Duration::from_secs(90);
const PASSWORD: &str = "password-of-the-old-chart";
const PODS: usize = 6;

/// The values that the guide names for volumes and users of the other chart, with this folder of the volume.
fn chart(folder: &str) -> Chart {
    let user = json!({ "runAsUser": 1001, "runAsGroup": 1001, "fsGroup": 1001 });
    let values = json!({
        "fullnameOverride": "old",
        "clusterInit": { "mode": "none" },
        "updateStrategy": { "type": "OnDelete" },
        "resources": { "limits": { "memory": "128Mi" } },
        "config": { "nodeTimeout": 5000 },
        "auth": { "enabled": true, "password": PASSWORD },
        "podSecurityContext": user,
        "persistence": {
            "volumeName": "valkey-data",
            "mountPath": "/bitnami/valkey/data",
            "subPath": folder,
            "aof": { "enabled": true },
        },
    });
    Chart::render(&values).unwrap()
}

/// Six servers as the other chart starts them, which mounts the volume as it is, and `valkey-cli --cluster create`.
fn made_by_hand() -> ChartPods {
    let pods = ChartPods::before(chart(""), &[], Access::with_password(Some(PASSWORD.to_owned()))).unwrap();
    for ordinal in 0..PODS {
        let script = format!(
            "exec valkey-server --dir /bitnami/valkey/data --cluster-enabled yes \
             --cluster-node-timeout 5000 --appendonly yes --protected-mode no --requirepass {PASSWORD} --primaryauth {PASSWORD}"
        );
        pods.start_foreign(ordinal, ("valkey-data", "/bitnami/valkey/data"), &["-c", &script]).unwrap();
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

fn cli(pods: &ChartPods, ordinal: usize, command: &[&str]) -> String {
    pods.cli(ordinal, &[&["-a", PASSWORD, "--no-auth-warning"], command].concat()).unwrap()
}

fn ids(pods: &ChartPods) -> Vec<String> {
    (0..PODS).map(|ordinal| cli(pods, ordinal, &["CLUSTER", "MYID"])).collect()
}

fn wait_ours(pods: &ChartPods) {
    pods.wait_ready(LIMIT).unwrap();
    wait_for("the cluster to be as it should", LIMIT, || pods.run_to_end("test").map(Some)).unwrap();
}

#[test]
fn it_is_taken_over_pod_by_pod_without_a_failed_write() {
    let pods = made_by_hand();
    let before = ids(&pods);
    let writer = writer(pods.as_cluster()).unwrap();
    for ordinal in 0..PODS {
        let began = Instant::now();
        // A primary hands over first: whoever replicates it is asked to take over.
        if pods.primaries().unwrap().contains(&ordinal) {
            let nodes = cli(&pods, ordinal, &["CLUSTER", "NODES"]);
            let replica = nodes.lines().find(|line| line.contains(&format!("slave {}", before[ordinal]))).unwrap();
            let id = replica.split(' ').next().unwrap();
            let heir = before.iter().position(|other| other == id).unwrap();
            cli(&pods, heir, &["CLUSTER", "FAILOVER"]);
            pods.as_cluster()
                .wait_for("the replica to take over", LIMIT, || {
                    Ok((!pods.primaries()?.contains(&ordinal)).then_some(()))
                })
                .unwrap();
        }
        pods.replace(ordinal).unwrap();
        let pod = &pods.pods()[ordinal];
        pods.as_cluster().wait_for("the pod to be ready", LIMIT, || pods.is_ready(pod).map(Some)).unwrap();
        assert_eq!(cli(&pods, ordinal, &["CLUSTER", "MYID"]), before[ordinal], "another folder");
        println!("{}: {:.1?}", pod.name, began.elapsed());
    }
    wait_ours(&pods);
    let report = writer.stop();
    println!("{report}");
    assert_eq!(report.error_count(), 0, "{report}");
    assert_eq!(report.verify(pods.as_cluster()).unwrap().keys, 0, "{report}");
}

#[test]
fn over_a_wrong_folder_no_cluster_is_formed_beside_the_data_and_over_the_right_one_all_is_there() {
    let mut pods = made_by_hand();
    let before = ids(&pods);
    let report = some_writes(pods.as_cluster()).unwrap();
    let replace_all = |pods: &ChartPods| {
        pods.pods().iter().try_for_each(|pod| pod.ask_docker_to("stop")).unwrap();
        (0..PODS).try_for_each(|ordinal| pods.replace(ordinal)).unwrap();
    };
    pods.upgrade(chart("wrong"));
    replace_all(&pods);
    for pod in pods.pods() {
        pods.as_cluster()
            .wait_for("the pod to say what it waits for", LIMIT, || {
                pods.is_ready(pod).expect_err("a pod is ready");
                Ok(pod.log().contains("no cluster stands here yet").then_some(()))
            })
            .unwrap();
    }
    pods.upgrade(chart(""));
    replace_all(&pods);
    wait_ours(&pods);
    assert_eq!(ids(&pods), before);
    assert_eq!(report.verify(pods.as_cluster()).unwrap().keys, 0, "{report}");
}
