//! Ways to end: in a hurry, too early, without permission, twice.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::redis::cmd;
use testbed::{Ended, Testbed, Valkey};

use crate::tools::{LIMIT, ask, each, info, populate, standalone, stop, stopped, supervised, wait_logged};

/// Far less than any grace period here.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_second_sigterm_does_not_wait_for_the_save() {
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &["--grace-period", "60s"]).build().unwrap();
        populate(&bed, 0, 30_000, "key");
        ask::<()>(&bed, 0, &["CONFIG", "SET", "rdb-key-save-delay", "1000"]);
        bed.pod(0).terminate().unwrap();
        wait_logged(&bed, 0, "saving: ", LIMIT);
        let stopped = stop(&bed, 0);
        stopped.expect(0, &["the drain is cut short"]);
        assert!(stopped.took < SOON, "{:?}: {}", stopped.took, stopped.log);
    });
}

#[test]
fn a_server_that_still_loads_stops_at_once_and_keeps_its_file() {
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &["--grace-period", "60s"])
            .config("key-load-delay", "10000")
            .config("loading-process-events-interval-bytes", "1024")
            .config("rdbcompression", "no")
            .build()
            .unwrap();
        populate(&bed, 0, 4_000, "key");
        let file = bed.pod(0).dir().join("dump.rdb");
        stop(&bed, 0).expect(0, &[]);
        let saved = fs::read(&file).unwrap();
        bed.pod(0).spawn().unwrap();
        bed.wait_for("the server to load", LIMIT, || {
            let answer = cmd("PING").query::<String>(&mut bed.connection(0)?);
            Ok(answer.is_err_and(|error| error.code() == Some("LOADING")).then_some(()))
        })
        .unwrap();
        let stopped = stop(&bed, 0);
        stopped.expect(0, &[]);
        assert!(stopped.took < SOON, "{:?}: {}", stopped.took, stopped.log);
        assert!(fs::read(&file).unwrap() == saved);
    });
}

#[test]
fn a_server_that_hangs_is_killed_only_in_the_last_second() {
    const GRACE: Duration = Duration::from_secs(6);
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &["--grace-period", "6s"]).build().unwrap();
        populate(&bed, 0, 10, "key");
        bed.pod(0).pause().unwrap();
        let stopped = stop(&bed, 0);
        stopped.expect(75, &["waiting for the server", "is killed"]);
        let allowed = GRACE - Duration::from_secs(1)..=GRACE + Duration::from_secs(1);
        assert!(allowed.contains(&stopped.took), "{:?}: {}", stopped.took, stopped.log);
    });
}

#[test]
fn where_we_may_do_nothing_the_server_stops_by_its_own_rules() {
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &["--username", "app", "--grace-period", "60s"])
            .config("save", "3600 1")
            .config("user", "app on >secret ~* &* +ping +info")
            .start_servers(false)
            .build()
            .unwrap();
        bed.pod(0).set_run_env("VALKEY_PASSWORD", Some("secret"));
        bed.pod(0).start().unwrap();
        populate(&bed, 0, 100, "key");
        let stopped = stop(&bed, 0);
        stopped.expect(0, &["NOPERM"]);
        assert!(stopped.took < SOON, "{:?}: {}", stopped.took, stopped.log);
        bed.pod(0).start().unwrap();
        assert_eq!(bed.keys(0).unwrap(), 100);
    });
}

#[test]
fn a_drain_is_reported_in_one_line_that_the_next_start_knows() {
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &["--log-format", "json"]).build().unwrap();
        populate(&bed, 0, 100, "key");
        let stopped = stop(&bed, 0);
        stopped.expect(0, &[]);
        // The server itself may have printed a line before it opened its log.
        let lines = stopped.log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let messages: Vec<String> = lines.map(|line| line["message"].as_str().unwrap().to_owned()).collect();
        let told: Vec<&str> = messages.iter().filter_map(|message| message.strip_prefix("drained: ")).collect();
        assert_eq!(told.len(), 1, "{}", stopped.log);
        let kept = fs::read_to_string(bed.pod(0).dir().join("valkeeper-drain.json")).unwrap();
        assert_eq!(kept.trim_end(), told[0]);
        let report: Value = serde_json::from_str(told[0]).unwrap();
        assert_eq!((&report["outcome"], &report["save"]["keys"]), (&"clean".into(), &100.into()), "{report}");
        for news in [true, false] {
            bed.pod(0).start().unwrap();
            assert_eq!(bed.pod(0).run_log().contains("the last drain was clean"), news, "{}", bed.pod(0).run_log());
            bed.pod(0).kill().unwrap();
        }
    });
}

