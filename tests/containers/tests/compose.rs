//! `docker compose up` makes a cluster.

use std::process::Command;
use std::time::Duration;

use containers::{docker, finished, images, unique};
use testbed::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// A project of Compose; what it made goes with it.
struct Project(String);

impl Project {
    fn compose(&self, args: &[&str]) -> anyhow::Result<String> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docker/compose.yaml");
        let mut command = Command::new("docker-compose");
        command.args(["--file", file, "--project-name", &self.0]).args(args);
        command.env("VALKEY_IMAGE", &images().valkey);
        finished(&mut command)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.compose(&["logs", "--tail", "20"]).unwrap_or_else(|error| format!("{error:#}")));
        }
        let _ = self.compose(&["down", "--volumes", "--timeout", "60"]);
    }
}

#[test]
fn compose_up_makes_a_cluster_that_a_restart_does_not_hurt() {
    let project = Project(unique("compose"));
    project.compose(&["up", "--detach", "--no-build"]).unwrap();
    let network = format!("{}_cluster", project.0);
    let status = || {
        let run = ["run", "--rm", "--network", &network, "--env", "VALKEEPER_SERVICE=valkey", &images().valkeeper];
        docker(&[&run[..], &["status", "--shards", "3", "--replicas", "1", "--timeout", "30s"]].concat())
    };
    wait_for("the cluster to be as it should", LIMIT, || status().map(Some)).unwrap();
    project.compose(&["restart", "valkey-0"]).unwrap();
    wait_for("the cluster to be as it should again", LIMIT, || status().map(Some)).unwrap();
}
