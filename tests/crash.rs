//! A primary dies: somebody takes over at once, and what it comes back with never takes the place of better data.
//!
//! Nodes count as failed after 15 s, far longer than any test waits, so that Valkey's own failover is not what helps.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use testbed::redis::{Connection, cmd};
use testbed::{Builder, Pod, Report, Testbed, Valkey, Writer};

/// Two heirs that ask for votes in the same moment may both fail, and 8.0 then tries again after a minute.
const LIMIT: Duration = Duration::from_secs(120);

/// Sooner than Valkey's own failover could be. How soon exactly is for the bench `crashing` to say, on a machine that does
/// nothing else.
const BY_OUR_DOING: Duration = Duration::from_secs(5);

/// Replication does not wait for the replica: what a primary has acknowledged in its last loop may be unsent. One writer
/// that waits for each answer has one write under way, so few can be lost; to lose more would mean that an old copy won.
const UNREPLICATED: u64 = 5;

/// One test at a time: writers and servers take what processors there are, and pauses are measured.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pods under `run` that save nothing by themselves, and resynchronise without delay.
fn builder(valkey: &Valkey, pods: u8) -> Builder {
    Testbed::builder(valkey)
        .pods(pods)
        .config("save", "\"\"")
        .config("repl-diskless-sync-delay", "0")
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .supervised(true)
        .in_memory(true)
}

/// Three shards with one replica each.
fn cluster(valkey: &Valkey, args: &[&str]) -> Testbed {
    let bed = builder(valkey, 6).config("cluster-node-timeout", "15000").run_args(args).build().unwrap();
    bed.form(3, 1).unwrap();
    bed
}

/// The writers' own count of acknowledgements grows by that many in every shard.
fn go_on(bed: &Testbed, writer: &Writer, count: u64) {
    let mark = writer.mark();
    bed.wait_for("every shard to be written to", LIMIT, || {
        let report = writer.report_since(&mark);
        anyhow::ensure!(report.shards.iter().all(|shard| shard.acknowledged >= count), "{report}");
        Ok(Some(()))
    })
    .unwrap();
}

fn a_primary(bed: &Testbed) -> usize {
    bed.primaries().unwrap()[0]
}

/// Another pod than before serves as many shards, and everybody is in sync.
#[track_caller]
fn assert_follows(bed: &Testbed, pod: usize) {
    bed.wait_in_sync(LIMIT).unwrap();
    let primaries = bed.primaries().unwrap();
    assert!(!primaries.contains(&pod) && primaries.len() == 3, "{}: pod {pod}, {primaries:?}", bed.valkey().version);
}

/// While a writer writes: it soon goes on after that death, and nothing is lost but what was never sent.
#[track_caller]
fn assert_goes_on(bed: &Testbed, what: &str, death: impl FnOnce()) {
    let writer = Writer::start(bed).unwrap();
    go_on(bed, &writer, 100);
    death();
    go_on(bed, &writer, 100);
    let report = writer.stop();
    let (version, gap) = (&bed.valkey().version, report.longest_gap().length);
    println!("{version}: {what}: writes paused for {gap:.1?}");
    assert!(gap <= BY_OUR_DOING, "{version}: {what}: {report}");
    assert_kept(bed, &report);
}

/// Nothing was lost but what was never sent.
#[track_caller]
fn assert_kept(bed: &Testbed, report: &Report) {
    let lost = report.verify(bed).unwrap();
    println!("{}: {} of {} acknowledged writes lost", bed.valkey().version, lost.keys, lost.checked);
    assert!(lost.keys <= UNREPLICATED && lost.checked > 100, "{lost:?}\n{report}");
}

fn epochs(bed: &Testbed) -> Vec<String> {
    bed.pods().iter().map(|pod| bed.cluster_info(pod.ordinal()).unwrap()["cluster_current_epoch"].clone()).collect()
}

