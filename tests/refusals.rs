//! When `bootstrap` refuses, gives up or asks to be run again: the exit code, and what it tells people.

use std::time::Duration;

use testbed::redis::{Cmd, cmd};
use testbed::{Ended, Fault, Testbed, Valkey};

const LIMIT: Duration = Duration::from_secs(60);

fn bed(pods: u8) -> Testbed {
    Testbed::builder(&Valkey::newest()).pods(pods).binary(env!("CARGO_BIN_EXE_valkeeper")).build().unwrap()
}

fn bootstrap(bed: &Testbed, args: &[&str]) -> Ended {
    let args: Vec<&str> = ["bootstrap", "--log-level", "debug"].into_iter().chain(args.iter().copied()).collect();
    Ended::of(&mut bed.valkeeper(&args), LIMIT).unwrap()
}

fn cluster(bed: &Testbed, pod: usize, args: &[&str]) {
    cmd("CLUSTER").arg(args).query::<()>(&mut bed.connection(pod).unwrap()).unwrap();
}

fn announce(bed: &Testbed, pod: usize, name: &str) {
    let set = ["SET", "cluster-announce-human-nodename", name];
    cmd("CONFIG").arg(set.as_slice()).query::<()>(&mut bed.connection(pod).unwrap()).unwrap();
}

/// Keys on a node that owns every slot for the moment.
fn fill(bed: &Testbed, pod: usize) {
    cluster(bed, pod, &["ADDSLOTSRANGE", "0", "16383"]);
    let mut connection = bed.connection(pod).unwrap();
    bed.wait_for("the node to take writes", LIMIT, || {
        Ok(cmd("SET").arg("key").arg("value").query::<()>(&mut connection).ok())
    })
    .unwrap();
}

