//! A cluster under `run` grows by two shards, shrinks back and grows again, as its StatefulSet would: pods are added, join
//! by themselves and get slots; they are emptied, taken away, and forgotten; they come back with their old volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testbed::redis::cmd;
use testbed::{Ended, Testbed, Valkey, http_get};
use valkeeper::topology::{NodeId, Role, SLOT_COUNT, View, parse};

const LIMIT: Duration = Duration::from_secs(60);
/// For so long a forgotten node is forgotten again by whoever hears of it from one that remembers.
const BAN: Duration = Duration::from_secs(60);
const KEYS: usize = 300;
const PORT: u16 = 8080;

fn view(bed: &Testbed, pod: usize) -> Result<View> {
    let view = View::new(parse::nodes(&bed.cluster_nodes(pod)?)?);
    view.ok_or_else(|| anyhow::anyhow!("{} does not name itself", bed.pod(pod).name()))
}

/// In the eyes of each of these pods they are the whole cluster, ok, with so many primaries of one replica each.
fn stands(bed: &Testbed, pods: std::ops::Range<usize>, shards: usize) -> Result<()> {
    let views: Vec<View> = pods.clone().map(|pod| view(bed, pod)).collect::<Result<_>>()?;
    let ids: BTreeSet<NodeId> = views.iter().map(|view| view.myself().id).collect();
    for (pod, view) in pods.zip(&views) {
        let name = bed.pod(pod).name();
        let known: BTreeSet<NodeId> = view.entries().iter().map(|node| node.id).collect();
        ensure!(known == ids, "{name} knows {known:?}, and there are {ids:?}");
        ensure!(view.others().all(|node| !node.is_lost()), "{name} does not reach everybody");
        ensure!(bed.cluster_info(pod)?["cluster_state"] == "ok", "{name} does not say ok");
        let primaries: Vec<_> = view.entries().iter().filter(|node| node.role.is_primary()).collect();
        ensure!(primaries.len() == shards, "{name} sees {} primaries", primaries.len());
        for primary in primaries {
            let role = Role::Replica(Some(primary.id));
            let replicas = view.entries().iter().filter(|node| node.role == role).count();
            ensure!(replicas == 1, "{name} sees {replicas} replicas of {:?}", primary.id);
        }
    }
    Ok(())
}

#[track_caller]
fn wait_stands(bed: &Testbed, pods: std::ops::Range<usize>, shards: usize) {
    wait_stands_within(LIMIT, bed, pods, shards);
}

#[track_caller]
fn wait_stands_within(limit: Duration, bed: &Testbed, pods: std::ops::Range<usize>, shards: usize) {
    bed.wait_for("the cluster to be whole", limit, || stands(bed, pods.clone(), shards).map(Some)).unwrap();
}

/// The pod says ok and has the data of its primary, if it has one.
fn in_step(bed: &Testbed, pod: usize) -> Result<()> {
    let replication: String = cmd("INFO").arg("replication").query(&mut bed.connection(pod)?)?;
    let follows = replication.contains("role:master") || replication.contains("master_link_status:up");
    ensure!(follows && bed.cluster_info(pod)?["cluster_state"] == "ok", "{replication}");
    Ok(())
}

/// How many slots each primary owns.
fn slots(bed: &Testbed) -> Vec<usize> {
    let view = view(bed, 0).unwrap();
    let primaries = view.entries().iter().filter(|node| node.role.is_primary());
    primaries.map(|primary| primary.slot_set().len()).collect()
}

/// The keys of the primaries, all pods asked.
fn keys(bed: &Testbed, pods: std::ops::Range<usize>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for pod in pods {
        if view(bed, pod).unwrap().myself().role.is_primary() {
            let names: Vec<String> = cmd("KEYS").arg("*").query(&mut bed.connection(pod).unwrap()).unwrap();
            names.into_iter().for_each(|name| *found.entry(name).or_default() += 1);
        }
    }
    found
}

fn setting(bed: &Testbed, pod: usize, name: &str) -> String {
    let found = cmd("CONFIG").arg("GET").arg(name).query::<BTreeMap<String, String>>(&mut bed.connection(pod).unwrap());
    found.unwrap().remove(name).unwrap()
}