/// Keys that every replica holds before anything happens, in all shards.
fn known_keys(bed: &Testbed) -> Vec<String> {
    let mut primaries: Vec<Connection> =
        bed.primaries().unwrap().into_iter().map(|primary| bed.connection(primary).unwrap()).collect();
    let keys: Vec<String> = (0..60).map(|number| format!("known:{number}")).collect();
    for key in &keys {
        let set = |primary: &mut Connection| cmd("SET").arg(key).arg("kept").exec(primary).is_ok();
        assert!(primaries.iter_mut().any(set), "nobody takes {key}");
    }
    for primary in &mut primaries {
        let replicas: usize = cmd("WAIT").arg(1).arg(5000).query(primary).unwrap();
        assert_eq!(replicas, 1);
    }
    keys
}

/// Reads known keys from everybody while `story` is told. A server may say that it does not serve a key; that there is no
/// such key is a lie.
fn never_empty<T>(bed: &Testbed, keys: &[String], story: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut served, mut missing) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                for pod in bed.pods() {
                    let Ok(mut connection) = bed.connection(pod.ordinal()) else { continue };
                    for key in keys {
                        match cmd("GET").arg(key).query::<Option<String>>(&mut connection) {
                            Ok(Some(_)) => served += 1,
                            Ok(None) => missing.push(format!("{key} on {}", pod.name())),
                            Err(_) => {}
                        }
                    }
                }
            }
            (served, missing)
        });
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        over.store(true, Ordering::Relaxed);
        let (served, missing) = reader.join().unwrap();
        let told = told.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(
            served > 0 && missing.is_empty(),
            "{}: {served} reads, and not there: {missing:?}",
            bed.valkey().version
        );
        told
    })
}

/// All of them are there, on who serves them.
#[track_caller]
fn assert_all_there(bed: &Testbed, keys: &[String]) {
    let mut primaries: Vec<Connection> =
        bed.primaries().unwrap().into_iter().map(|primary| bed.connection(primary).unwrap()).collect();
    for key in keys {
        let get = |primary: &mut Connection| cmd("GET").arg(key).query::<Option<String>>(primary).ok();
        assert_eq!(
            primaries.iter_mut().find_map(get).flatten().as_deref(),
            Some("kept"),
            "{}: {key}",
            bed.valkey().version
        );
    }
}

#[test]
fn writes_go_on_at_once_when_the_server_or_the_pod_of_a_primary_is_killed_and_only_then() {
    let _alone = alone();
    for valkey in Valkey::all() {
        let bed = cluster(&valkey, &[]);
        let primary = a_primary(&bed);
        assert_goes_on(&bed, "server killed", || {
            bed.pod(primary).kill_server().unwrap();
            let status = bed.pod(primary).wait_end(LIMIT).unwrap();
            assert_eq!(status.code(), Some(128 + 9), "{}: {}", valkey.version, bed.pod(primary).run_log());
        });
        bed.pod(primary).start().unwrap();
        assert_follows(&bed, primary);

        let primary = bed.primaries().unwrap()[1];
        assert_goes_on(&bed, "pod killed", || {
            bed.pod(primary).kill().unwrap();
        });
        bed.pod(primary).start().unwrap();
        assert_follows(&bed, primary);

        assert_unmoved_by_what_is_no_death(&bed);
    }
}

/// A server that stands still, or throws its clients out, or has no room for any, is not dead.
fn assert_unmoved_by_what_is_no_death(bed: &Testbed) {
    let before = (epochs(bed), bed.primaries().unwrap());
    let primary = before.1[0];
    let replica = replica_of(bed, primary);
    // Time itself is what is tested here: for as long as this, nothing happens. Each watcher looks once a second.
    let stands_still = Duration::from_millis(1200);
    for pod in [primary, replica] {
        bed.pod(pod).pause().unwrap();
        thread::sleep(stands_still);
        bed.pod(pod).resume().unwrap();
    }
    for pod in [primary, replica] {
        signal(bed.pod(pod), "-STOP");
    }
    thread::sleep(stands_still);
    for pod in [primary, replica] {
        signal(bed.pod(pod), "-CONT");
    }
    let mut connection = bed.connection(primary).unwrap();
    for _ in 0..3 {
        cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut connection).unwrap();
    }
    cmd("CONFIG").arg(&["SET", "maxclients", "1"]).exec(&mut connection).unwrap();
    cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut connection).unwrap();
    thread::sleep(stands_still);
    cmd("CONFIG").arg(&["SET", "maxclients", "1000"]).exec(&mut connection).unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    assert_eq!((epochs(bed), bed.primaries().unwrap()), before, "{}", bed.valkey().version);
}

