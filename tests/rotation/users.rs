//! Users that the configuration or an ACL file names.

use std::fs;

use testbed::Valkey;

use crate::tools::{LIMIT, Pods, accepted, builder, hash};

const RIGHTS: &str = "~* &* +@all";

#[test]
fn a_user_of_an_acl_file_changes_over_and_the_file_knows_it() {
    Valkey::each(Valkey::all(), |valkey| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users.acl");
        fs::write(&file, format!("user default off\nuser app on >old {RIGHTS}\n")).unwrap();
        let users = builder(valkey, 1).config("aclfile", file.to_str().unwrap());
        let mut pods = Pods::start(users, "old", &["--username", "app", "--password-overlap", "0s"]);
        let mut admin = pods.log_in_as(0, Some("app"), "old").unwrap();
        pods.change(0, "new");
        pods.bed
            .wait_for("the new password alone", LIMIT, || {
                Ok((accepted(&mut admin, "app")? == [hash("new")]).then_some(()))
            })
            .unwrap();
        pods.bed
            .wait_for("the file to know it", LIMIT, || {
                let text = fs::read_to_string(&file)?;
                Ok((text.contains(&hash("new")) && !text.contains(&hash("old"))).then_some(()))
            })
            .unwrap();
        pods.bed.pod(0).kill().unwrap();
        pods.bed.pod(0).start().unwrap();
        assert!(pods.log_in_as(0, Some("app"), "old").is_err() && pods.log_in_as(0, Some("app"), "new").is_ok());
    });
}

#[test]
fn a_user_of_the_configuration_changes_over_and_others_are_left_alone() {
    Valkey::each(Valkey::all(), |valkey| {
        let users = builder(valkey, 1)
            .config("user", "default off")
            .config("user", &format!("app on >theirs >old {RIGHTS}"))
            .config("user", &format!("other on >old {RIGHTS}"));
        let mut pods = Pods::start(users, "old", &["--username", "app", "--password-overlap", "0s"]);
        let mut admin = pods.log_in_as(0, Some("app"), "old").unwrap();
        pods.change(0, "new");
        pods.bed
            .wait_for("the old password to be refused", LIMIT, || {
                Ok((accepted(&mut admin, "app")? == [hash("theirs"), hash("new")]).then_some(()))
            })
            .unwrap();
        assert!(pods.log_in_as(0, Some("other"), "old").is_ok());
    });
}

#[test]
fn a_user_that_may_not_change_itself_is_told_of_once_and_goes_on() {
    let users = builder(&Valkey::newest(), 1)
        .config("user", "default off")
        .config("user", &format!("app on >old {RIGHTS} -acl"));
    let mut pods = Pods::start(users, "old", &["--username", "app"]);
    pods.change(0, "new");
    let told = "give the user \"app\" +acl|getuser";
    pods.bed.wait_for(told, LIMIT, || Ok(pods.bed.pod(0).run_log().contains(told).then_some(()))).unwrap();
    assert_eq!(pods.bed.pod(0).run_log().matches(told).count(), 1);
    let mut probe = pods.bed.valkeeper_in(0, &["probe", "startup", "--username", "app"]);
    assert!(testbed::run(probe.env("VALKEY_PASSWORD", "old"), LIMIT).unwrap().status.success());
}
