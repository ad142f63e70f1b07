//! The guarded start over what a real primary left on its disk, with what its real replica says.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use testbed::redis::{Connection, cmd};
use testbed::{Server, ServerOptions, Testbed, Valkey};
use valkeeper::config::Credentials;
use valkeeper::datadir::{look, read_config};
use valkeeper::topology::observation::NodeReport;
use valkeeper::topology::parse::Arguments;
use valkeeper::topology::start::{Attempts, Former, Heard, NodesConf, Said, StartDecision, decide, decide_blank};
use valkeeper::valkey::{Candidate, Door, Fleet};

const LIMIT: Duration = Duration::from_secs(30);

fn cluster(bed: &Testbed, pod: usize, args: &[&str]) -> testbed::redis::RedisResult<testbed::redis::Value> {
    cmd("CLUSTER").arg(args).query(&mut bed.connection(pod).unwrap())
}

fn address(bed: &Testbed, pod: usize) -> SocketAddr {
    SocketAddr::new(bed.pod(pod).addr().into(), bed.pod(pod).port())
}

fn report(bed: &Testbed, pod: usize) -> anyhow::Result<NodeReport> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let candidate = Candidate { pod: None, address: address(bed, pod) };
    let peer = runtime.block_on(Fleet::new(Credentials::default()).observe(&[candidate])).remove(0);
    peer.answer.map(|report| *report).map_err(|silence| anyhow::anyhow!("{silence}"))
}

/// A primary with a key, in pod 0, and its replica in pod 1, in sync; neither saves by itself.
fn shard(valkey: &Valkey) -> Testbed {
    let bed = Testbed::builder(valkey).pods(2).config("repl-diskless-sync-delay", "0").build().unwrap();
    cluster(&bed, 0, &["ADDSLOTSRANGE", "0", "16383"]).unwrap();
    cluster(&bed, 1, &["MEET", &bed.pod(0).addr().to_string(), "6379"]).unwrap();
    let primary = report(&bed, 0).unwrap().id().to_string();
    bed.wait_for("the replica to know its primary", LIMIT, || Ok(cluster(&bed, 1, &["REPLICATE", &primary]).ok()))
        .unwrap();
    bed.wait_for("the node to take writes", LIMIT, || {
        Ok(cmd("SET").arg("key").arg("value").query::<()>(&mut bed.connection(0)?).ok())
    })
    .unwrap();
    bed.wait_for("the replica to hold the key", LIMIT, || {
        let report = report(&bed, 1)?;
        let link = report.replication.link.ok_or_else(|| anyhow::anyhow!("no replica yet"))?;
        Ok((report.keys == 1 && link.up && link.down_for.is_none()).then_some(()))
    })
    .unwrap();
    bed
}

fn decision(bed: &Testbed) -> StartDecision {
    let dir = bed.pod(0).dir().to_str().unwrap().to_owned();
    let config = read_config(&Arguments::parse(&["--dir", &dir, "--cluster-enabled", "yes"]), b"").unwrap();
    let disk = look(&config).unwrap();
    let heard = heard(bed);
    let attempts =
        Attempts { waited: Duration::ZERO, limit: LIMIT, asked: &[], runs: false, answers_for: Duration::ZERO };
    match &disk.nodes_conf {
        NodesConf::Nodes(nodes) => decide(&Former::of(nodes).unwrap(), disk.loaded(&config), &heard, &attempts),
        _ => decide_blank(address(bed, 0), &heard, &attempts),
    }
}

fn heard(bed: &Testbed) -> Vec<Heard> {
    let said = report(bed, 1).map_or(Said::Absent, |report| Said::Report(Box::new(report)));
    vec![Heard { address: address(bed, 1), said }]
}

/// It would be asked, were anybody left to elect it.
#[track_caller]
fn assert_knows_who_holds_better_data(bed: &Testbed) {
    let decision = decision(bed);
    let replica = report(bed, 1).unwrap().id();
    let expected = format!("{} holds better data and cannot be elected: 0 of 1 primaries can vote", replica.short());
    assert!(matches!(decision, StartDecision::Wait(_)) && decision.reason() == expected, "{decision}");
}

#[test]
fn the_replica_of_a_killed_primary_holds_better_data_than_its_disk() {
    for valkey in Valkey::all() {
        let bed = shard(&valkey);
        let offset = report(&bed, 1).unwrap().replication.offset;
        bed.pod(0).kill().unwrap();
        let link = bed
            .wait_for("the replica to notice", LIMIT, || Ok(report(&bed, 1)?.replication.link.filter(|link| !link.up)))
            .unwrap();
        assert!(link.down_for.is_some_and(|down_for| down_for < LIMIT), "{}: {link:?}", valkey.version);
        assert!(report(&bed, 1).unwrap().replication.offset >= offset, "{}: the offset stays", valkey.version);
        assert_knows_who_holds_better_data(&bed);

        bed.pod(0).lose_disk().unwrap();
        assert_knows_who_holds_better_data(&bed);
    }
}

#[test]
fn a_replica_that_was_restarted_after_its_primary_holds_nothing_better() {
    for valkey in Valkey::all() {
        let bed = shard(&valkey);
        for pod in [0, 1] {
            cmd("SAVE").query::<()>(&mut bed.connection(pod).unwrap()).unwrap();
        }
        bed.pod(0).kill().unwrap();
        bed.pod(1).kill().unwrap();
        let decision_of_all = decision(&bed);
        assert!(matches!(decision_of_all, StartDecision::Go(_)), "nobody is up: {decision_of_all}");

        bed.pod(1).start().unwrap();
        let replica = report(&bed, 1).unwrap();
        assert_eq!((replica.keys, replica.replication.link.unwrap().down_for), (1, None), "{}", valkey.version);
        let restarted = decision(&bed);
        assert!(
            matches!(restarted, StartDecision::Go(_)) && restarted.to_string().contains("not been in sync"),
            "{}: {restarted}",
            valkey.version
        );
    }
}

