//! How fast slots move: three shards grow to five and shrink to three again; `valkeeper rebalance` and `evacuate` beside
//! `valkey-cli --cluster rebalance --cluster-pipeline 100` with empty primaries and with weights of 0, in the same run. And
//! what clients wait for meanwhile, with ten keys of 50 MB among the others. Fails where what is promised does not hold.
//!
//! The shards have a replica each where speed is measured. Where waits are they have none: two cores are not enough for ten
//! servers that all have something to do, and a value of 50 MB takes a primary with a replica twice as long, whoever sends it.
//!
//! `cargo bench --bench rebalancing`. By environment: VALKEEPER_BENCH_KEYS keys of 100 bytes in all (1000000),
//! VALKEEPER_BENCH_REPLICAS of each primary in both, VALKEEPER_TEST_VERSIONS=9.1 for one version and not every one,
//! VALKEEPER_BENCH_ONLY=speed|latency, VALKEEPER_BENCH_MEMORY=1 for nodes.conf in memory and not on a disk,
//! VALKEEPER_BENCH_TLS=1 for mutual TLS on every port, VALKEEPER_BENCH_SHOW=1 for what the program logs and reports. A server
//! writes its nodes.conf whenever a slot changes hands, and waits for the disk: moving slots one by one, as valkey-cli does,
//! costs what the disk costs.

#[path = "rebalancing/client.rs"]
mod client;

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::{Client, Waits, ping};
use serde_json::Value;
use testbed::redis::{Pipeline, cmd, pipe};
use testbed::{Ended, Testbed, Valkey};

const LIMIT: Duration = Duration::from_secs(300);
const BIG: usize = 50_000_000;

/// So many shards grow to so many.
const FEW: usize = 3;
const MANY: usize = 5;

/// What is promised of ours: so many times as many keys a second, and the longest that a client waits for a command.
const TIMES_BY_KEY: f64 = 6.0;
const TIMES_WHOLE: f64 = 20.0;
const LONGEST: Duration = Duration::from_millis(100);

/// One way to let a cluster grow and shrink.
struct Way {
    name: &'static str,
    grow: fn(&Testbed) -> Result<()>,
    shrink: fn(&Testbed) -> Result<()>,
    check: fn(&Testbed) -> Result<()>,
}

const THEIRS: Way = Way {
    name: "valkey-cli",
    grow: |bed| by_cli(bed, &["--cluster-use-empty-masters"]),
    shrink: |bed| {
        let mut options = vec!["--cluster-weight".to_owned()];
        for nth in 0..MANY - FEW {
            let mut primary = bed.connection(new_primary(bed, nth))?;
            // It gives up at the first primary that becomes a replica with its last slot.
            cmd("CONFIG").arg("SET").arg("cluster-allow-replica-migration").arg("no").exec(&mut primary)?;
            let id: String = cmd("CLUSTER").arg("MYID").query(&mut primary)?;
            options.push(format!("{id}=0"));
        }
        by_cli(bed, &options)
    },
    // It may leave a slot open.
    check: |_| Ok(()),
};
const OURS: Way = Way {
    name: "valkeeper",
    grow: |bed| rebalance(bed).map(drop),
    shrink: |bed| evacuate(bed).map(drop),
    check: |bed| bed.cli_check(0),
};