/// A signal to `run` alone.
fn signal(pod: &Pod, what: &str) {
    let pid = pod.pid().unwrap().to_string();
    assert!(std::process::Command::new("kill").args([what, &pid]).status().unwrap().success());
}

/// The pod that copies this one.
fn replica_of(bed: &Testbed, primary: usize) -> usize {
    let nodes = bed.cluster_nodes(primary).unwrap();
    let own = nodes.lines().find(|line| line.contains("myself")).unwrap().split(' ').next().unwrap();
    let replica = nodes.lines().find(|line| line.split(' ').nth(3) == Some(own)).unwrap();
    let address = replica.split(' ').nth(1).unwrap().split(':').next().unwrap();
    bed.pods().iter().find(|pod| pod.addr().to_string() == address).unwrap().ordinal()
}

#[test]
fn told_to_wait_it_leaves_a_dead_primary_to_valkeys_own_failover() {
    let _alone = alone();
    for valkey in Valkey::all() {
        let node_timeout = Duration::from_secs(2);
        let bed = builder(&valkey, 6)
            .config("cluster-node-timeout", "2000")
            .run_args(&["--on-primary-lost", "wait"])
            .build()
            .unwrap();
        bed.form(3, 1).unwrap();
        let writer = Writer::start(&bed).unwrap();
        let primary = a_primary(&bed);
        let mark = writer.mark();
        bed.pod(primary).kill_server().unwrap();
        bed.pod(primary).wait_end(LIMIT).unwrap();
        go_on(&bed, &writer, 100);
        let gap = writer.report_since(&mark).longest_gap().length;
        println!("{}: Valkey's own failover: writes paused for {gap:.1?}", valkey.version);
        // It takes a node for failed when half of that has passed twice, counted from a ping that may be a little older.
        assert!(gap > node_timeout / 2, "{}: {gap:?}", valkey.version);
        bed.pod(primary).start().unwrap();
        assert_follows(&bed, primary);
    }
}

#[test]
fn of_two_replicas_one_takes_over_every_time() {
    let _alone = alone();
    let valkey = Valkey::newest();
    let bed = builder(&valkey, 9)
        .config("cluster-node-timeout", "15000")
        .run_args(&["--shards", "3", "--replicas", "2"])
        .build()
        .unwrap();
    bed.form(3, 2).unwrap();
    for time in 0..10 {
        let primary = bed.primaries().unwrap()[time % 3];
        let what = format!("of two replicas, time {time}");
        if time % 2 == 0 {
            assert_goes_on(&bed, &what, || {
                bed.pod(primary).kill().unwrap();
            });
        } else {
            assert_goes_on(&bed, &what, || {
                bed.pod(primary).kill_server().unwrap();
                bed.pod(primary).wait_end(LIMIT).unwrap();
            });
        }
        bed.pod(primary).start().unwrap();
        assert_follows(&bed, primary);
    }
}