#[test]
fn a_promoted_replica_is_seen_to_own_the_slots() {
    for valkey in Valkey::all() {
        let bed = shard(&valkey);
        // The disk of pod 0 as it was left by one that did not live to see it.
        let before = fs::read(bed.pod(0).nodes_conf()).unwrap();
        cluster(&bed, 1, &["FAILOVER"]).unwrap();
        bed.wait_for("the replica to take over", LIMIT, || {
            Ok(report(&bed, 1)?.myself().role.is_primary().then_some(()))
        })
        .unwrap();
        bed.pod(0).kill().unwrap();
        fs::write(bed.pod(0).nodes_conf(), before).unwrap();
        let decision = decision(&bed);
        let said = decision.to_string().contains("owns the slots of this node");
        assert!(matches!(decision, StartDecision::Go(_)) && said, "{}: {decision}", valkey.version);
    }
}

/// The pod's disk as a server of this version leaves it that was a primary with a key.
fn left_behind(bed: &Testbed, valkey: &Valkey) {
    let options = ServerOptions { valkey: valkey.clone(), config: Vec::new(), ..bed.pod(0).options() };
    let mut server = Server::start(options).unwrap();
    server.wait_ready(LIMIT).unwrap();
    cluster(bed, 0, &["ADDSLOTSRANGE", "0", "16383"]).unwrap();
    bed.wait_for("the node to take writes", LIMIT, || {
        Ok(cmd("SET").arg("key").arg("value").exec(&mut bed.connection(0)?).ok())
    })
    .unwrap();
    cmd("SAVE").exec(&mut bed.connection(0).unwrap()).unwrap();
    server.kill().unwrap();
}

fn files(bed: &Testbed) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(bed.pod(0).dir()).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_none_or(|end| end != "log"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// `run` does not start the server over this disk, says why and what to do, and leaves it as it is.
#[track_caller]
fn assert_refused(bed: &Testbed, texts: &[&str]) {
    let before = files(bed);
    assert!(before.keys().any(|path| path.ends_with("dump.rdb")), "{:?}", before.keys());
    bed.pod(0).spawn().unwrap();
    let status = bed.pod(0).wait_end(LIMIT).unwrap();
    let log = bed.pod(0).run_log();
    assert_eq!(status.code(), Some(76), "{log}");
    for text in texts {
        assert!(log.contains(text), "no {text:?} in {log}");
    }
    assert!(files(bed) == before, "the disk was touched: {:?}", files(bed).keys());
}

fn supervised(valkey: &Valkey) -> testbed::Builder {
    Testbed::builder(valkey).binary(env!("CARGO_BIN_EXE_valkeeper")).supervised(true).start_servers(false)
}

#[test]
fn run_starts_no_server_that_would_ignore_delete_or_not_understand_what_is_on_its_disk() {
    let newest = Valkey::newest();
    for valkey in Valkey::all() {
        let bed = supervised(&valkey).config("appendonly", "yes").build().unwrap();
        left_behind(&bed, &valkey);
        assert_refused(&bed, &["dump.rdb", "start with no key", "--aof-from-rdb"]);

        let bed = supervised(&valkey).build().unwrap();
        left_behind(&bed, &valkey);
        fs::remove_file(bed.pod(0).nodes_conf()).unwrap();
        assert_refused(&bed, &["nodes.conf", "delete every key", "joins as an empty one"]);

        if valkey.version == "8.0" && newest.version == "9.1" {
            let bed = supervised(&valkey).build().unwrap();
            left_behind(&bed, &newest);
            assert_refused(&bed, &["which Valkey 8.0.", "does not read", "or a newer one"]);
        }
    }
}

#[test]
fn a_shut_door_lets_nobody_in_but_us_until_it_is_opened() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for valkey in Valkey::all() {
        let bed = Testbed::builder(&valkey).pods(1).config("maxclients", "50").build().unwrap();
        let ask = |connection: &mut Connection| cmd("PING").query::<String>(connection);
        let mut inside = bed.connection(0).unwrap();
        ask(&mut inside).unwrap();
        let shut = || runtime.block_on(Door::shut(address(&bed, 0), &Credentials::default(), LIMIT));
        let mut door = shut().unwrap();

        assert!(ask(&mut inside).is_err(), "{}: who was in is thrown out", valkey.version);
        for _ in 0..20 {
            let answer = bed.connection(0).and_then(|mut connection| Ok(ask(&mut connection)?));
            assert!(answer.is_err(), "{}: {answer:?}", valkey.version);
        }
        assert!(shut().is_err(), "{}: shut twice", valkey.version);
        assert_eq!(runtime.block_on(door.owns_slots()).unwrap(), Some(false), "{}", valkey.version);

        assert!(runtime.block_on(door.open()).unwrap(), "{}", valkey.version);
        let mut connection = bed.connection(0).unwrap();
        let limit: [String; 2] = cmd("CONFIG").arg("GET").arg("maxclients").query(&mut connection).unwrap();
        assert_eq!(limit[1], "50", "{}", valkey.version);
    }
}
