//! Clusters with primaries to spare, and what holds of any cluster whose slots have been moved.

use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use testbed::redis::{Pipeline, cmd, pipe};
use testbed::{Builder, Ended, Testbed, Valkey};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// One test at a time: clients and servers take what processors there are, and a late answer counts as an error.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn builder(valkey: &Valkey, pods: u8) -> Builder {
    Testbed::builder(valkey).pods(pods).in_memory(true).binary(env!("CARGO_BIN_EXE_valkeeper"))
}

/// So many shards without replicas, and empty primaries that everybody knows.
pub(crate) fn cluster(builder: Builder, shards: usize) -> Testbed {
    let bed = builder.start_servers(false).build().unwrap();
    for pod in &bed.pods()[..shards] {
        pod.start().unwrap();
    }
    let args = ["bootstrap", "--shards", &shards.to_string(), "--replicas", "0"];
    Ended::of(&mut bed.valkeeper(&args), LIMIT).unwrap().expect(0, &[]);
    for pod in &bed.pods()[shards..] {
        pod.start().unwrap();
        let mut connection = bed.connection(pod.ordinal()).unwrap();
        let first = bed.pod(0);
        cmd("CLUSTER").arg("MEET").arg(first.addr().to_string()).arg(first.port()).exec(&mut connection).unwrap();
    }
    bed.wait_for("everybody to know everybody", LIMIT, || {
        for pod in bed.pods() {
            let nodes = bed.cluster_nodes(pod.ordinal())?;
            let known = nodes.lines().filter(|line| line.contains(" connected") && !line.contains("handshake")).count();
            anyhow::ensure!(known == bed.pods().len(), "{nodes}");
            anyhow::ensure!(bed.cluster_info(pod.ordinal())?["cluster_state"] == "ok");
        }
        Ok(Some(()))
    })
    .unwrap();
    bed
}

/// Keys NAME:0, NAME:1 … with their numbers as values and so many bytes more, wherever they belong.
pub(crate) fn write(bed: &Testbed, name: &str, keys: usize, padding: usize) {
    let padding = "x".repeat(padding);
    let mut by_pod: Vec<(Pipeline, bool)> = bed.pods().iter().map(|_| (pipe(), false)).collect();
    let owners = owners(bed);
    let mut asked = bed.connection(0).unwrap();
    let mut slots = pipe();
    for key in 0..keys {
        slots.cmd("CLUSTER").arg("KEYSLOT").arg(format!("{name}:{key}"));
    }
    let slots: Vec<u16> = slots.query(&mut asked).unwrap();
    for (key, slot) in slots.into_iter().enumerate() {
        let pod = owners[usize::from(slot)].expect("every slot has an owner");
        by_pod[pod].0.cmd("SET").arg(format!("{name}:{key}")).arg(format!("{key}:{padding}")).ignore();
        by_pod[pod].1 = true;
    }
    for (pod, (sets, any)) in by_pod.into_iter().enumerate() {
        if any {
            sets.exec(&mut bed.connection(pod).unwrap()).unwrap();
        }
    }
}

/// The pod that owns each slot, as the owners say themselves.
pub(crate) fn owners(bed: &Testbed) -> Vec<Option<usize>> {
    let mut owners = vec![None; 16_384];
    for pod in bed.pods() {
        for range in own_ranges(bed, pod.ordinal()) {
            owners[range].fill(Some(pod.ordinal()));
        }
    }
    owners
}

/// How many slots each pod owns.
pub(crate) fn shares(bed: &Testbed) -> Vec<usize> {
    bed.pods().iter().map(|pod| own_ranges(bed, pod.ordinal()).into_iter().map(|range| range.len()).sum()).collect()
}

fn own_line(bed: &Testbed, pod: usize) -> String {
    let nodes = bed.cluster_nodes(pod).unwrap();
    nodes.lines().find(|line| line.contains("myself")).unwrap().to_owned()
}

fn own_ranges(bed: &Testbed, pod: usize) -> Vec<std::ops::Range<usize>> {
    let line = own_line(bed, pod);
    if line.contains("slave") {
        return Vec::new();
    }
    let ranges = line.split(' ').skip(8).filter(|word| !word.starts_with('['));
    ranges
        .map(|word| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            first.parse().unwrap()..last.parse::<usize>().unwrap() + 1
        })
        .collect()
}

/// No slot is on its way, and nobody has any doubt about who owns what.
pub(crate) fn assert_settled(bed: &Testbed) {
    for pod in bed.pods() {
        let line = own_line(bed, pod.ordinal());
        assert!(!line.contains('['), "{}: {line}", pod.name());
    }
    bed.cli_check(0).unwrap();
}

/// Runs the program to its end and expects success; its report.
#[track_caller]
pub(crate) fn valkeeper(bed: &Testbed, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
    let ended = Ended::of(&mut bed.valkeeper(&args), LIMIT).unwrap();
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

pub(crate) fn spawn(bed: &Testbed, args: &[&str]) -> Child {
    bed.valkeeper(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}
