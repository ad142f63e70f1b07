//! How long it takes until every node of a new cluster says ok: `valkeeper bootstrap` beside `valkey-cli --cluster
//! create` in the same run, on servers that were started more than three seconds before. Checks that afterwards
//! `cluster-node-timeout` is what it was.
//!
//! `cargo bench --bench forming -- [NODES…]`; VALKEEPER_BENCH_RUNS sets how often each is measured (default 3),
//! VALKEEPER_BENCH_TLS=1 is for mutual TLS on every port.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testbed::redis::{Connection, cmd};
use testbed::{Testbed, Valkey, run, wait_for};

/// The sizes that are promised something, and the largest part of valkey-cli's time that ours may take.
const PROMISES: [(u8, f64); 4] = [(6, 1.0 / 8.0), (30, 1.0 / 8.0), (60, 1.0 / 2.0), (100, 1.0)];

/// Long enough that no server is in its first two seconds, in which a primary never says ok.
const AGE: Duration = Duration::from_millis(3_100);
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let chosen: Vec<u8> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let runs = std::env::var("VALKEEPER_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3);
    let valkey = Valkey::newest();
    println!("until every node says ok, Valkey {}, 1 replica a shard, median of {runs} runs", valkey.version);
    println!("{:>6} {:>14} {:>12} {:>8} {:>10}", "nodes", "valkey-cli", "valkeeper", "part", "promised");
    let mut broken = Vec::new();
    for (nodes, promise) in PROMISES.into_iter().filter(|(nodes, _)| chosen.is_empty() || chosen.contains(nodes)) {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            theirs.push(measure(&valkey, nodes, create)?);
            ours.push(measure(&valkey, nodes, bootstrap)?);
        }
        let (theirs, ours) = (median(theirs), median(ours));
        let part = ours.as_secs_f64() / theirs.as_secs_f64();
        println!(
            "{nodes:>6} {:>12.2} s {:>10.2} s {part:>8.3} {promise:>10.3}",
            theirs.as_secs_f64(),
            ours.as_secs_f64()
        );
        if part > promise {
            broken.push(nodes);
        }
    }
    ensure!(broken.is_empty(), "promise not kept for {broken:?} nodes");
    Ok(())
}

/// Starts fresh servers, lets them grow old enough, and times the forming until every node says ok.
fn measure(valkey: &Valkey, nodes: u8, form: fn(&Testbed) -> Result<()>) -> Result<Duration> {
    let tls = std::env::var_os("VALKEEPER_BENCH_TLS").is_some();
    let bed = Testbed::builder(valkey).pods(nodes).tls(tls).binary(env!("CARGO_BIN_EXE_valkeeper")).build()?;
    let old_enough = Instant::now() + AGE;
    wait_for(
        "servers older than their first two seconds",
        AGE * 2,
        || Ok((Instant::now() > old_enough).then_some(())),
    )?;
    // Opened before, as logging in over TLS is not what is measured.
    let mut connections: Vec<Connection> = (0..nodes.into()).map(|pod| bed.connection(pod)).collect::<Result<_>>()?;
    let started = Instant::now();
    form(&bed)?;
    let mut not_ok: Vec<&mut Connection> = connections.iter_mut().collect();
    wait_for("every node to say ok", LIMIT, || {
        not_ok.retain_mut(|connection| !says_ok(connection).unwrap_or(false));
        Ok(not_ok.is_empty().then_some(()))
    })?;
    let took = started.elapsed();
    for (pod, connection) in connections.iter_mut().enumerate() {
        let timeout: Vec<String> = cmd("CONFIG").arg(["GET", "cluster-node-timeout"].as_slice()).query(connection)?;
        ensure!(timeout.get(1).is_some_and(|value| value == "15000"), "{pod} was left with {timeout:?}");
    }
    bed.cli_check(0)?;
    Ok(took)
}

fn says_ok(connection: &mut Connection) -> Result<bool> {
    let info: String = cmd("CLUSTER").arg("INFO").query(connection)?;
    Ok(info.contains("cluster_state:ok"))
}

fn create(bed: &Testbed) -> Result<()> {
    let addresses = bed.pods().iter().map(|pod| format!("{}:{}", pod.addr(), pod.port()));
    let args: Vec<String> = ["--cluster", "create"]
        .into_iter()
        .map(str::to_owned)
        .chain(addresses)
        .chain(["--cluster-replicas", "1", "--cluster-yes"].map(str::to_owned))
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = bed.cli(&args)?;
    ensure!(output.status.success(), "valkey-cli --cluster create: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn bootstrap(bed: &Testbed) -> Result<()> {
    let shards = (bed.pods().len() / 2).to_string();
    let mut command = bed.valkeeper(&["bootstrap", "--shards", &shards, "--replicas", "1", "--log-format", "json"]);
    let output = run(&mut command, LIMIT).context("valkeeper bootstrap")?;
    ensure!(output.status.success(), "valkeeper bootstrap: {}", String::from_utf8_lossy(&output.stderr));
    if std::env::var_os("VALKEEPER_BENCH_SHOW").is_some() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