/// Four pods that are to be four primaries, three of which are a cluster with keys. The fourth has not been started.
fn three_of_four(flags: &[&str]) -> Testbed {
    let bed = Testbed::builder(&Valkey::newest())
        .pods(4)
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .in_memory(true)
        .supervised(true)
        .start_servers(false)
        .build()
        .unwrap();
    for pod in bed.pods() {
        let listen = format!("{}:{PORT}", pod.addr());
        pod.set_run_args(&[&["--shards", "4", "--replicas", "0", "--listen", &listen], flags].concat());
    }
    (0..3).for_each(|pod| bed.pod(pod).start().unwrap());
    let form = ["bootstrap", "--shards", "3", "--replicas", "0"];
    Ended::of(&mut bed.valkeeper(&form), LIMIT).unwrap().expect(0, &[]);
    (0..3).for_each(|pod| testbed::fill(&bed, pod, 100, 100).map(drop).unwrap());
    bed
}

#[test]
fn with_auto_rebalance_a_new_shard_fills_by_itself() {
    let bed = three_of_four(&["--auto-rebalance"]);
    let before = keys(&bed, 0..3);
    bed.pod(3).start().unwrap();
    bed.wait_for("slots to be even", LIMIT, || {
        let slots = slots(&bed);
        ensure!(slots == [usize::from(SLOT_COUNT) / 4; 4], "{slots:?}");
        Ok(Some(()))
    })
    .unwrap();
    assert_eq!(keys(&bed, 0..4), before, "each key once");
}

/// How often each pod has looked at the whole cluster, where all find it as it is to be.
fn rounds_converged(bed: &Testbed) -> Result<Vec<u64>> {
    let rounds = |pod: &testbed::Pod| {
        let (_, text) = http_get((pod.addr(), PORT).into(), "/metrics")?;
        let is_there = |line| text.lines().any(|other| other == line);
        ensure!(is_there("valkeeper_reconciliation_state{state=\"converged\"} 1"), "{}: {text}", pod.name());
        let rounds = text.lines().find_map(|line| line.strip_prefix("valkeeper_reconciliation_rounds_total "));
        Ok(rounds.context("no rounds")?.parse()?)
    };
    bed.pods().iter().map(rounds).collect()
}

#[test]
fn without_auto_rebalance_a_new_shard_stays_empty() {
    let bed = three_of_four(&[]);
    let owners = || {
        let view = view(&bed, 0).unwrap();
        let owners = view.entries().iter().filter(|node| node.owns_slots());
        owners.map(|owner| (owner.id, owner.slots.clone())).collect::<BTreeMap<_, _>>()
    };
    let before = (owners(), keys(&bed, 0..3));
    bed.pod(3).start().unwrap();
    let first = bed.wait_for("all to be converged", LIMIT, || rounds_converged(&bed).map(Some)).unwrap();
    bed.wait_for("all to have looked twice more", LIMIT, || {
        let rounds = rounds_converged(&bed)?;
        Ok(rounds.iter().zip(&first).all(|(now, then)| *now >= then + 2).then_some(()))
    })
    .unwrap();
    assert_eq!((owners(), keys(&bed, 0..4)), before);
}