#[test]
fn a_primary_without_persistence_that_restarts_at_once_comes_back_as_a_replica_and_no_key_is_lost() {
    let _alone = alone();
    for valkey in Valkey::all() {
        for on_lost in ["failover", "wait"] {
            let bed = cluster(&valkey, &["--on-primary-lost", on_lost]);
            let keys = known_keys(&bed);
            never_empty(&bed, &keys, || {
                let primary = bed.primaries().unwrap()[0];
                let writer = Writer::start(&bed).unwrap();
                go_on(&bed, &writer, 100);
                bed.pod(primary).restart_at_once().unwrap();
                go_on(&bed, &writer, 100);
                assert_kept(&bed, &writer.stop());
                assert_follows(&bed, primary);
            });
            assert_all_there(&bed, &keys);
            never_empty(&bed, &keys, || {
                let primary = bed.primaries().unwrap()[1];
                bed.pod(primary).lose_disk().unwrap();
                bed.pod(primary).spawn().unwrap();
                assert_follows(&bed, primary);
            });
            assert_all_there(&bed, &keys);
            never_empty(&bed, &keys, || {
                let primary = bed.primaries().unwrap()[2];
                let old = old_rdb(&bed);
                bed.pod(primary).kill().unwrap();
                fs::write(bed.pod(primary).dir().join("dump.rdb"), old).unwrap();
                bed.pod(primary).spawn().unwrap();
                assert_follows(&bed, primary);
            });
            assert_all_there(&bed, &keys);
            for pod in bed.pods() {
                let left: Vec<String> =
                    cmd("KEYS").arg(format!("{OLD}*")).query(&mut bed.connection(pod.ordinal()).unwrap()).unwrap();
                assert!(left.is_empty(), "{}: {} has old keys: {left:?}", valkey.version, pod.name());
            }
        }
    }
}

/// How keys begin that nobody has any more.
const OLD: &str = "old:";

