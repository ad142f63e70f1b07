//! `docker compose up` makes a cluster.

use std::process::Command;
use std::time::Duration;

use containers::{finished, images, unique};
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
    // As the README has it.
    let status = || {
        let said = project.compose(&["exec", "-T", "valkey-0", "valkeeper", "status", "--timeout", "30s"])?;
        anyhow::ensure!(said.starts_with("cluster valkey: ok, 16384 of 16384 slots served"), "{said}");
        Ok(Some(()))
    };
    wait_for("the cluster to be as it should", LIMIT, status).unwrap();
    project.compose(&["restart", "valkey-0"]).unwrap();
    wait_for("the cluster to be as it should again", LIMIT, status).unwrap();
}