#[test]
fn after_a_drain_before_it_sigterm_finds_nothing_to_do() {
    each(Valkey::all(), |valkey| {
        let bed = standalone(&valkey, &["--grace-period", "60s"]).build().unwrap();
        populate(&bed, 0, 5_000, "key");
        ask::<()>(&bed, 0, &["CONFIG", "SET", "rdb-key-save-delay", "1000"]);
        let drain = ["drain", "--mode", "standalone", "--grace-period", "60s"];
        Ended::of(&mut bed.valkeeper_in(0, &drain), LIMIT).unwrap().expect(0, &[r#""outcome":"saved""#]);
        let saved = fs::metadata(bed.pod(0).dir().join("dump.rdb")).unwrap().modified().unwrap();
        let stopped = stop(&bed, 0);
        stopped.expect(0, &[r#""outcome":"nothing new""#]);
        // Another save would take as long as that.
        assert!(stopped.took < Duration::from_secs(5), "{:?}: {}", stopped.took, stopped.log);
        assert_eq!(fs::metadata(bed.pod(0).dir().join("dump.rdb")).unwrap().modified().unwrap(), saved);
    });
}

#[test]
fn a_drain_before_it_and_sigterm_share_one_grace_period_and_one_delay() {
    each(Valkey::all(), |valkey| {
        let end = ["--grace-period", "60s", "--delay", "4s"];
        let bed = standalone(&valkey, &end).build().unwrap();
        populate(&bed, 0, 100, "key");
        let drain = [&["drain", "--mode", "standalone"], &end[..]].concat();
        Ended::of(&mut bed.valkeeper_in(0, &drain), LIMIT).unwrap().expect(0, &[]);
        let stopped = stop(&bed, 0);
        stopped.expect(0, &[]);
        let report = fs::read_to_string(bed.pod(0).dir().join("valkeeper-drain.json")).unwrap();
        let report: Value = serde_json::from_str(&report).unwrap();
        let settled = report["phases"].as_array().unwrap().iter().find(|phase| phase["phase"] == "settle").unwrap();
        assert!(settled["took_ms"].as_u64().unwrap() < 2_000, "{report}");
        assert!(report["used_ms"].as_u64().unwrap() >= 4_000, "{report}");
    });
}

/// How often the server was asked for its view, which its `run` does every second.
fn views(bed: &Testbed, pod: usize) -> u64 {
    let calls = info(bed, pod, "cmdstat_cluster|nodes");
    calls.split([',', '=']).nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_heir_of_a_primary_that_dies_in_its_drain_is_asked_at_once() {
    each(Valkey::all(), |valkey| {
        let bed = supervised(&valkey, &[]).pods(6).config("cluster-node-timeout", "60000").start_servers(false);
        // A disk that is slow for seconds would make whoever is asked look dead.
        let bed = bed.in_memory(true).build().unwrap();
        // The replicas' own run is to have no part in it.
        bed.pods()[1..].iter().for_each(|pod| pod.set_run_args(&["--on-primary-lost", "wait"]));
        bed.pods().iter().for_each(|pod| pod.start().unwrap());
        bed.form(3, 1).unwrap();
        let before = views(&bed, 0);
        bed.wait_for("run to have seen that", LIMIT, || Ok((views(&bed, 0) > before + 1).then_some(()))).unwrap();
        bed.pod(0).pause().unwrap();
        let started = Instant::now();
        bed.pod(0).terminate().unwrap();
        wait_logged(&bed, 0, "waiting for the server", LIMIT);
        bed.pod(0).kill_server().unwrap();
        stopped(&bed, 0, started).expect(137, &["is told to take over", "has taken over"]);
        bed.wait_for("everybody to know the heir", LIMIT, || {
            let primaries = bed.primaries()?;
            anyhow::ensure!(primaries.len() == 3 && !primaries.contains(&0), "{primaries:?}");
            Ok(Some(()))
        })
        .unwrap();
    });
}
