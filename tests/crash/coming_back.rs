//! What a dead primary comes back with, and what becomes of better data.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testbed::redis::{Connection, cmd};
use testbed::{Pod, Testbed, Valkey, Writer};

use super::{LIMIT, a_primary, alone, assert_follows, assert_kept, builder, cluster, go_on, replica_of, signal};

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
        let read = |pod: &Pod| {
            let (mut served, mut missing) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                let Ok(mut connection) = bed.connection(pod.ordinal()) else { continue };
                for key in keys {
                    match cmd("GET").arg(key).query::<Option<String>>(&mut connection) {
                        Ok(Some(_)) => served += 1,
                        Ok(None) => missing.push(format!("{key} on {}", pod.name())),
                        // What answers late would be taken for the answer to the next question.
                        Err(error) if error.is_io_error() => break,
                        Err(_) => {}
                    }
                }
            }
            (served, missing)
        };
        let readers: Vec<_> = bed.pods().iter().map(|pod| scope.spawn(move || read(pod))).collect();
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        over.store(true, Ordering::Relaxed);
        let read: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        let served: u64 = read.iter().map(|(served, _)| served).sum();
        let missing: Vec<_> = read.into_iter().flat_map(|(_, missing)| missing).collect();
        let told = told.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(
            served > 0 && missing.is_empty(),
            "{}: {served} reads, and not there: {missing:?}",
            bed.valkey().version
        );
        told
    })
}

/// As good as in one moment.
fn kill_all(bed: &Testbed, pods: &[usize]) {
    thread::scope(|scope| {
        for pod in pods {
            scope.spawn(|| bed.pod(*pod).kill().unwrap());
        }
    });
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
        let bed = cluster(&valkey, &["--handover-timeout", "30s"]);
        let keys = known_keys(&bed);
        let primaries = bed.primaries().unwrap();
        never_empty(&bed, &keys, || {
            kill_all(&bed, &primaries);
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

/// What a start held back is for has to hold for as long as it takes, and not only for the seconds that it takes mostly.
#[test]
fn when_all_primaries_die_and_their_replicas_hang_nobody_serves_empty_data_until_these_take_over() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let bed = cluster(valkey, &["--handover-timeout", "30s"]);
        let keys = known_keys(&bed);
        let primaries = bed.primaries().unwrap();
        let replicas: Vec<_> = bed.pods().iter().filter(|pod| !primaries.contains(&pod.ordinal())).collect();
        never_empty(&bed, &keys, || {
            kill_all(&bed, &primaries);
            for primary in &primaries {
                bed.pod(*primary).spawn().unwrap();
            }
            bed.wait_for("them to be started", LIMIT, || {
                let is_started = |pod: &usize| bed.pod(*pod).run_log().contains("start the server");
                Ok(primaries.iter().all(is_started).then_some(()))
            })
            .unwrap();
            let is_held_back = |pod: &usize| bed.pod(*pod).run_log().contains("data may be lost");
            assert!(primaries.iter().any(is_held_back), "{}", valkey.version);
            for replica in &replicas {
                replica.pause().unwrap();
            }
            // It is for the first two seconds that a server serves nobody by itself.
            thread::sleep(Duration::from_secs(5));
            // One that is held back has nothing to save, and answers nobody while it leaves either.
            let leaving = bed.pod(primaries[0]);
            leaving.terminate().unwrap();
            let ended = leaving.wait_end(Duration::from_secs(15)).unwrap();
            assert!(ended.success(), "{}: {ended}: {}", valkey.version, leaving.run_log());
            leaving.spawn().unwrap();
            thread::sleep(Duration::from_secs(3));
            // 8.0 tries again after a minute where two are elected at once.
            for replica in &replicas {
                replica.resume().unwrap();
                thread::sleep(Duration::from_secs(2));
            }
            for primary in &primaries {
                assert_follows(&bed, *primary);
            }
        });
        assert_all_there(&bed, &keys);
    });
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