#[test]
fn pods_that_are_added_join_and_get_slots_and_those_that_are_emptied_can_go_and_come_back() {
    Valkey::each(Valkey::all(), |valkey| {
        let bed = Testbed::builder(valkey)
            .pods(10)
            .binary(env!("CARGO_BIN_EXE_valkeeper"))
            .in_memory(true)
            .config("repl-diskless-sync-delay", "0")
            .supervised(true)
            .run_args(&["--shards", "3", "--replicas", "1"])
            .start_servers(false)
            .build()
            .unwrap();
        let valkeeper = |args: &[&str]| Ended::of(&mut bed.valkeeper(args), LIMIT).unwrap();
        (0..6).for_each(|pod| bed.pod(pod).start().unwrap());
        valkeeper(&["bootstrap", "--shards", "3", "--replicas", "1"]).expect(0, &[]);
        wait_stands(&bed, 0..6, 3);
        for pod in 0..3 {
            testbed::fill(&bed, pod, u64::try_from(KEYS / 3).unwrap(), 100).unwrap();
        }
        let before = keys(&bed, 0..6);
        assert_eq!(before.len(), KEYS);

        // The new pods have the new shape, the old ones still the one of before.
        (6..10).for_each(|pod| bed.pod(pod).set_run_args(&["--shards", "5", "--replicas", "1"]));
        (6..10).for_each(|pod| bed.pod(pod).start().unwrap());
        wait_stands(&bed, 0..10, 5);
        assert_eq!(slots(&bed).into_iter().filter(|slots| *slots == 0).count(), 2, "{}", valkey.version);
        valkeeper(&["rebalance"]).expect(0, &[]);
        let even = usize::from(SLOT_COUNT) / 5;
        assert!(slots(&bed).iter().all(|slots| slots.abs_diff(even) <= 1), "{:?}", slots(&bed));
        wait_stands(&bed, 0..10, 5);
        assert_eq!(keys(&bed, 0..10), before, "{}: each key once", valkey.version);

        let leaving = ["valkey-6", "valkey-7", "valkey-8", "valkey-9"];
        let evacuate = [&["evacuate", "--shards", "3"], &leaving[..]].concat();
        let roles = || [6, 7, 8, 9].map(|pod| view(&bed, pod).unwrap().myself().role);
        let grown = roles();
        valkeeper(&evacuate).expect(0, &[]);
        valkeeper(&evacuate).expect(0, &[]);
        for pod in 6..10 {
            assert!(view(&bed, pod).unwrap().myself().slots.is_empty(), "{}: {pod}", valkey.version);
            let follows = setting(&bed, pod, "cluster-allow-replica-migration");
            assert_eq!(follows, "yes", "{}: it is put back", valkey.version);
        }
        assert_eq!(roles(), grown, "{}: shards that leave whole stay shards", valkey.version);
        for pod in (6..10).rev() {
            bed.pod(pod).terminate().unwrap();
            assert!(bed.pod(pod).wait_end(LIMIT).unwrap().success());
            bed.dns().pod_gone(bed.pod(pod).name());
        }
        wait_stands(&bed, 0..6, 3);
        assert_eq!(keys(&bed, 0..6), before, "{}: each key once", valkey.version);
        valkeeper(&["bootstrap", "--shards", "3", "--replicas", "1"]).expect(0, &["nothing was changed"]);

        for pod in 6..10 {
            bed.pod(pod).move_to(bed.spare_addr());
            bed.pod(pod).start().unwrap();
        }
        for pod in (0..6).rev() {
            bed.pod(pod).set_run_args(&["--shards", "5", "--replicas", "1"]);
            bed.pod(pod).terminate().unwrap();
            assert!(bed.pod(pod).wait_end(LIMIT).unwrap().success());
            bed.pod(pod).start().unwrap();
            bed.wait_for("the pod to be one of the cluster", LIMIT, || in_step(&bed, pod).map(Some)).unwrap();
        }
        wait_stands_within(LIMIT + BAN, &bed, 0..10, 5);
        valkeeper(&["rebalance"]).expect(0, &[]);
        assert!(slots(&bed).iter().all(|slots| slots.abs_diff(even) <= 1), "{:?}", slots(&bed));
        wait_stands(&bed, 0..10, 5);
        assert_eq!(roles(), grown, "{}", valkey.version);
        assert_eq!(keys(&bed, 0..10), before, "{}: each key once", valkey.version);
    });
}

#[test]
fn no_pod_is_emptied_while_others_would_give_slots_back_to_it() {
    Valkey::each(Valkey::all(), |valkey| {
        let version = &valkey.version;
        let shape = ["--shards", "2", "--replicas", "1"];
        let bed = Testbed::builder(valkey)
            .pods(4)
            .binary(env!("CARGO_BIN_EXE_valkeeper"))
            .in_memory(true)
            .config("repl-diskless-sync-delay", "0")
            .run_args(&[&shape[..], &["--auto-rebalance"]].concat())
            .build()
            .unwrap();
        bed.form(2, 1).unwrap();
        bed.wait_in_sync(LIMIT).unwrap();
        let evacuate = ["evacuate", "--shards", "1", "valkey-1", "valkey-3"];
        for pod in (0..4).rev() {
            let names: Vec<_> = bed.pods()[..=pod].iter().map(|pod| pod.name()).collect();
            let refused = format!("--auto-rebalance in {} would give slots back", names.join(", "));
            for more in [&["--dry-run"][..], &[]] {
                let ended = Ended::of(&mut bed.valkeeper(&[&evacuate, more].concat()), LIMIT).unwrap();
                ended.expect(76, &[&refused]);
                assert_eq!(slots(&bed), [usize::from(SLOT_COUNT) / 2; 2], "{version}: {ended}");
            }
            bed.pod(pod).set_run_args(&shape);
            bed.pod(pod).terminate().unwrap();
            assert!(bed.pod(pod).wait_end(LIMIT).unwrap().success());
            bed.pod(pod).start().unwrap();
            bed.wait_for("the pod to be one of the cluster", LIMIT, || in_step(&bed, pod).map(Some)).unwrap();
        }
        Ended::of(&mut bed.valkeeper(&evacuate), LIMIT).unwrap().expect(0, &[]);
        let emptied = [1, 3].map(|pod| view(&bed, pod).unwrap().myself().slots.is_empty());
        assert_eq!(emptied, [true; 2], "{version}");
    });
}