/// What each node knows, without times and epochs, which change by themselves.
fn views(bed: &Testbed) -> Vec<String> {
    let stable = |text: String| {
        let mut lines: Vec<_> = text
            .lines()
            .map(|line| {
                line.split(' ')
                    .enumerate()
                    .filter(|(place, _)| !matches!(place, 4..=6))
                    .map(|(_, field)| field.to_owned())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        lines.sort();
        lines.join("\n")
    };
    (0..bed.pods().len()).map(|pod| stable(bed.cluster_nodes(pod).unwrap())).collect()
}

#[test]
fn keys_without_slots_are_never_replicated_over() {
    let bed = bed(3);
    fill(&bed, 1);
    cluster(&bed, 1, &["DELSLOTSRANGE", "0", "16383"]);
    let before = views(&bed);
    bootstrap(&bed, &["--shards", "1", "--replicas", "2"])
        .expect(76, &["valkey-1 holds 1 key and owns no slots", "FLUSHALL", "What to do"]);
    assert_eq!(views(&bed), before, "nothing was done to anybody");
}

#[test]
fn two_clusters_with_slots_are_never_joined() {
    let bed = bed(2);
    cluster(&bed, 0, &["ADDSLOTSRANGE", "0", "99"]);
    cluster(&bed, 1, &["ADDSLOTSRANGE", "200", "299"]);
    let before = views(&bed);
    bootstrap(&bed, &["--shards", "2", "--replicas", "0", "--timeout", "3s"])
        .expect(76, &["two clusters with slots stand", "valkey-0 (0-99)", "valkey-1 (200-299)", "CLUSTER NODES"]);
    assert_eq!(views(&bed), before, "nothing was done to anybody");
}

#[test]
fn a_node_that_carries_another_clusters_mark_is_never_met() {
    let bed = bed(3);
    announce(&bed, 2, "other-cluster/valkey-2");
    let before = views(&bed);
    bootstrap(&bed, &["--shards", "3", "--replicas", "0", "--timeout", "2s"])
        .expect(76, &["belongs to the cluster other-cluster", "--cluster-id other-cluster"]);
    assert_eq!(views(&bed), before, "nothing was done to anybody");
}

#[test]
fn a_node_that_somebody_else_named_is_refused_with_the_way_out() {
    let bed = bed(3);
    announce(&bed, 2, "my-favourite-node");
    bootstrap(&bed, &["--shards", "3", "--replicas", "0", "--timeout", "2s"])
        .expect(76, &["calls itself \"my-favourite-node\"", "take cluster-announce-human-nodename out"]);
}

#[test]
fn an_unmarked_cluster_that_dns_only_half_names_is_not_taken_for_ours() {
    let bed = bed(3);
    cluster(&bed, 2, &["MEET", &bed.pod(1).addr().to_string(), "6379"]);
    bed.wait_for("the two to know each other", LIMIT, || {
        let both = [bed.cluster_nodes(1)?, bed.cluster_nodes(2)?];
        Ok(both.iter().all(|nodes| nodes.lines().count() == 2 && !nodes.contains("handshake")).then_some(()))
    })
    .unwrap();
    bed.dns().pod_gone(bed.pod(1).name());
    let before = views(&bed);
    bootstrap(&bed, &["--shards", "2", "--replicas", "0", "--timeout", "2s"])
        .expect(76, &["member of a cluster that does not carry our mark", "make sure that DNS names every node"]);
    assert_eq!(views(&bed), before, "nothing was done to anybody");
}

#[test]
fn data_without_nodes_conf_stays_out_of_the_cluster() {
    let bed = bed(3);
    fill(&bed, 1);
    cmd("SAVE").query::<()>(&mut bed.connection(1).unwrap()).unwrap();
    bed.pod(1).stop().unwrap();
    bed.pod(1).wipe_nodes_conf().unwrap();
    bed.pod(1).start().unwrap();
    bootstrap(&bed, &["--shards", "3", "--replicas", "0", "--timeout", "3s"])
        .expect(76, &["valkey-1 was started over data without its nodes.conf", "1 key", "put its nodes.conf back"]);
    let keys: u64 = cmd("DBSIZE").query(&mut bed.connection(1).unwrap()).unwrap();
    assert_eq!(keys, 1);
}

#[test]
fn a_shape_that_contradicts_what_stands_is_refused_and_nothing_moves() {
    let bed = bed(6);
    bootstrap(&bed, &[]).expect(0, &["the cluster stands after"]);
    let before = views(&bed);
    bootstrap(&bed, &["--shards", "2", "--replicas", "2"])
        .expect(76, &["the slots lie on 3 primaries", "2 shards with 2 replicas each were asked for", "--shards 3"]);
    bootstrap(&bed, &["--shards", "6", "--replicas", "0"]).expect(76, &["the slots lie on 3 primaries", "--shards 3"]);
    bootstrap(&bed, &["--shards", "3", "--replicas", "0", "--timeout", "2s"])
        .expect(76, &["6 nodes answer, and 3 shards with 0 replicas each make 3"]);
    assert_eq!(views(&bed), before, "nothing was done to anybody");
}

/// The names of all keys that primaries have, those that are on two of them twice.
fn keys(bed: &Testbed) -> Vec<String> {
    let names = |pod: usize| cmd("KEYS").arg("*").query::<Vec<String>>(&mut bed.connection(pod).unwrap()).unwrap();
    let mut found: Vec<String> = bed.primaries().unwrap().into_iter().flat_map(names).collect();
    found.sort();
    found
}

#[test]
fn replicas_that_become_empty_primaries_as_a_refusal_advises_have_forgotten_for_good() {
    Valkey::each(Valkey::all(), |valkey| {
        let bed = Testbed::builder(valkey)
            .pods(4)
            .binary(env!("CARGO_BIN_EXE_valkeeper"))
            .config("appendonly", "yes")
            .config("repl-diskless-sync-delay", "0")
            .build()
            .unwrap();
        bootstrap(&bed, &["--shards", "2", "--replicas", "1"]).expect(0, &[]);
        let primaries = bed.primaries().unwrap();
        // Who does not serve a key answers MOVED.
        let mut clients: Vec<_> = primaries.iter().map(|pod| bed.connection(*pod).unwrap()).collect();
        let mut tell = |command: Cmd| clients.iter_mut().any(|client| command.query::<()>(client).is_ok());
        assert!((0..1_000).all(|key| tell(cmd("SET").arg(format!("key:{key}")).arg("value").take())));
        bed.wait_in_sync(LIMIT).unwrap();

        let wider = ["--shards", "4", "--replicas", "0"];
        bootstrap(&bed, &wider).expect(76, &["CLUSTER RESET SOFT, and then BGREWRITEAOF"]);
        let spared: Vec<usize> = (0..4).filter(|pod| !primaries.contains(pod)).collect();
        for pod in &spared {
            cluster(&bed, *pod, &["RESET", "SOFT"]);
            let mut client = bed.connection(*pod).unwrap();
            cmd("BGREWRITEAOF").query::<()>(&mut client).unwrap();
            bed.wait_for("the append-only file to be rewritten", LIMIT, || {
                let info: String = cmd("INFO").arg("persistence").query(&mut client)?;
                let pending = ["aof_rewrite_in_progress:1", "aof_rewrite_scheduled:1"];
                Ok((!pending.iter().any(|field| info.contains(field))).then_some(()))
            })
            .unwrap();
        }
        assert!((0..500).all(|key| tell(cmd("DEL").arg(format!("key:{key}")).take())));
        let left = keys(&bed);
        assert_eq!(left.len(), 500);

        bootstrap(&bed, &wider).expect(0, &[]);
        Ended::of(&mut bed.valkeeper(&["rebalance"]), LIMIT).unwrap().expect(0, &[]);
        assert_eq!(bed.primaries().unwrap(), [0, 1, 2, 3]);
        for pod in spared {
            bed.pod(pod).kill().unwrap();
            bed.pod(pod).start().unwrap();
        }
        bed.wait_in_sync(LIMIT).unwrap();
        assert_eq!(keys(&bed), left, "{}", valkey.version);
    });
}

#[test]
fn slots_of_a_node_that_is_gone_are_not_given_away() {
    let bed = bed(3);
    bootstrap(&bed, &["--replicas", "0"]).expect(0, &[]);
    bed.pod(2).kill().unwrap();
    bed.pod(2).lose_disk().unwrap();
    bed.pod(2).start().unwrap();
    bootstrap(&bed, &["--replicas", "0", "--timeout", "2s"])
        .expect(76, &["the slots 10923-16383 belong to the node", "bring the node"]);
}

#[test]
fn missing_peers_are_named_one_by_one() {
    let bed = bed(4);
    bed.pod(1).kill().unwrap();
    bed.dns().pod_gone(bed.pod(3).name());
    let ended = bootstrap(&bed, &["--shards", "2", "--replicas", "1", "--timeout", "2s"]);
    ended.expect(
        69,
        &["peers are missing at the deadline", "valkey-1 (", "connection refused", "valkey-3 has no address in DNS"],
    );
    assert!(!ended.stderr.contains("valkey-0 has no") && !ended.stderr.contains("valkey-2 ("), "{ended}");
}

#[test]
fn silent_dns_is_exit_69_and_names_the_service() {
    let bed = bed(3);
    bed.dns().fault_all(Fault::ServFail);
    bootstrap(&bed, &["--replicas", "0", "--timeout", "2s"])
        .expect(69, &["valkey-0 has no address in DNS", "DNS gives no answer"]);
}

#[test]
fn a_run_that_is_out_of_time_says_so_and_a_rerun_goes_on() {
    let bed = bed(6);
    bootstrap(&bed, &["--timeout", "250ms"]).expect(75, &["the deadline is reached while", "run this again"]);
    for pod in 0..6 {
        let timeout: (String, u64) = cmd("CONFIG")
            .arg(["GET", "cluster-node-timeout"].as_slice())
            .query(&mut bed.connection(pod).unwrap())
            .unwrap();
        assert_eq!(timeout.1, 15_000, "lowered settings were put back before the end");
    }
    bootstrap(&bed, &[]).expect(0, &["the cluster stands"]);
    bed.cli_check(0).unwrap();
}

#[test]
fn a_wrong_password_is_told_apart_from_a_missing_peer() {
    let bed = Testbed::builder(&Valkey::newest())
        .pods(3)
        .config("requirepass", "right")
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .build()
        .unwrap();
    let run = |password: Option<&str>, timeout: &str| {
        let mut command = bed.valkeeper(&["bootstrap", "--replicas", "0", "--timeout", timeout]);
        command.env_remove("VALKEY_PASSWORD").envs(password.map(|password| ("VALKEY_PASSWORD", password)));
        Ended::of(&mut command, LIMIT).unwrap()
    };
    let wrong = run(Some("hunter2-secret"), "2s");
    wrong.expect(69, &["valkey-0 (", "does not let us in", "WRONGPASS"]);
    assert!(!wrong.to_string().contains("hunter2-secret"), "{wrong}");
    run(None, "2s").expect(69, &["does not let us in", "NOAUTH"]);
    run(Some("right"), "60s").expect(0, &[]);
}

#[test]
fn a_server_that_quotes_what_it_does_not_know_is_not_quoted() {
    let bed = Testbed::builder(&Valkey::newest())
        .pods(1)
        .config("rename-command", "AUTH \"\"")
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .build()
        .unwrap();
    let mut command =
        bed.valkeeper(&["bootstrap", "--shards", "1", "--replicas", "0", "--timeout", "2s", "--log-level", "trace"]);
    let ended = Ended::of(command.env("VALKEY_PASSWORD", "hunter2-secret"), LIMIT).unwrap();
    ended.expect(69, &["valkey-0 (", "does not let us in: it does not take AUTH"]);
    assert!(!ended.to_string().contains("hunter2-secret"), "{ended}");
}

#[test]
fn a_user_who_may_not_configure_is_told_so_at_once() {
    let bed = Testbed::builder(&Valkey::newest())
        .pods(1)
        .config("user", "keeper on >keeper-secret ~* &* +@all -config|set")
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .build()
        .unwrap();
    let mut command = bed.valkeeper(&["bootstrap", "--shards", "1", "--replicas", "0", "--username", "keeper"]);
    let ended = Ended::of(command.env("VALKEY_PASSWORD", "keeper-secret"), LIMIT).unwrap();
    ended.expect(64, &["not allowed: valkey-0 is named", "NOPERM", "`valkeeper acl`"]);
}

#[test]
fn wrong_usage_is_exit_64_and_says_what_is_wrong() {
    let bed = bed(1);
    for (args, text) in [
        (vec!["bootstrap", "--shards", "0"], "--shards"),
        (vec!["bootstrap", "--shards", "900", "--replicas", "1"], "1000 at most"),
        (vec!["bootstrap", "--timeout", "soon"], "write 30s"),
        (vec!["bootstrap", "--dns-server", "nowhere"], "ADDRESS:PORT"),
        (vec!["bootstrap", "--service", "no such/name"], "neither a DNS name nor an address"),
        (vec!["bootstrap", "--cluster-id", "a/b"], "--cluster-id"),
        (vec!["bootstrap", "--password-file", "/nonexistent/password"], "/nonexistent/password"),
        (vec!["bootstrap", "--username", "app"], "needs a password"),
        (vec!["no-such-command"], "no-such-command"),
    ] {
        let ended = Ended::of(&mut bed.valkeeper(&args), LIMIT).unwrap();
        ended.expect(64, &[text]);
    }
}
