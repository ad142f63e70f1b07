//! Pods keep their name and disk, and DNS follows their address.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::{Answer, Testbed, Valkey, run};

const DEADLINE: Duration = Duration::from_secs(20);

fn node_id(bed: &Testbed, ordinal: usize) -> Result<String> {
    let mut connection = bed.connection(ordinal)?;
    Ok(testbed::redis::cmd("CLUSTER").arg("MYID").query(&mut connection)?)
}

#[test]
fn a_disk_survives_a_move_and_dns_follows() -> Result<()> {
    for valkey in Valkey::all() {
        let bed = Testbed::builder(&valkey).config("requirepass", "x").build()?;
        let pod = bed.pod(0);
        let id = node_id(&bed, 0)?;
        pod.restart_at(bed.spare_addr())?;
        assert_eq!(node_id(&bed, 0)?, id);
        assert_eq!(bed.dns().get(bed.service()), [Answer::from(IpAddr::V4(pod.addr()))]);
        pod.kill()?;
        pod.wipe_nodes_conf()?;
        pod.start()?;
        let second = node_id(&bed, 0)?;
        assert_ne!(second, id);
        pod.lose_disk()?;
        assert!(!pod.dir().exists());
        pod.start()?;
        assert_ne!(node_id(&bed, 0)?, second);
        pod.stop()?;
        assert!(pod.pid().is_none());
    }
    Ok(())
}

#[test]
fn pods_meet_at_their_own_addresses() -> Result<()> {
    let bed = Testbed::builder(&Valkey::newest()).pods(2).config("requirepass", "x").build()?;
    let mut first = bed.connection(0)?;
    testbed::redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383).exec(&mut first)?;
    testbed::redis::cmd("CLUSTER").arg("MEET").arg(bed.pod(1).addr().to_string()).arg(6379).exec(&mut first)?;
    for ordinal in 0..2 {
        bed.wait_for("both nodes to see both addresses and all slots", DEADLINE, || {
            let (nodes, info) = (bed.cluster_nodes(ordinal)?, bed.cluster_info(ordinal)?);
            let met = bed.pods().iter().all(|pod| nodes.contains(&format!(" {}:6379@", pod.addr())));
            ensure!(met && info["cluster_state"] == "ok" && !nodes.contains("handshake"), "{nodes}");
            Ok(Some(()))
        })?;
    }
    bed.cli_check(0)?;
    Ok(())
}

#[test]
fn a_wait_that_fails_names_what_it_saw_and_the_log() -> Result<()> {
    let bed = Testbed::builder(&Valkey::newest()).build()?;
    bed.pod(0).pause()?;
    let wait = bed.wait_for("the end of days", Duration::from_millis(50), || -> Result<Option<()>> {
        anyhow::bail!("another day")
    });
    let error = format!("{:#}", wait.unwrap_err());
    for part in ["the end of days", "another day", "--- valkey-0", "Running mode=cluster"] {
        assert!(error.contains(part), "{error}");
    }
    bed.pod(0).resume()?;
    assert!(bed.cli_check(0).is_err(), "no slots are assigned");
    Ok(())
}

#[test]
fn the_program_gets_nothing_but_what_leads_to_the_test_bed() -> Result<()> {
    let bed = Testbed::builder(&Valkey::newest())
        .config("requirepass", "x")
        .start_servers(false)
        .binary("/usr/bin/env")
        .build()?;
    let output = run(&mut bed.valkeeper_in(0, &[]), DEADLINE)?;
    let text = String::from_utf8(output.stdout)?;
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let mut names: Vec<&str> = variables.map(|(name, _)| name).collect();
    names.sort_unstable();
    let expected = [
        "PATH",
        "POD_IP",
        "POD_NAME",
        "VALKEEPER_DNS_SERVER",
        "VALKEEPER_PORT",
        "VALKEEPER_SERVICE",
        "VALKEEPER_STATEFULSET",
        "VALKEY_PASSWORD",
    ];
    assert_eq!(names, expected);
    Ok(())
}

#[test]
fn a_program_that_does_not_end_is_killed_with_its_children() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo working; sleep 60 & wait"]);
    let error = run(&mut command, Duration::from_millis(300)).unwrap_err();
    assert!(format!("{error:#}").contains("working"), "{error:#}");
}
