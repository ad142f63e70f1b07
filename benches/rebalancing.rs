//! How fast slots move: three primaries and a fourth that joins empty, a quarter of the slots moves; `valkeeper rebalance`
//! beside `valkey-cli --cluster rebalance --cluster-use-empty-masters --cluster-pipeline 100` in the same run. And what a
//! client waits for meanwhile, with ten keys of 50 MB among the others. Fails where what is promised does not hold.
//!
//! `cargo bench --bench rebalancing`. By environment: VALKEEPER_BENCH_KEYS keys of 100 bytes in all (1000000),
//! VALKEEPER_TEST_VERSIONS=9.1 for one version and not every one, VALKEEPER_BENCH_ONLY=speed|latency,
//! VALKEEPER_BENCH_MEMORY=1 for nodes.conf in memory and not on a disk, VALKEEPER_BENCH_TLS=1 for mutual TLS on every port,
//! VALKEEPER_BENCH_SHOW=1 for what the program logs and reports. A server writes its nodes.conf whenever a slot changes hands, and waits for the disk: moving slots one by one,
//! as valkey-cli does, costs what the disk costs.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testbed::redis::{Connection, Pipeline, cmd, pipe};
use testbed::{Ended, Testbed, Valkey};

const LIMIT: Duration = Duration::from_secs(300);
const BIG: usize = 50_000_000;
/// The pod that joins empty.
const TARGET: usize = 3;

/// What is promised of ours: so many times as many keys a second, and the longest that a client waits for a command.
const TIMES_BY_KEY: f64 = 6.0;
const TIMES_WHOLE: f64 = 20.0;
const LONGEST: Duration = Duration::from_millis(100);

fn main() -> Result<()> {
    let keys: usize = number("KEYS").unwrap_or(1_000_000);
    let only = env::var("VALKEEPER_BENCH_ONLY").ok();
    let wanted = |part| only.as_deref().is_none_or(|only| only == part);
    let mut broken = Vec::new();
    for valkey in &Valkey::all() {
        println!("a quarter of {keys} keys of 100 bytes moves to a fourth primary, Valkey {}", valkey.version);
        if wanted("speed") {
            let promised = if valkey.version.starts_with("8.") { TIMES_BY_KEY } else { TIMES_WHOLE };
            let theirs = speed(valkey, keys, "valkey-cli", by_cli)?;
            let ours = speed(valkey, keys, "valkeeper", |bed| rebalance(bed).map(drop))?;
            let times = ours / theirs;
            println!("{:<12} {times:.1} times as fast (promised: {promised})", "");
            if times < promised {
                broken.push(format!("{}: only {times:.1} times as fast", valkey.version));
            }
        }
        if wanted("latency") {
            let longest = latency(valkey, keys)?;
            if longest > LONGEST {
                broken.push(format!("{}: a client waited {longest:?}", valkey.version));
            }
        }
        println!();
    }
    ensure!(broken.is_empty(), "promises not kept: {broken:#?}");
    Ok(())
}

/// Keys a second.
fn speed(valkey: &Valkey, keys: usize, name: &str, rebalance: impl Fn(&Testbed) -> Result<()>) -> Result<f64> {
    let bed = cluster(valkey, keys, number::<u8>("MEMORY").is_some())?;
    let started = Instant::now();
    rebalance(&bed)?;
    let took = started.elapsed();
    let moved = bed.keys(3)?;
    ensure!(moved.abs_diff(keys as u64 / 4) < keys as u64 / 50, "{moved} of {keys} keys were moved");
    bed.cli_check(0)?;
    let rate = moved as f64 / took.as_secs_f64();
    println!("{name:<12} {moved} keys in {:.2} s: {rate:.0} keys/s", took.as_secs_f64());
    Ok(rate)
}

/// The longest that a client of any of the four waited, but for the time that big keys took.
fn latency(valkey: &Valkey, keys: usize) -> Result<Duration> {
    // What a disk that others write to makes clients wait for is not what is measured.
    let bed = cluster(valkey, keys, true)?;
    big_keys(&bed)?;
    let foretold = valkeeper(&bed, &["rebalance", "--dry-run"])?;
    let stop: Arc<AtomicBool> = Arc::default();
    let clients: Vec<_> = (0..4).map(|pod| bed.connection(pod)).collect::<Result<_>>()?;
    let clients: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let stop = stop.clone();
            thread::spawn(move || waits(client, &stop))
        })
        .collect();
    let report = rebalance(&bed)?;
    stop.store(true, Ordering::Relaxed);
    let waits: Vec<Vec<Duration>> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
    let big = report["big_keys"].as_array().map_or(0, Vec::len);
    let longest = waits.iter().enumerate().map(|(pod, waits)| {
        // Each big key blocks its source and the target once: that is foretold and reported, and not counted.
        let name = bed.pod(pod).name();
        let own = report["big_keys"].as_array().into_iter().flatten().filter(|key| key["primary"] == name).count();
        waits.get(if pod == TARGET { big } else { own }).copied().unwrap_or_default()
    });
    let longest: Vec<Duration> = longest.collect();
    let most = |waits: &[Duration]| waits.iter().max().copied().unwrap_or_default();
    let (sources, target) = longest.split_at(TARGET);
    let told = foretold["big_keys"].as_array().map_or(0, Vec::len);
    println!(
        "longest wait at a source {:.1?}, at the target {:.1?} (promised: {LONGEST:?}); {big} big keys moved, {told} \
         foretold",
        most(sources),
        most(target)
    );
    for key in report["big_keys"].as_array().into_iter().flatten() {
        let foretold = foretold["big_keys"].as_array().into_iter().flatten().find(|other| other["key"] == key["key"]);
        let foretold = foretold.map(|key| key["blocks_ms"].clone());
        println!("  {} of {} bytes blocked {} ms, foretold {foretold:?}", key["key"], key["bytes"], key["took_ms"]);
    }
    Ok(most(&longest))
}

