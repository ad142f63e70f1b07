//! Pods whose server somebody else starts: all of it goes when told, and nothing is left. A shell script
//! stands in for the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testbed::{Pod, Testbed, Valkey, wait_for};

const DEADLINE: Duration = Duration::from_secs(20);

/// Starts what follows `--` in a process group of its own, passes SIGTERM on, ends as the server did;
/// when it is killed itself, it leaves its server behind.
const STAND_IN: &str = r#"#!/bin/sh
echo "$* of $POD_NAME at $POD_IP, $VALKEEPER_NOTE, password $VALKEY_PASSWORD"
while [ "$1" != -- ]; do shift; done
shift
setsid "$@" & server=$!
trap 'kill -TERM $server' TERM
while kill -0 $server 2>/dev/null; do wait $server; code=$?; done
exit $code
"#;

fn bed() -> Result<(TempDir, Testbed)> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("run");
    fs::write(&program, STAND_IN)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
    let bed = Testbed::builder(&Valkey::newest())
        .config("requirepass", "x")
        .binary(program)
        .run_args(&["--first"])
        .start_servers(false)
        .build()?;
    Ok((folder, bed))
}

fn server(pod: &Pod) -> Result<u32> {
    wait_for("the server's pid", DEADLINE, || Ok(pod.server_pid()))
}

fn runs(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

#[test]
fn run_gets_its_environment_and_the_server_its_configuration_by_file() -> Result<()> {
    let (_program, bed) = bed()?;
    let pod = bed.pod(0);
    pod.set_run_env("VALKEEPER_NOTE", Some("noted"));
    pod.start()?;
    let config = pod.dir().with_extension("conf");
    let expected = format!(
        "run --first -- {} {} of valkey-0 at {}, noted, password x\n",
        bed.valkey().server.display(),
        config.display(),
        pod.addr()
    );
    assert_eq!(pod.run_log(), expected);
    assert_eq!(fs::metadata(&config)?.permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&config)?.contains("requirepass x\n"));
    assert_eq!(bed.keys(0)?, 0);
    let (run, server) = (pod.pid().context("run")?, server(pod)?);
    assert_ne!(run, server);
    assert!(pod.stop()?.success());
    assert!(!runs(run) && !runs(server) && pod.pid().is_none() && pod.server_pid().is_none());
    pod.set_run_args(&["--second", "2"]);
    pod.set_run_env("VALKEEPER_NOTE", None);
    pod.start()?;
    assert!(pod.run_log().starts_with("run --second 2 -- "), "{}", pod.run_log());
    assert!(pod.run_log().contains(", , password"), "{}", pod.run_log());
    Ok(())
}

#[test]
fn the_server_alone_can_be_stopped_and_killed_under_run() -> Result<()> {
    let (_program, bed) = bed()?;
    let pod = bed.pod(0);
    pod.start()?;
    let server = server(pod)?;
    pod.pause()?;
    wait_for("the server to stand still", DEADLINE, || {
        Ok(fs::read_to_string(format!("/proc/{server}/stat"))?.contains(") T ").then_some(()))
    })?;
    pod.resume()?;
    bed.wait_for("the server to go on", DEADLINE, || bed.keys(0).map(Some))?;
    pod.kill_server()?;
    assert_eq!(pod.wait_end(DEADLINE)?.code(), Some(128 + 9));
    assert!(!runs(server));
    assert!(pod.kill_server().is_err());
    Ok(())
}

#[test]
fn a_pod_is_killed_whole_and_started_again_at_once() -> Result<()> {
    let (_program, bed) = bed()?;
    let pod = bed.pod(0);
    pod.start()?;
    for _ in 0..5 {
        let (run, before) = (pod.pid().context("run")?, server(pod)?);
        pod.restart_at_once()?;
        assert!(!runs(run) && !runs(before));
        pod.wait_ready()?;
        assert_ne!(server(pod)?, before);
    }
    Ok(())
}

#[test]
fn nothing_is_left_of_a_pod_whose_run_was_gone_before() -> Result<()> {
    let (_program, bed) = bed()?;
    bed.pod(0).start()?;
    let (run, server) = (bed.pod(0).pid().context("run")?, server(bed.pod(0))?);
    ensure!(std::process::Command::new("kill").args(["-9", &run.to_string()]).status()?.success());
    wait_for("run to end", DEADLINE, || Ok((!runs(run)).then_some(())))?;
    assert!(runs(server), "a script leaves its children behind");
    assert!(bed.pod(0).stop().is_err(), "a server that was left behind is told of");
    assert!(!runs(server));
    bed.pod(0).start()?;
    let second = self::server(bed.pod(0))?;
    let folder = bed.dir().to_owned();
    drop(bed);
    assert!(!runs(second) && !Path::new(&folder).exists());
    Ok(())
}