/// What an RDB file holds that was written ten minutes ago, with keys of all slots' shards that nobody has any more.
fn old_rdb(bed: &Testbed) -> Vec<u8> {
    let dir = bed.dir().join("old");
    fs::create_dir_all(&dir).unwrap();
    let options = testbed::ServerOptions {
        valkey: bed.valkey().clone(),
        addr: bed.subnet().host(220).into(),
        port: 6379,
        dir: dir.clone(),
        config: [("cluster-enabled", "no"), ("rdbchecksum", "no")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    };
    let mut server = testbed::Server::start(options).unwrap();
    server.wait_ready(LIMIT).unwrap();
    let client = testbed::redis::Client::open(format!("redis://{}:6379", bed.subnet().host(220))).unwrap();
    let mut connection = client.get_connection().unwrap();
    for number in 0..60 {
        cmd("SET").arg(format!("{OLD}{number}")).arg("gone").exec(&mut connection).unwrap();
    }
    cmd("SAVE").exec(&mut connection).unwrap();
    server.stop().unwrap();
    let mut rdb = fs::read(dir.join("dump.rdb")).unwrap();
    // When it was begun stands in it, as a number of four bytes.
    let name = b"\xfa\x05ctime\xc2";
    let at = rdb.windows(name.len()).position(|bytes| bytes == name).unwrap() + name.len();
    let begun: [u8; 4] = rdb[at..at + 4].try_into().unwrap();
    rdb[at..at + 4].copy_from_slice(&(u32::from_le_bytes(begun) - 600).to_le_bytes());
    rdb
}

#[test]
fn when_everything_restarts_at_once_nobody_waits_for_another_and_what_was_saved_is_there() {
    let _alone = alone();
    for valkey in Valkey::all() {
        let bed = cluster(&valkey, &["--handover-timeout", "30s"]);
        let keys = known_keys(&bed);
        for pod in bed.pods() {
            cmd("SAVE").exec(&mut bed.connection(pod.ordinal()).unwrap()).unwrap();
        }
        for pod in bed.pods() {
            pod.kill().unwrap();
        }
        let started = Instant::now();
        for pod in bed.pods() {
            pod.spawn().unwrap();
        }
        bed.wait_in_sync(LIMIT).unwrap();
        let took = started.elapsed();
        println!("{}: all restarted in {took:.1?}", valkey.version);
        for pod in bed.pods() {
            let log = pod.run_log();
            assert!(!log.contains("data may be lost") && !log.contains("nobody is known"), "{}: {log}", valkey.version);
        }
        assert_all_there(&bed, &keys);
    }
}

/// A replica whose primary has died, and which then does not know our password any more, holds what its primary has lost.
#[test]
fn a_primary_waits_for_a_replica_that_does_not_let_it_in_and_the_others_replace_it_meanwhile() {
    let _alone = alone();
    for valkey in Valkey::all() {
        let bed = builder(&valkey, 6)
            .config("requirepass", "same")
            .config("cluster-node-timeout", "5000")
            .run_args(&["--handover-timeout", "1s", "--on-primary-lost", "wait"])
            .build()
            .unwrap();
        bed.form(3, 1).unwrap();
        let keys = known_keys(&bed);
        let primary = a_primary(&bed);
        let old = old_rdb(&bed);
        let replica = bed.pod(replica_of(&bed, primary));
        let mut connection = bed.connection(replica.ordinal()).unwrap();
        let mut password = |is| cmd("CONFIG").arg(&["SET", "requirepass", is]).exec(&mut connection).unwrap();
        // Its own `run` would put it right.
        signal(replica, "-STOP");
        password("another");
        bed.pod(primary).kill().unwrap();
        fs::write(bed.pod(primary).dir().join("dump.rdb"), old).unwrap();
        bed.pod(primary).spawn().unwrap();
        bed.wait_for("the others to replace it", LIMIT, || {
            Ok(bed.pod(primary).run_log().contains("owns the slots of this node by now").then_some(()))
        })
        .unwrap();
        let log = bed.pod(primary).run_log();
        let told = "WARN wait before the start: a replica may hold better data";
        assert!(log.contains(told) && log.contains("give all pods the same password"), "{log}");
        password("same");
        signal(replica, "-CONT");
        assert_follows(&bed, primary);
        assert_all_there(&bed, &keys);
    }
}

#[test]
fn when_all_primaries_die_at_once_their_replicas_take_over_and_nobody_serves_empty_data() {
    let _alone = alone();
    for valkey in Valkey::all() {
        let bed = cluster(&valkey, &["--handover-timeout", "2s"]);
        let keys = known_keys(&bed);
        let primaries = bed.primaries().unwrap();
        never_empty(&bed, &keys, || {
            thread::scope(|scope| {
                for primary in &primaries {
                    scope.spawn(|| bed.pod(*primary).kill().unwrap());
                }
            });
            let started = Instant::now();
            for primary in &primaries {
                bed.pod(*primary).spawn().unwrap();
            }
            for primary in &primaries {
                assert_follows(&bed, *primary);
            }
            println!("{}: all primaries replaced in {:.1?}", valkey.version, started.elapsed());
        });
        assert_all_there(&bed, &keys);
        for primary in &primaries {
            let settings =
                ["repl-diskless-sync", "repl-diskless-sync-delay", "min-replicas-to-write", "min-replicas-max-lag"];
            bed.wait_for("the settings to be put back", LIMIT, || {
                let found: std::collections::BTreeMap<String, String> =
                    cmd("CONFIG").arg("GET").arg(&settings).query(&mut bed.connection(*primary)?)?;
                let found = settings.map(|name| found[name].clone());
                anyhow::ensure!(found == ["yes", "0", "0", "10"], "{found:?}");
                Ok(Some(()))
            })
            .unwrap();
        }
    }
}

/// Where there are no other primaries, nobody can elect the heir but the one that died.
#[test]
fn in_a_cluster_of_one_shard_the_dead_primary_comes_back_and_votes_for_its_heir() {
    let _alone = alone();
    for valkey in Valkey::all() {
        let args = ["--shards", "1", "--handover-timeout", "5s"];
        let bed = builder(&valkey, 2).config("cluster-node-timeout", "15000").run_args(&args).build().unwrap();
        bed.form(1, 1).unwrap();
        let keys = known_keys(&bed);
        let primary = a_primary(&bed);
        never_empty(&bed, &keys, || {
            bed.pod(primary).kill().unwrap();
            bed.pod(primary).spawn().unwrap();
            bed.wait_for("the heir to serve", LIMIT, || Ok((bed.primaries()? == [1 - primary]).then_some(()))).unwrap();
        });
        bed.wait_in_sync(LIMIT).unwrap();
        assert_all_there(&bed, &keys);
    }
}
