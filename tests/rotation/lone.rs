//! What the file may look like, and a server that has nobody else.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use testbed::redis::cmd;
use testbed::{Testbed, Valkey};

use crate::tools::{LIMIT, Pods, accepted, builder, hash, setting};

fn logged(bed: &Testbed, text: &str) {
    let found = bed.wait_for(text, LIMIT, || Ok(bed.pod(0).run_log().contains(text).then_some(())));
    found.unwrap_or_else(|error| panic!("{error:#}\n{}", bed.pod(0).run_log()));
}

#[test]
fn a_server_without_a_cluster_changes_over_too() {
    Valkey::each(Valkey::all(), |valkey| {
        const ARGS: [&str; 6] = ["--mode", "standalone", "--password-overlap", "1s", "--log-level", "trace"];
        let alone = builder(valkey, 1).config("cluster-enabled", "no");
        let mut pods = Pods::start(alone, "marker-1", &ARGS);
        let mut admin = pods.log_in(0, "marker-1").unwrap();
        pods.change(0, "marker-2");
        pods.wait_settled(std::slice::from_mut(&mut admin), "marker-2");
        assert!(pods.log_in(0, "marker-1").is_err() && pods.log_in(0, "marker-2").is_ok());
        let log = pods.bed.pod(0).run_log();
        for secret in ["marker-1", "marker-2", &hash("marker-1"), &hash("marker-2")] {
            assert!(!log.contains(secret), "{log}");
        }
    });
}

#[test]
fn an_empty_or_missing_file_changes_nothing_and_is_told_once() {
    let mut pods = Pods::start(builder(&Valkey::newest(), 1), "old", &["--password-overlap", "0s"]);
    fs::write(pods.file(0), "").unwrap();
    logged(&pods.bed, "is empty; the password that it held before stays in use");
    fs::remove_file(pods.file(0)).unwrap();
    thread::sleep(Duration::from_secs(2));
    let log = pods.bed.pod(0).run_log();
    assert_eq!(log.matches("stays in use").count(), 1, "{log}");
    assert!(pods.log_in(0, "old").is_ok());
    pods.change(0, "new");
    let mut admin = pods.log_in(0, "old").unwrap();
    pods.wait_settled(std::slice::from_mut(&mut admin), "new");
    pods.change(0, "old");
    pods.wait_settled(std::slice::from_mut(&mut admin), "old");
}

#[test]
fn a_pod_that_was_away_is_waited_for_and_heard_when_it_comes_back() {
    let mut pods = Pods::form(&Valkey::newest(), 1, "old", &["--password-overlap", "0s"]);
    let replica = 1 - pods.bed.primaries().unwrap()[0];
    let primary = 1 - replica;
    let mut admin = pods.log_in(primary, "old").unwrap();
    pods.bed.pod(replica).kill().unwrap();
    pods.change(primary, "new");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(accepted(&mut admin, "default").unwrap(), [hash("old"), hash("new")]);
    assert_eq!(setting(&mut admin, "masterauth").unwrap(), "old");
    // It comes back with the old file, and sees the new one later.
    pods.bed.pod(replica).start().unwrap();
    let mut admins = [admin, pods.log_in(replica, "old").unwrap()];
    pods.wait_accepted(&mut admins, "new");
    pods.change(replica, "new");
    if replica == 0 {
        admins.swap(0, 1);
    }
    pods.wait_settled(&mut admins, "new");
}

#[test]
fn a_password_that_somebody_gives_our_user_by_hand_stays_on_every_node() {
    let mut pods = Pods::form(&Valkey::newest(), 1, "ours", &["--password-overlap", "0s"]);
    let mut admins: Vec<_> = (0..2).map(|pod| pods.log_in(pod, "ours").unwrap()).collect();
    // Until the first look around is over, and then at any moment between two.
    thread::sleep(Duration::from_secs(4));
    for admin in &mut admins {
        cmd("ACL").arg(&["SETUSER", "default", ">theirs"]).exec(admin).unwrap();
        thread::sleep(Duration::from_secs(6));
    }
    thread::sleep(Duration::from_secs(12));
    for admin in &mut admins {
        assert_eq!(accepted(admin, "default").unwrap(), [hash("theirs"), hash("ours")]);
    }
    (0..2).for_each(|pod| pods.change(pod, "new"));
    pods.bed
        .wait_for("ours to be refused", LIMIT, || {
            let are = admins.iter_mut().map(|admin| accepted(admin, "default"));
            Ok(are
                .collect::<anyhow::Result<Vec<_>>>()?
                .iter()
                .all(|all| *all == [hash("theirs"), hash("new")])
                .then_some(()))
        })
        .unwrap();
}

#[test]
fn a_configuration_that_still_names_a_former_password_is_known_to_be_behind() {
    Valkey::each(Valkey::all(), |valkey| {
        let alone = builder(valkey, 1).config("cluster-enabled", "no").config("requirepass", "old");
        let mut pods = Pods::start(alone, "old", &["--mode", "standalone", "--password-overlap", "0s"]);
        let mut admin = pods.log_in(0, "old").unwrap();
        pods.change(0, "new");
        pods.wait_settled(std::slice::from_mut(&mut admin), "new");
        let record = pods.bed.pod(0).dir().join("valkeeper-passwords");
        let (old, new) = (hash("old"), hash("new"));
        // It is written down after it was done.
        pods.bed
            .wait_for("the record of the former password", LIMIT, || {
                let text = fs::read_to_string(&record)?;
                ensure!(text == format!("{new}\n{old} retired\n"), "{text}");
                Ok(Some(()))
            })
            .unwrap();
        pods.bed.pod(0).kill().unwrap();
        // The second time as if it had died before the old one was refused.
        for record_text in [None, Some(format!("{old}\n{new}\n"))] {
            record_text.iter().for_each(|text| fs::write(&record, text).unwrap());
            pods.bed.pod(0).start().unwrap();
            let mut admin = pods.log_in(0, "new").unwrap();
            assert!(record_text.is_some() || pods.log_in(0, "old").is_err());
            pods.wait_settled(std::slice::from_mut(&mut admin), "new");
            pods.bed.pod(0).kill().unwrap();
        }
        // Who goes back to it may.
        pods.change(0, "old");
        pods.bed.pod(0).start().unwrap();
        let mut admin = pods.log_in(0, "old").unwrap();
        pods.wait_settled(std::slice::from_mut(&mut admin), "old");
    });
}
