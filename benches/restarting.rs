//! What a restart costs a client that writes: every pod of 3 primaries and 3 replicas restarted one by one, as charts
//! do it today (`BGSAVE`, five seconds of sleep, SIGTERM to a stock server) beside `valkeeper run`, and beside `valkeeper
//! drain` before the SIGTERM, in the same run.
//! Fails where what is promised does not hold.
//!
//! `cargo bench --bench restarting`. By environment: VALKEEPER_BENCH_KEYS keys of 100 bytes in all (200000),
//! VALKEEPER_BENCH_AWAY seconds between the end of a pod and its new start (3), VALKEEPER_BENCH_ONLY=charts|valkeeper,
//! VALKEEPER_BENCH_ALL=1 for every version and not the newest alone, VALKEEPER_BENCH_DISK=1 for data on a disk and not
//! in memory: on one that others write to, the disk is what is measured. VALKEEPER_BENCH_TLS=1 for mutual TLS on every
//! port. VALKEEPER_BENCH_SHOW=1 tells it pod by pod.

use std::env;
use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::{Leave, PodRestart, Ready, Report, Rolling, Testbed, Valkey, Writer, fill, rolling_restart};

const LIMIT: Duration = Duration::from_secs(120);
const VALUE_SIZE: usize = 100;

/// What is promised of ours.
const LONGEST: Duration = Duration::from_millis(100);
const MEDIAN: Duration = Duration::from_millis(60);
const TIMES_SHORTER: f64 = 100.0;

/// A way to restart pods.
struct Way {
    name: &'static str,
    supervised: bool,
    rolling: Rolling,
}

/// What a rolling restart cost.
struct Cost {
    longest: Duration,
    /// Of the restarts of pods that were primaries.
    median: Duration,
    /// For each pod, from its end to its being ready.
    a_pod: Duration,
    report: Report,
    lost: u64,
}

fn main() -> Result<()> {
    let keys: u64 = number("KEYS").unwrap_or(200_000);
    let away = Duration::from_secs(number("AWAY").unwrap_or(3));
    let only = env::var("VALKEEPER_BENCH_ONLY").ok();
    let versions = if number::<u8>("ALL").is_some() { Valkey::all() } else { vec![Valkey::newest()] };
    let rolling = |leave, ready| Rolling { leave, away, ready, deadline: LIMIT };
    let charts = Way {
        name: "BGSAVE, sleep 5, SIGTERM",
        supervised: false,
        rolling: rolling(Leave::SaveAndSleep(Duration::from_secs(5)), Ready::InSync),
    };
    let ours = [
        Way { name: "valkeeper run", supervised: true, rolling: rolling(Leave::Terminate, Ready::Probe) },
        Way {
            name: "valkeeper drain, SIGTERM",
            supervised: false,
            rolling: rolling(Leave::Drain(Vec::new()), Ready::Probe),
        },
    ];
    let mut broken = Vec::new();
    for valkey in &versions {
        println!(
            "every pod restarted once, Valkey {}, {keys} keys of {VALUE_SIZE} bytes, each pod {} s away",
            valkey.version,
            away.as_secs()
        );
        println!(
            "{:<26} {:>12} {:>12} {:>8} {:>13} {:>8} {:>9}",
            "", "longest gap", "median gap", "errors", "acknowledged", "lost", "a pod"
        );
        let wanted = |name| only.as_deref().is_none_or(|only| only == name);
        let theirs = wanted("charts").then(|| measure(valkey, &charts, keys)).transpose()?;
        for way in ours.iter().filter(|_| wanted("valkeeper")) {
            let ours = measure(valkey, way, keys)?;
            let about = |promise| format!("{}, {}: {promise}", valkey.version, way.name);
            broken.extend(ours.broken_promises().into_iter().map(about));
            let Some(theirs) = &theirs else { continue };
            let ratio = theirs.longest.as_secs_f64() / ours.longest.as_secs_f64().max(0.001);
            println!("{:<26} the longest gap is {ratio:.0} times shorter (promised: {TIMES_SHORTER:.0})", "");
            if ratio < TIMES_SHORTER {
                broken.push(about(format!("only {ratio:.0} times shorter")));
            }
        }
        println!();
    }
    ensure!(broken.is_empty(), "promises not kept: {broken:#?}");
    Ok(())
}

/// Forms a fresh cluster, restarts it in that way under a writer for each shard, and prints a line.
fn measure(valkey: &Valkey, way: &Way, keys: u64) -> Result<Cost> {
    let bed = Testbed::builder(valkey)
        .pods(6)
        .in_memory(number::<u8>("DISK").is_none())
        .tls(number::<u8>("TLS").is_some())
        .config("save", "3600 1")
        .config("cluster-node-timeout", "5000")
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .supervised(way.supervised)
        .build()?;
    bed.form(3, 1)?;
    for primary in bed.primaries()? {
        fill(&bed, primary, keys / 3, VALUE_SIZE)?;
    }
    bed.wait_in_sync(LIMIT)?;
    let writer = Writer::start(&bed)?;
    let restarts = rolling_restart(&bed, &writer, &way.rolling)?;
    bed.wait_in_sync(LIMIT)?;
    let report = writer.stop();
    let lost = report.verify(&bed)?.keys;
    let cost = Cost::of(&restarts, report, lost);
    println!(
        "{:<26} {:>10.3} s {:>10.3} s {:>8} {:>13} {:>8} {:>7.1} s",
        way.name,
        cost.longest.as_secs_f64(),
        cost.median.as_secs_f64(),
        cost.report.error_count(),
        cost.report.acknowledged(),
        cost.lost,
        cost.a_pod.as_secs_f64()
    );
    if env::var_os("VALKEEPER_BENCH_SHOW").is_some() {
        for PodRestart { pod, was_primary, gap, took, status, report } in &restarts {
            let role = if *was_primary { "primary" } else { "replica" };
            eprintln!("pod {pod}, a {role}: gap {:.1?}, took {took:.1?}, {status}\n{report}", gap.length);
        }
    }
    Ok(cost)
}

impl Cost {
    fn of(restarts: &[PodRestart], report: Report, lost: u64) -> Self {
        let primaries = restarts.iter().filter(|restart| restart.was_primary);
        Self {
            longest: report.longest_gap().length,
            median: median(primaries.map(|restart| restart.gap.length).collect()),
            a_pod: median(restarts.iter().map(|restart| restart.took).collect()),
            report,
            lost,
        }
    }

    fn broken_promises(&self) -> Vec<String> {
        let Self { longest, median, report, lost, .. } = self;
        let checks = [
            (*lost > 0, format!("{lost} acknowledged writes are lost")),
            (report.error_count() > 0, format!("errors: {:?}", report.errors())),
            (*longest > LONGEST, format!("the longest gap is {longest:?}, promised are {LONGEST:?}")),
            (*median > MEDIAN, format!("the median gap is {median:?}, promised are {MEDIAN:?}")),
        ];
        checks.into_iter().filter_map(|(broken, what)| broken.then_some(what)).collect()
    }
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(format!("VALKEEPER_BENCH_{name}")).ok()?.parse().ok()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