fn main() -> Result<()> {
    let keys: usize = number("KEYS").unwrap_or(1_000_000);
    let only = env::var("VALKEEPER_BENCH_ONLY").ok();
    let wanted = |part| only.as_deref().is_none_or(|only| only == part);
    let mut broken = Vec::new();
    for valkey in &Valkey::all() {
        println!("{FEW} to {MANY} to {FEW} shards with {keys} keys of 100 bytes, Valkey {}", valkey.version);
        if wanted("speed") {
            let promised = if valkey.version.starts_with("8.") { TIMES_BY_KEY } else { TIMES_WHOLE };
            let theirs = speed(valkey, keys, &THEIRS)?;
            let ours = speed(valkey, keys, &OURS)?;
            for ((what, ours), theirs) in ["growing", "shrinking"].into_iter().zip(ours).zip(theirs) {
                let times = ours / theirs;
                println!("{what:<12} {times:.1} times as fast (promised: {promised})");
                if times < promised {
                    broken.push(format!("{}: {what} only {times:.1} times as fast", valkey.version));
                }
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

/// Keys a second, there and back.
fn speed(valkey: &Valkey, keys: usize, way: &Way) -> Result<[f64; 2]> {
    let bed = cluster(valkey, keys, replicas(1), number::<u8>("MEMORY").is_some())?;
    let grown = rate(&bed, keys, way.name, way.grow)?;
    ensure!(bed.primaries()?.len() == MANY, "not every shard has slots");
    (way.check)(&bed)?;
    let shrunk = rate(&bed, keys, way.name, way.shrink)?;
    ensure!(bed.primaries()? == [0, 1, 2], "a shard that was to be empty has slots");
    (way.check)(&bed)?;
    Ok([grown, shrunk])
}

fn rate(bed: &Testbed, keys: usize, name: &str, act: fn(&Testbed) -> Result<()>) -> Result<f64> {
    let before = held(bed)?;
    let started = Instant::now();
    act(bed)?;
    let took = started.elapsed();
    let moved = held(bed)?.abs_diff(before);
    let share = (keys * (MANY - FEW) / MANY) as u64;
    ensure!(moved.abs_diff(share) < share / 10, "{moved} of {keys} keys were moved");
    let rate = moved as f64 / took.as_secs_f64();
    println!("{name:<12} {moved} keys in {:.2} s: {rate:.0} keys/s", took.as_secs_f64());
    Ok(rate)
}

/// How many keys the first shards hold.
fn held(bed: &Testbed) -> Result<u64> {
    (0..FEW).map(|pod| bed.keys(pod)).sum()
}

/// The longest that a client of any primary waited, there and back, but for the time that big keys took.
fn latency(valkey: &Valkey, keys: usize) -> Result<Duration> {
    // What a disk that others write to makes clients wait for is not what is measured.
    let bed = cluster(valkey, keys, replicas(0), true)?;
    big_keys(&bed)?;
    let foretold = valkeeper(&bed, &["rebalance", "--dry-run"])?;
    let there = watched(&bed, "growing", || rebalance(&bed), &foretold)?;
    let foretold = valkeeper(&bed, &evacuation(&bed, &["--dry-run"]))?;
    let back = watched(&bed, "shrinking", || evacuate(&bed), &foretold)?;
    Ok(there.max(back))
}

fn watched(bed: &Testbed, what: &str, act: impl Fn() -> Result<Value>, foretold: &Value) -> Result<Duration> {
    let primaries: Vec<usize> = (0..FEW).chain((0..MANY - FEW).map(|nth| new_primary(bed, nth))).collect();
    let pinged: Vec<_> = primaries.iter().map(|pod| bed.connection(*pod)).collect::<Result<_>>()?;
    let stop = AtomicBool::new(false);
    let (report, client, pings) = thread::scope(|scope| {
        let client = scope.spawn(|| Client::of(bed).go_on(&stop));
        let pings: Vec<_> = pinged.into_iter().map(|server| scope.spawn(|| ping(server, &stop))).collect();
        let report = act();
        stop.store(true, Ordering::Relaxed);
        let pings: Result<Vec<Waits>> = pings.into_iter().map(|ping| ping.join().expect("no panic")).collect();
        (report, client.join().expect("no panic"), pings)
    });
    let (report, client, pings) = (report?, client.context("the client that reads and writes")?, pings?);
    let big: Vec<&Value> = report["big_keys"].as_array().into_iter().flatten().collect();
    // Each big key blocks its source and its target once: that is foretold and reported, and not counted.
    let took = |key: &Value| Duration::from_millis(key["took_ms"].as_u64().unwrap_or_default());
    let show = |who: &str, waits: &Waits| {
        if env::var_os("VALKEEPER_BENCH_SHOW").is_some() {
            eprintln!("{who}: {:.1?}", waits.first(5));
        }
    };
    show("reading and writing", &client);
    let client = client.longest_beside(&big.iter().map(|key| took(key)).collect::<Vec<_>>(), LONGEST);
    let mut ping = Duration::ZERO;
    for (pod, waits) in primaries.iter().zip(pings) {
        let name = bed.pod(*pod).name();
        let mut own = Vec::new();
        for key in &big {
            let arrived: bool =
                cmd("EXISTS").arg(key["key"].as_str()).query(&mut bed.connection(*pod)?).unwrap_or(false);
            if key["primary"] == name || arrived {
                own.push(took(key));
            }
        }
        show(name, &waits);
        ping = ping.max(waits.longest_beside(&own, LONGEST));
    }
    let told: Vec<&Value> = foretold["big_keys"].as_array().into_iter().flatten().collect();
    println!(
        "{what:<12} longest wait {client:.1?} of a client that reads and writes, {ping:.1?} of PING (promised: {LONGEST:?}); \
         {} big keys moved, {} foretold",
        big.len(),
        told.len()
    );
    for key in big {
        let foretold = told.iter().find(|other| other["key"] == key["key"]).map(|key| key["blocks_ms"].clone());
        println!("  {} of {} bytes blocked {} ms, foretold {foretold:?}", key["key"], key["bytes"], key["took_ms"]);
    }
    Ok(client.max(ping))
}

fn rebalance(bed: &Testbed) -> Result<Value> {
    valkeeper(bed, &["rebalance"])
}

fn valkeeper(bed: &Testbed, args: &[impl AsRef<str>]) -> Result<Value> {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).chain(["-o", "json"]).collect();
    let ended = Ended::of(&mut bed.valkeeper(&args), LIMIT)?;
    ensure!(ended.code == Some(0), "{ended}");
    if env::var_os("VALKEEPER_BENCH_SHOW").is_some() {
        eprintln!("{ended}");
    }
    Ok(serde_json::from_str(&ended.stdout)?)
}

fn evacuate(bed: &Testbed) -> Result<Value> {
    valkeeper(bed, &evacuation(bed, &[]))
}

/// All pods leave that came later.
fn evacuation(bed: &Testbed, options: &[&str]) -> Vec<String> {
    let options = ["evacuate", "--shards", "3"].iter().chain(options).map(ToString::to_string);
    options.chain((new_primary(bed, 0)..bed.pods().len()).map(|pod| format!("valkey-{pod}"))).collect()
}

fn by_cli(bed: &Testbed, options: &[impl AsRef<str>]) -> Result<()> {
    let first = format!("{}:6379", bed.pod(0).addr());
    let args = ["--cluster", "rebalance", &first, "--cluster-pipeline", "100"];
    let args: Vec<&str> = args.into_iter().chain(options.iter().map(AsRef::as_ref)).collect();
    let ended = Ended::of(&mut bed.cli_command(&args), LIMIT)?;
    ensure!(ended.code == Some(0), "{ended}");
    Ok(())
}

/// A few shards with the keys, spread over all slots, and as many more as there are to be, without any.
fn cluster(valkey: &Valkey, keys: usize, replicas: usize, in_memory: bool) -> Result<Testbed> {
    let bed = Testbed::builder(valkey)
        .pods(u8::try_from(MANY * (1 + replicas))?)
        .in_memory(in_memory)
        .tls(number::<u8>("TLS").is_some())
        .config("repl-diskless-sync-delay", "0")
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .start_servers(false)
        .build()?;
    let (old, new) = bed.pods().split_at(new_primary(&bed, 0));
    old.iter().try_for_each(|pod| pod.start())?;
    join(&bed, FEW, replicas)?;
    write(&bed, (0..keys).map(|key| (format!("key:{key}"), "x".repeat(100))))?;
    new.iter().try_for_each(|pod| pod.start())?;
    join(&bed, MANY, replicas)?;
    Ok(bed)
}

/// Makes a cluster of so many shards of what runs.
fn join(bed: &Testbed, shards: usize, replicas: usize) -> Result<()> {
    let [shards, replicas] = [shards, replicas].map(|count| count.to_string());
    let ended = Ended::of(&mut bed.valkeeper(&["bootstrap", "--shards", &shards, "--replicas", &replicas]), LIMIT)?;
    ensure!(ended.code == Some(0), "{ended}");
    Ok(())
}

/// The ordinal of the nth primary that joins empty.
fn new_primary(bed: &Testbed, nth: usize) -> usize {
    bed.pods().len() / MANY * FEW + nth
}

/// How many each primary has, where it is not said.
fn replicas(else_so_many: usize) -> usize {
    number("REPLICAS").unwrap_or(else_so_many)
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
