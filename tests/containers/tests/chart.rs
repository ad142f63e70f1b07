//! The chart's own pods: what it renders is what runs.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use containers::{Chart, ChartPods, Pauses, docker, finished, images, some_writes, writer};
use serde_json::{Value, json};
use testbed::redis::cmd;
use testbed::{Access, Authority, wait_for};

const LIMIT: Duration = Duration::from_secs(90);

/// Small ones.
fn values(more: Value) -> Value {
    let mut values = json!({ "resources": { "limits": { "memory": "128Mi" } }, "config": { "nodeTimeout": 5000 } });
    more.as_object().unwrap().iter().for_each(|(key, value)| values[key] = value.clone());
    values
}

#[test]
fn by_default_they_form_a_cluster_whose_pods_are_restarted_without_a_failed_or_a_late_write() {
    let chart = Chart::render(&values(json!({}))).unwrap();
    let pods = ChartPods::start(chart, &[], Access::default()).unwrap();
    pods.wait_ready(LIMIT).unwrap();
    pods.run_to_end("test").unwrap();
    let writer = writer(pods.as_cluster()).unwrap();
    let mut pauses = Pauses::default();
    // A primary, its heir after it, and one of another shard.
    for pod in [0, 3, 1].map(|ordinal| &pods.pods()[ordinal]) {
        pauses.during(&writer, || {
            pods.stop(pod).unwrap();
            assert_eq!(pod.inspect("{{.State.ExitCode}}").unwrap(), "0", "{}", pod.log());
            pod.ask_docker_to("start").unwrap();
            pods.wait_ready(LIMIT).unwrap();
        });
        pod.is_held_to(128 << 20).unwrap();
    }
    let report = writer.stop();
    println!("{report}");
    assert_eq!(report.error_count(), 0, "{report}");
    assert_eq!(report.verify(pods.as_cluster()).unwrap().keys, 0, "{report}");
    pods.run_to_end("test").unwrap();
    pauses.assert_short();
}

#[test]
fn locked_with_tls_and_users_of_their_own_they_are_formed_by_the_job() {
    const PASSWORD: &str = "a password of the test";
    const CLIENT: &str = "a password of a client";
    let authority = Authority::new("valkeeper test");
    let issued = authority.issue(&["*.prod-valkey-cluster-headless.cache.svc.cluster.local"]);
    // As the guide has it: a user for valkeeper, one for clients, and nobody else.
    let (variable, bare) = (format!("VALKEY_PASSWORD={PASSWORD}"), &*images().valkeeper);
    let own = docker(&["run", "--rm", "--env", &variable, bare, "acl", "--username", "valkeeper"]).unwrap();
    let hash = finished(Command::new("sh").args(["-c", "printf %s \"$0\" | sha256sum", CLIENT])).unwrap();
    let client = format!("user shop on #{} ~* &* +@all -@admin -@dangerous +info +role", &hash[..64]);
    let chart = values(json!({
        "clusterInit": { "mode": "job" },
        "auth": { "enabled": true, "password": PASSWORD, "username": "valkeeper" },
        "config": {
            "nodeTimeout": 5000,
            "extra": format!("user default off\n{own}\n{client}\n"),
        },
        "tls": { "enabled": true, "existingSecret": "certs" },
        "persistence": { "aof": { "enabled": true } },
    }));
    let files = [("ca.crt", authority.certificate()), ("tls.crt", &issued.certificate), ("tls.key", &issued.key)];
    let files: BTreeMap<_, _> = files.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    let access =
        Access::named(("shop".to_owned(), CLIENT.to_owned())).over_tls(authority.certificate(), &issued).unwrap();
    let pods = ChartPods::start(Chart::render(&chart).unwrap(), &[("certs", files)], access).unwrap();
    pods.run_to_end("init").unwrap();
    pods.wait_ready(LIMIT).unwrap();
    pods.run_to_end("test").unwrap();
    // The backup's questions, as the guide asks them.
    let guide = include_str!("../../../charts/valkey-cluster/PRODUCTION.md");
    let ask = guide.split_once("ask='").unwrap().1.split_once('\'').unwrap().0;
    let asked = [
        "exec",
        &pods.pods()[0].container,
        "sh",
        "-c",
        ask,
        "valkey-cli",
        "--user",
        "valkeeper",
        "info",
        "persistence",
    ];
    assert!(docker(&asked).unwrap().contains("rdb_bgsave_in_progress:0"));
    assert!(pods.as_cluster().access().without_tls().connect(pods.as_cluster().nodes()[0].1).is_err());
    let writer = writer(pods.as_cluster()).unwrap();
    let primary = &pods.pods()[pods.primaries().unwrap()[0]];
    pods.stop(primary).unwrap();
    primary.ask_docker_to("start").unwrap();
    pods.wait_ready(LIMIT).unwrap();
    let report = writer.stop();
    assert_eq!(report.error_count(), 0, "{report}");
    assert_eq!(report.verify(pods.as_cluster()).unwrap().keys, 0, "{report}");
}