/// How many slots of a pod are on their way.
fn open(bed: &Testbed, pod: usize) -> usize {
    view(bed, pod).unwrap().myself().moving.len()
}

/// Opens slots from the first pod to the second, and sends their keys.
fn half_move(bed: &Testbed, slots: std::ops::Range<u16>) {
    let (mut from, mut to) = (bed.connection(0).unwrap(), bed.connection(1).unwrap());
    let [source, target] = [0, 1].map(|pod| view(bed, pod).unwrap().myself().id.to_string());
    for slot in slots {
        cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("IMPORTING").arg(&source).exec(&mut to).unwrap();
        cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("MIGRATING").arg(&target).exec(&mut from).unwrap();
        let keys: Vec<String> = cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(100).query(&mut from).unwrap();
        let mut migrate = cmd("MIGRATE");
        migrate.arg(bed.pod(1).addr().to_string()).arg(bed.pod(1).port()).arg("").arg(0).arg(5_000);
        if let Some(password) = bed.password() {
            migrate.arg("AUTH").arg(password);
        }
        if !keys.is_empty() {
            migrate.arg("KEYS").arg(keys).exec(&mut from).unwrap();
        }
    }
}

#[test]
fn a_new_shard_whose_first_slots_take_long_is_refused_by_nobody_and_auto_rebalance_goes_on_where_its_source_died() {
    let by_key = Valkey::all().into_iter().filter(|valkey| valkey.version.starts_with("8."));
    Valkey::each(by_key.collect(), |valkey| {
        let shape = ["--shards", "2", "--replicas", "0"];
        let bed = Testbed::builder(valkey)
            .pods(2)
            .binary(env!("CARGO_BIN_EXE_valkeeper"))
            .in_memory(true)
            .config("appendonly", "yes")
            .config("appendfsync", "always")
            .run_args(&shape)
            .start_servers(false)
            .build()
            .unwrap();
        bed.pod(0).start().unwrap();
        let form = ["bootstrap", "--shards", "1", "--replicas", "0"];
        Ended::of(&mut bed.valkeeper(&form), LIMIT).unwrap().expect(0, &[]);
        let mut client = bed.connection(0).unwrap();
        for key in 0..KEYS * 10 {
            cmd("SET").arg(format!("slow:{key}")).arg(key).exec(&mut client).unwrap();
        }
        let before = keys(&bed, 0..1);
        bed.pod(1).start().unwrap();
        bed.wait_for("both to know each other", LIMIT, || {
            for pod in 0..2 {
                let view = view(&bed, pod)?;
                ensure!(view.others().filter(|other| other.is_known() && !other.is_lost()).count() == 1, "{view:?}");
                ensure!(bed.cluster_info(pod)?["cluster_state"] == "ok", "{view:?}");
            }
            Ok(Some(()))
        })
        .unwrap();

        // As others do it who move slots, and take their time: keys come to a primary that owns nothing yet.
        half_move(&bed, 8_000..8_200);
        let started = Instant::now();
        assert_ne!(bed.keys(1).unwrap(), 0, "{}", valkey.version);
        let status = ["status", "-o", "json", "--shards", "2", "--replicas", "0"];
        let status = Ended::of(&mut bed.valkeeper(&status), LIMIT).unwrap();
        assert!(!status.stdout.contains("refused") && status.stdout.contains("on their way"), "{status}");
        sleep(Duration::from_secs(8).saturating_sub(started.elapsed()));
        assert!(slots(&bed).contains(&0) && open(&bed, 0) > 0, "{}: it was not slow enough", valkey.version);
        for pod in 0..2 {
            assert!(!bed.pod(pod).run_log().contains("refused"), "{}", bed.pod(pod).run_log());
        }

        bed.pod(0).kill().unwrap();
        bed.pod(0).set_run_args(&[&shape[..], &["--auto-rebalance"]].concat());
        bed.pod(0).start().unwrap();
        bed.wait_for("slots to be even", LIMIT, || {
            let slots = slots(&bed);
            ensure!(slots == [usize::from(SLOT_COUNT) / 2; 2] && open(&bed, 0) + open(&bed, 1) == 0, "{slots:?}");
            Ok(Some(()))
        })
        .unwrap();
        assert_eq!(keys(&bed, 0..2), before, "{}: each key once", valkey.version);
    });
}
