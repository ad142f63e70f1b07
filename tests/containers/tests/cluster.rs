//! Six containers behind one name, stopped, killed and made anew under a client that writes.

use std::fs;
use std::time::Duration;

use containers::{Group, Pauses, Shape, docker, some_writes, writer};
use testbed::{Writer, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const SIX: Shape = Shape { shards: 3, replicas: 1 };

fn formed() -> Group {
    let group = Group::start(SIX).unwrap();
    group.form(LIMIT).unwrap();
    group
}

#[test]
fn containers_restarted_one_by_one_lose_no_write_refuse_none_and_hold_none_up() {
    let group = formed();
    let writer = writer(group.as_cluster()).unwrap();
    let mut pauses = Pauses::default();
    // Each is a primary when its turn comes: the last three have taken over from the first three.
    for pod in group.pods() {
        pauses.during(&writer, || {
            pod.ask_docker_to("stop").unwrap();
            let code = pod.inspect("{{.State.ExitCode}}").unwrap();
            assert_eq!(code, "0", "{}", pod.log());
            pod.ask_docker_to("start").unwrap();
            group.as_cluster().wait_in_sync(LIMIT).unwrap();
        });
    }
    let report = writer.stop();
    println!("{report}");
    assert_eq!(report.error_count(), 0, "{report}");
    assert_eq!(report.verify(group.as_cluster()).unwrap().keys, 0, "{report}");
    pauses.assert_short();
}

#[test]
fn a_killed_container_is_succeeded_and_comes_back_as_a_replica() {
    /// What a primary can have acknowledged and not sent yet.
    const UNREPLICATED: u64 = 3;
    let group = formed();
    // Nobody closes the connections of a container that is killed.
    let writer = Writer::start_patient(group.as_cluster(), Duration::from_secs(1)).unwrap();
    let primary = group.primaries().unwrap()[0];
    let mark = writer.mark();
    group.pods()[primary].ask_docker_to("kill").unwrap();
    group
        .as_cluster()
        .wait_for("an heir", LIMIT, || {
            let primaries = group.primaries()?;
            Ok((primaries.len() == SIX.shards && !primaries.contains(&primary)).then_some(()))
        })
        .unwrap();
    println!("killed: {:.1?} without a write", writer.report_since(&mark).longest_gap().length);
    group.pods()[primary].ask_docker_to("start").unwrap();
    group.as_cluster().wait_in_sync(LIMIT).unwrap();
    assert!(!group.primaries().unwrap().contains(&primary));
    let report = writer.stop();
    let lost = report.verify(group.as_cluster()).unwrap();
    assert!(lost.keys <= UNREPLICATED, "{lost:?} {report}");
}

#[test]
fn containers_made_anew_over_the_old_volumes_find_each_other_at_other_addresses() {
    let group = formed();
    let report = some_writes(group.as_cluster()).unwrap();
    let addresses = || group.pods().iter().map(|pod| pod.address().unwrap()).collect::<Vec<_>>();
    let before = addresses();
    for pod in group.pods() {
        pod.ask_docker_to("stop").unwrap();
        assert_eq!(pod.inspect("{{.State.ExitCode}}").unwrap(), "0", "{}", pod.log());
    }
    for pod in group.pods() {
        pod.ask_docker_to("rm").unwrap();
    }
    // The last one first: each gets an address that was another one's.
    (0..group.pods().len()).rev().for_each(|ordinal| group.create(ordinal).unwrap());
    group.as_cluster().wait_in_sync(LIMIT).unwrap();
    let after = addresses();
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");
    assert_eq!(report.verify(group.as_cluster()).unwrap().keys, 0, "{report}");
}

#[test]
fn process_1_has_no_rights_keeps_to_its_limits_and_clears_orphans_away() {
    let group = Group::start(Shape { shards: 1, replicas: 0 }).unwrap();
    group.form(LIMIT).unwrap();
    let pod = &group.pods()[0];
    let status = fs::read_to_string(format!("/proc/{}/status", pod.inspect("{{.State.Pid}}").unwrap())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim();
    assert_eq!(field("CapEff").trim_matches('0'), "");
    assert_eq!(field("CapBnd").trim_matches('0'), "");
    assert_eq!((field("NoNewPrivs"), field("Uid").split_whitespace().next()), ("1", Some("999")));
    pod.is_held_to(128 << 20).unwrap();
    // Ten that end after their parent has.
    let orphans = "i=0; while [ $i -lt 10 ]; do sh -c 'read line <$0' /proc/self/status & i=$((i + 1)); done";
    pod.shell(orphans).unwrap();
    wait_for("the orphans to be gone", LIMIT, || {
        let processes = docker(&["top", &pod.container, "-o", "pid,stat,args"])?;
        anyhow::ensure!(processes.lines().count() == 3, "{processes}");
        Ok(Some(()))
    })
    .unwrap();
}
