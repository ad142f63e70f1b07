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

/// As when a pod is deleted right after its secret has changed.
#[test]
fn a_user_of_an_acl_file_is_let_in_by_a_server_that_never_heard_of_the_new_password() {
    Valkey::each(Valkey::all(), |valkey| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users.acl");
        fs::write(&file, format!("user default off\nuser app on >old >theirs {RIGHTS}\nuser other on >old {RIGHTS}\n"))
            .unwrap();
        let users = builder(valkey, 1).config("aclfile", file.to_str().unwrap());
        let mut pods = Pods::start(users, "old", &["--username", "app", "--password-overlap", "0s"]);
        pods.bed.pod(0).kill().unwrap();
        pods.change(0, "new");
        pods.bed.set_password("new");
        pods.bed.pod(0).start().unwrap();
        let mut admin = pods.log_in_as(0, Some("app"), "new").unwrap();
        let settled = |admin: &mut _| {
            pods.bed
                .wait_for("the new password beside theirs", LIMIT, || {
                    Ok((accepted(admin, "app")? == [hash("theirs"), hash("new")]).then_some(()))
                })
                .unwrap();
            pods.bed
                .wait_for("the file to know it", LIMIT, || {
                    Ok((!fs::read_to_string(&file)?.contains(&format!("{} resetchannels", hash("old")))).then_some(()))
                })
                .unwrap();
        };
        settled(&mut admin);
        assert!(pods.log_in_as(0, Some("other"), "old").is_ok());
        // A file from before, as of a server that could not write it: what was refused since stays refused.
        pods.bed.pod(0).kill().unwrap();
        fs::write(&file, format!("user default off\nuser app on >old >theirs {RIGHTS}\nuser other on >old {RIGHTS}\n"))
            .unwrap();
        pods.bed.pod(0).start().unwrap();
        let mut admin = pods.log_in_as(0, Some("app"), "new").unwrap();
        assert!(pods.log_in_as(0, Some("app"), "old").is_err());
        settled(&mut admin);
    });
}

#[test]
fn a_server_that_cannot_keep_its_users_says_so_once_and_goes_on_trying() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    fs::write(&file, format!("user default off\nuser app on >old {RIGHTS}\n")).unwrap();
    let users = builder(&Valkey::newest(), 1).config("aclfile", file.to_str().unwrap());
    let mut pods = Pods::start(users, "old", &["--username", "app", "--password-overlap", "0s"]);
    // The server writes a file beside it, and then renames that one.
    fs::remove_file(&file).unwrap();
    fs::create_dir_all(file.join("in the way")).unwrap();
    pods.change(0, "new");
    let told = "the server cannot keep its passwords in its ACL file";
    pods.bed.wait_for(told, LIMIT, || Ok(pods.bed.pod(0).run_log().contains(told).then_some(()))).unwrap();
    fs::remove_dir_all(&file).unwrap();
    pods.bed
        .wait_for("the file", LIMIT, || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            Ok((text.contains(&hash("new")) && !text.contains(&hash("old"))).then_some(()))
        })
        .unwrap();
    assert!(pods.bed.pod(0).run_log().matches(told).count() <= 2, "{}", pods.bed.pod(0).run_log());
}

#[test]
fn a_user_of_the_configuration_whose_password_is_another_is_told_of_before_the_start() {
    let users =
        builder(&Valkey::newest(), 1).config("user", "default off").config("user", &format!("app on >old {RIGHTS}"));
    let mut pods = Pods::start(users, "old", &["--username", "app"]);
    let told = "the configuration gives user app other passwords than that of this pod's file";
    assert!(!pods.bed.pod(0).run_log().contains(told));
    pods.bed.pod(0).kill().unwrap();
    pods.change(0, "new");
    pods.bed.pod(0).start().unwrap();
    assert!(pods.bed.pod(0).run_log().contains(told), "{}", pods.bed.pod(0).run_log());
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
    let told = "NOPERM User app has no permissions to run the 'acl|getuser' command; `valkeeper acl` prints the rule";
    pods.bed.wait_for(told, LIMIT, || Ok(pods.bed.pod(0).run_log().contains(told).then_some(()))).unwrap();
    assert_eq!(pods.bed.pod(0).run_log().matches(told).count(), 1);
    let mut probe = pods.bed.valkeeper_in(0, &["probe", "startup", "--username", "app"]);
    assert!(testbed::run(probe.env("VALKEY_PASSWORD", "old"), LIMIT).unwrap().status.success());
}
