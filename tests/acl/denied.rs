//! What who may not is told.

use testbed::{Ended, Server, Testbed, Valkey};
use valkeeper::topology::acl::NO_HASH;

use crate::tools::{LIMIT, PASSWORD, WATCHER, builder, rule, users};

/// One server with the users in its configuration.
fn server(valkey: &Valkey) -> Testbed {
    let users = users(valkey);
    let rules = users.iter().map(|line| line.strip_prefix("user ").unwrap());
    let bed = rules.fold(builder(valkey, 1), |builder, rule| builder.config("user", rule)).build().unwrap();
    bed.pod(0).start().unwrap();
    bed
}

#[test]
fn who_may_not_is_told_which_user_may_not_do_what_and_what_to_do() {
    Valkey::each(Valkey::all(), |valkey| {
        let bed = server(valkey);
        let bootstrap = ["bootstrap", "--shards", "1", "--replicas", "0", "--timeout", "3s"];
        let as_user = |user: &str, password: &str| {
            let mut command = bed.valkeeper(&bootstrap);
            command.env("VALKEEPER_USERNAME", user).env("VALKEY_PASSWORD", password);
            Ended::of(&mut command, LIMIT).unwrap()
        };
        as_user(WATCHER, PASSWORD).expect(64, &["NOPERM", WATCHER, "'config|set'", "`valkeeper acl` prints the rule"]);
        as_user(WATCHER, "wrong").expect(69, &["WRONGPASS", "We are the user"]);
        let mut nobody = bed.valkeeper(&bootstrap);
        nobody.env_remove("VALKEEPER_USERNAME").env_remove("VALKEY_PASSWORD");
        let told = ["We were given no password", "--username", "default user is off"];
        Ended::of(&mut nobody, LIMIT).unwrap().expect(69, &told);
        let mut default = bed.valkeeper(&bootstrap);
        default.env_remove("VALKEEPER_USERNAME");
        Ended::of(&mut default, LIMIT)
            .unwrap()
            .expect(69, &["WRONGPASS", "We are the default user: where that is off, --username names another"]);
    });
}

#[test]
fn no_server_starts_over_a_rule_without_a_password() {
    Valkey::each(Valkey::all(), |valkey| {
        let bed = builder(valkey, 1).build().unwrap();
        let ended = rule(&["--password-file", "/dev/null"]);
        assert_ne!(ended.code, Some(0), "{ended}");
        let mut without = bed.valkeeper(&["acl"]);
        let ended = Ended::of(without.env_remove("VALKEY_PASSWORD"), LIMIT).unwrap();
        ended.expect(0, &["no password was given", NO_HASH]);
        let line = ended.stdout.trim_end().strip_prefix("user ").unwrap().to_owned();
        let mut options = bed.pod(0).options();
        options.config.push(("user".to_owned(), line));
        let mut server = Server::start(options).unwrap();
        assert!(server.wait_ready(LIMIT).is_err() && !server.exit_status().unwrap().unwrap().success());
    });
}
