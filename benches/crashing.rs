//! What a crash costs a client that writes: a primary's server killed, and its whole pod, beside Valkey's own failover in
//! the same run. Fails where what is promised does not hold.
//!
//! `cargo bench --bench crashing`; VALKEEPER_BENCH_ALL=1 for every version and not the newest alone,
//! VALKEEPER_BENCH_RUNS times each (3), VALKEEPER_BENCH_TLS=1 for mutual TLS on every port.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::{Pod, Testbed, Valkey, Writer};

const LIMIT: Duration = Duration::from_secs(60);
/// Valkey's own failover takes this and some seconds more; 15000 is what servers have where nothing is said.
const NODE_TIMEOUT: &str = "5000";

/// A way to die, and the longest that writes may pause then.
struct Death {
    name: &'static str,
    args: &'static [&'static str],
    die: fn(&Pod) -> Result<()>,
    promise: Option<Duration>,
}

const DEATHS: [Death; 3] = [
    Death {
        name: "server killed, --on-primary-lost wait",
        args: &["--on-primary-lost", "wait"],
        die: Pod::kill_server,
        promise: None,
    },
    Death { name: "server killed", args: &[], die: Pod::kill_server, promise: Some(Duration::from_millis(250)) },
    Death { name: "pod killed", args: &[], die: |pod| pod.kill().map(drop), promise: Some(Duration::from_millis(500)) },
];

fn main() -> Result<()> {
    let set = |name: &str| env::var(format!("VALKEEPER_BENCH_{name}")).ok();
    let versions = if set("ALL").is_some() { Valkey::all() } else { vec![Valkey::newest()] };
    let runs = set("RUNS").and_then(|runs| runs.parse().ok()).unwrap_or(3);
    let mut broken = Vec::new();
    for valkey in &versions {
        println!("a primary dies, Valkey {}, node timeout {NODE_TIMEOUT} ms, {runs} times each", valkey.version);
        println!("{:<40} {:>12} {:>12} {:>8}", "", "longest gap", "promised", "lost");
        for death in &DEATHS {
            let (gap, lost) = measure(valkey, death, runs)?;
            let promised = death.promise.map_or("-".to_owned(), |promise| format!("{:.3} s", promise.as_secs_f64()));
            println!("{:<40} {:>10.3} s {promised:>12} {lost:>8}", death.name, gap.as_secs_f64());
            if death.promise.is_some_and(|promise| gap > promise) {
                broken.push(format!("{}, {}: {gap:?}", valkey.version, death.name));
            }
        }
        println!();
    }
    ensure!(broken.is_empty(), "promises not kept: {broken:#?}");
    Ok(())
}

/// The longest gap of so many deaths in one cluster, and how many acknowledged writes were lost in all.
fn measure(valkey: &Valkey, death: &Death, runs: usize) -> Result<(Duration, u64)> {
    let bed = Testbed::builder(valkey)
        .pods(6)
        .tls(env::var_os("VALKEEPER_BENCH_TLS").is_some())
        .config("save", "\"\"")
        .config("repl-diskless-sync-delay", "0")
        .config("cluster-node-timeout", NODE_TIMEOUT)
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .run_args(death.args)
        .in_memory(true)
        .build()?;
    bed.form(3, 1)?;
    let (mut longest, mut lost) = (Duration::ZERO, 0);
    for _ in 0..runs {
        bed.wait_in_sync(LIMIT)?;
        let primary = *bed.primaries()?.first().context("nobody owns slots")?;
        let writer = Writer::start_patient(&bed, Duration::from_secs(1))?;
        let mark = writer.mark();
        (death.die)(bed.pod(primary))?;
        bed.wait_for("another primary", LIMIT, || Ok((!bed.primaries()?.contains(&primary)).then_some(())))?;
        bed.wait_for("every shard to be written to", LIMIT, || {
            let written = writer.report_since(&mark).shards.iter().all(|shard| shard.acknowledged > 1_000);
            Ok(written.then_some(()))
        })?;
        let report = writer.stop();
        longest = longest.max(report.longest_gap().length);
        bed.pod(primary).start()?;
        bed.wait_in_sync(LIMIT)?;
        lost += report.verify(&bed)?.keys;
    }
    Ok((longest, lost))
}