#[test]
fn a_user_that_the_platform_picks_may_run_them() {
    let chart = Chart::render(&values(json!({ "shards": 1, "replicas": 0, "arbitraryUser": true }))).unwrap();
    let pods = ChartPods::start(chart, &[], Access::default()).unwrap();
    pods.wait_ready(LIMIT).unwrap();
    let pod = &pods.pods()[0];
    let user =
        pod.shell("while read -r name id _; do [ $name = Uid: ] && echo $id; done </proc/1/status || true").unwrap();
    assert_eq!(user, "1000660000");
    pods.stop(pod).unwrap();
    assert_eq!(pod.inspect("{{.State.ExitCode}}").unwrap(), "0", "{}", pod.log());
}

#[test]
fn a_cluster_that_is_made_smaller_gives_its_slots_away_before_pods_go() {
    let larger = Chart::render(&values(json!({ "shards": 4, "replicas": 0 }))).unwrap();
    let mut pods = ChartPods::start(larger, &[], Access::default()).unwrap();
    pods.wait_ready(LIMIT).unwrap();
    let report = some_writes(pods.as_cluster()).unwrap();
    let smaller = values(json!({ "shards": 3, "replicas": 0, "scaleIn": { "from": 4 } }));
    // Before the upgrade, over the pods that are there.
    pods.upgrade(Chart::render(&smaller).unwrap());
    assert!(pods.run_to_end("scale-in").unwrap().contains("can be removed now"));
    pods.shrink().unwrap();
    for ordinal in (0..3).rev() {
        pods.renew(ordinal).unwrap();
        let pod = &pods.pods()[ordinal];
        pods.as_cluster().wait_for("the pod to be ready", LIMIT, || pods.is_ready(pod).map(Some)).unwrap();
    }
    pods.wait_ready(LIMIT).unwrap();
    wait_for("the cluster to be as it should", LIMIT, || pods.run_to_end("test").map(Some)).unwrap();
    assert_eq!(report.verify(pods.as_cluster()).unwrap().keys, 0, "{report}");
}

#[test]
fn a_standalone_server_is_saved_when_it_stops() {
    let password = "a password of the test";
    let locked_by = |password: &str| {
        let chart = values(json!({ "mode": "standalone", "auth": { "enabled": true, "password": password } }));
        Chart::render(&chart).unwrap()
    };
    let access = Access::with_password(Some(password.to_owned()));
    let mut pods = ChartPods::start(locked_by(password), &[], access).unwrap();
    lone_server_is_saved(&pods);
    // The chart's test comes with the password, and says so where it is another one.
    pods.upgrade(locked_by("another"));
    let refused = pods.run_to_end("test").expect_err("it was let in").to_string();
    assert!(refused.contains("does not let us in"), "{refused}");
}

fn lone_server_is_saved(pods: &ChartPods) {
    let [pod] = pods.pods() else { panic!("{} pods", pods.pods().len()) };
    let ready = || wait_for("the pod to be ready", LIMIT, || pods.is_ready(pod).map(Some)).unwrap();
    let connection = || pods.as_cluster().access().connect(pods.as_cluster().nodes()[0].1).unwrap();
    ready();
    pods.run_to_end("test").unwrap();
    cmd("SET").arg("key").arg("value").exec(&mut connection()).unwrap();
    pods.stop(pod).unwrap();
    assert_eq!(pod.inspect("{{.State.ExitCode}}").unwrap(), "0", "{}", pod.log());
    pod.ask_docker_to("start").unwrap();
    ready();
    assert_eq!(cmd("GET").arg("key").query::<String>(&mut connection()).unwrap(), "value");
    pods.run_to_end("test").unwrap();
}