/// How long each of the longest answers took, of a client that asks without pause.
fn waits(mut client: Connection, stop: &AtomicBool) -> Vec<Duration> {
    const KEPT: usize = 100;
    let mut longest: Vec<Duration> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        cmd("PING").exec(&mut client).expect("PING is answered");
        let took = asked.elapsed();
        if longest.len() < KEPT || longest.last().is_some_and(|least| took > *least) {
            let place = longest.partition_point(|other| *other > took);
            longest.insert(place, took);
            longest.truncate(KEPT);
        }
        thread::sleep(Duration::from_micros(500));
    }
    longest
}

fn rebalance(bed: &Testbed) -> Result<Value> {
    valkeeper(bed, &["rebalance"])
}

fn valkeeper(bed: &Testbed, args: &[&str]) -> Result<Value> {
    let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
    let ended = Ended::of(&mut bed.valkeeper(&args), LIMIT)?;
    ensure!(ended.code == Some(0), "{ended}");
    if env::var_os("VALKEEPER_BENCH_SHOW").is_some() {
        eprintln!("{ended}");
    }
    Ok(serde_json::from_str(&ended.stdout)?)
}

fn by_cli(bed: &Testbed) -> Result<()> {
    let first = format!("{}:6379", bed.pod(0).addr());
    let args = ["--cluster", "rebalance", &first, "--cluster-use-empty-masters", "--cluster-pipeline", "100"];
    let mut command = bed.cli_command(&args);
    let ended = Ended::of(&mut command, LIMIT)?;
    ensure!(ended.code == Some(0), "{ended}");
    Ok(())
}

/// Three primaries with the keys, spread over all slots, and a fourth that is empty.
fn cluster(valkey: &Valkey, keys: usize, in_memory: bool) -> Result<Testbed> {
    let bed = Testbed::builder(valkey)
        .pods(4)
        .in_memory(in_memory)
        .tls(number::<u8>("TLS").is_some())
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .start_servers(false)
        .build()?;
    bed.pods()[..3].iter().try_for_each(|pod| pod.start())?;
    let ended = Ended::of(&mut bed.valkeeper(&["bootstrap", "--shards", "3", "--replicas", "0"]), LIMIT)?;
    ensure!(ended.code == Some(0), "{ended}");
    write(&bed, (0..keys).map(|key| (format!("key:{key}"), "x".repeat(100))))?;
    bed.pod(3).start()?;
    let first = bed.pod(0).addr().to_string();
    cmd("CLUSTER").arg("MEET").arg(first).arg(6379).exec(&mut bed.connection(3)?)?;
    bed.wait_for("four that know each other", LIMIT, || {
        let ok = bed.pods().iter().all(|pod| {
            let info = bed.cluster_info(pod.ordinal()).unwrap_or_default();
            info.get("cluster_known_nodes").is_some_and(|known| known == "4") && info["cluster_state"] == "ok"
        });
        Ok(ok.then_some(()))
    })?;
    Ok(bed)
}

/// Ten, in slots of which some move.
fn big_keys(bed: &Testbed) -> Result<()> {
    let value = "x".repeat(BIG);
    for key in 0..10 {
        write(bed, [(format!("big:{key}"), value.clone())].into_iter())?;
    }
    Ok(())
}

fn write(bed: &Testbed, pairs: impl Iterator<Item = (String, String)>) -> Result<()> {
    const AT_ONCE: usize = 5_000;
    let mut asked = bed.connection(0)?;
    let mut pairs = pairs.peekable();
    while pairs.peek().is_some() {
        let chunk: Vec<_> = pairs.by_ref().take(AT_ONCE).collect();
        let mut slots = pipe();
        for (key, _) in &chunk {
            slots.cmd("CLUSTER").arg("KEYSLOT").arg(key);
        }
        let slots: Vec<u16> = slots.query(&mut asked)?;
        let mut sets: Vec<Pipeline> = (0..3).map(|_| pipe()).collect();
        for ((key, value), slot) in chunk.into_iter().zip(slots) {
            // As a cluster of three is formed.
            let pod = match slot {
                ..=5_461 => 0,
                5_462..=10_922 => 1,
                _ => 2,
            };
            sets[pod].cmd("SET").arg(key).arg(value).ignore();
        }
        for (pod, sets) in sets.into_iter().enumerate().filter(|(_, sets)| !sets.is_empty()) {
            sets.exec(&mut bed.connection(pod)?).with_context(|| format!("fill pod {pod}"))?;
        }
    }
    Ok(())
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(format!("VALKEEPER_BENCH_{name}")).ok()?.parse().ok()
}
