//! What `valkeeper run` costs beside each node of a six-node cluster that nobody uses: memory, and time on a core.
//!
//! `cargo bench --bench idling`; VALKEEPER_BENCH_SECONDS sets how long it is looked at (default 60).

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testbed::{Testbed, Valkey, resident_memory, time_on_core};

/// In MiB.
const MOST_MEMORY: f64 = 6.0;
/// In per cent of a core.
const MOST_TIME: f64 = 0.3;

fn main() -> Result<()> {
    let seconds = std::env::var("VALKEEPER_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    // A bench is built as a release is.
    let binary = env!("CARGO_BIN_EXE_valkeeper");
    let bed = Testbed::builder(&Valkey::newest()).pods(6).binary(binary).supervised(true).build()?;
    bed.form(3, 1)?;
    let pids = bed.pods().iter().map(|pod| pod.pid().context("run")).collect::<Result<Vec<_>>>()?;
    let before = pids.iter().map(|pid| time_on_core(*pid)).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    thread::sleep(Duration::from_secs(seconds));
    let took = started.elapsed();
    println!("run, idle for {seconds} s, Valkey {}", bed.valkey().version);
    let mut worst: (f64, f64) = (0.0, 0.0);
    for ((pod, pid), before) in bed.pods().iter().zip(&pids).zip(before) {
        let memory = resident_memory(*pid)? as f64 / f64::from(1 << 20);
        let time = 100.0 * (time_on_core(*pid)? - before).as_secs_f64() / took.as_secs_f64();
        println!("{:>10} {memory:>6.2} MiB {time:>7.3} % of a core", pod.name());
        worst = (worst.0.max(memory), worst.1.max(time));
    }
    println!("{:>10} {MOST_MEMORY:>6.2} MiB {MOST_TIME:>7.3} % of a core", "promised");
    ensure!(worst.0 <= MOST_MEMORY && worst.1 <= MOST_TIME, "promise not kept: {worst:?}");
    Ok(())
}
