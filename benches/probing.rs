//! What a probe costs: `valkeeper probe` beside `valkey-cli ping` in the same run, start to end of the process; and over
//! HTTP, alone and beside a hundred clients that are slow or broken.
//!
//! `cargo bench --bench probing`; VALKEEPER_BENCH_RUNS sets how often each is measured (default 200).

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testbed::{Crowd, Testbed, Valkey, http_get, wait_for};

/// The largest part of valkey-cli's time that ours may take.
const PROMISE: f64 = 2.0;
/// What the clients may add to the slowest probe.
const DELAY: Duration = Duration::from_millis(50);
const CLIENTS: usize = 100;
const PORT: u16 = 8080;
const KINDS: [&str; 3] = ["startup", "liveness", "readiness"];

fn main() -> Result<()> {
    by_command()?;
    over_http()
}

/// Asks `run` for ten seconds alone, and for ten seconds in a crowd: those are twice as long as a head may take.
fn over_http() -> Result<()> {
    const FOR: Duration = Duration::from_secs(10);
    let valkey = Valkey::newest();
    let bed = Testbed::builder(&valkey).binary(env!("CARGO_BIN_EXE_valkeeper")).config("cluster-enabled", "no");
    let bed = bed.supervised(true).start_servers(false).build()?;
    let address = (bed.pod(0).addr(), PORT).into();
    bed.pod(0).set_run_args(&["--mode", "standalone", "--listen", &format!("{address}")]);
    bed.pod(0).start()?;
    wait_for("the pod to be ready", Duration::from_secs(30), || {
        Ok((http_get(address, "/readyz")?.0 == 200).then_some(()))
    })?;
    let ask = || -> Result<Vec<Duration>> {
        let (started, mut took) = (Instant::now(), Vec::new());
        while started.elapsed() < FOR {
            let asked = Instant::now();
            let (status, body) = http_get(address, "/readyz")?;
            took.push(asked.elapsed());
            ensure!(status == 200, "{status}: {body}");
        }
        took.sort();
        Ok(took)
    };
    let alone = ask()?;
    let crowd = Crowd::around(address, CLIENTS);
    let beside = ask()?;
    println!("one probe over HTTP, {} and {} runs", alone.len(), beside.len());
    for (name, took) in [("alone", &alone), ("in a crowd", &beside)] {
        let at = |part: f64| millis(took[((took.len() - 1) as f64 * part) as usize]);
        println!("{name:>18} {:>8.2} ms median, {:.2} ms p99, {:.2} ms slowest", at(0.5), at(0.99), at(1.0));
    }
    ensure!(crowd.connected() > CLIENTS / 2, "only {} of {CLIENTS} clients were there", crowd.connected());
    let added = beside[beside.len() - 1].saturating_sub(alone[alone.len() / 2]);
    println!("{:>18} {:>8.2} ms (promised: {:.2})", "added at most", millis(added), millis(DELAY));
    ensure!(added <= DELAY, "{CLIENTS} clients keep a probe waiting for {added:?}");
    Ok(())
}

fn by_command() -> Result<()> {
    let runs = std::env::var("VALKEEPER_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(200);
    let valkey = Valkey::newest();
    let bed = Testbed::builder(&valkey).pods(3).binary(env!("CARGO_BIN_EXE_valkeeper")).build()?;
    let formed =
        bed.valkeeper(&["bootstrap", "--replicas", "0", "--log-level", "error"]).stdout(Stdio::null()).status()?;
    ensure!(formed.success(), "bootstrap: {formed}");
    let host = bed.pod(0).addr().to_string();

    let mut commands = vec![ping(&valkey, &host)?];
    commands.extend(KINDS.map(|kind| bed.valkeeper_in(0, &["probe", kind])));
    let mut took = vec![Vec::new(); commands.len()];
    // In turn, so that what else the machine does falls on all of them.
    for _ in 0..runs {
        for (command, took) in commands.iter_mut().zip(&mut took) {
            took.push(time(command)?);
        }
    }
    let medians: Vec<Duration> = took.into_iter().map(median).collect();
    let theirs = medians[0];
    println!("one probe, Valkey {}, median of {runs} runs", valkey.version);
    println!("{:>18} {:>8.2} ms", "valkey-cli ping", millis(theirs));
    let mut broken = Vec::new();
    for (kind, ours) in KINDS.into_iter().zip(&medians[1..]) {
        let part = ours.as_secs_f64() / theirs.as_secs_f64();
        println!("{:>18} {:>8.2} ms {part:>6.2} (promised: {PROMISE:.2})", format!("probe {kind}"), millis(*ours));
        if part > PROMISE {
            broken.push(kind);
        }
    }
    ensure!(broken.is_empty(), "promise not kept for {broken:?}");
    Ok(())
}

/// valkey-cli as it is, without the script that finds its libraries here: the shell would count as its own.
fn ping(valkey: &Valkey, host: &str) -> Result<Command> {
    let here = valkey.cli.canonicalize()?;
    let here = here.parent().and_then(Path::parent).context("the folder of valkey-cli")?;
    let program = here.join("libexec/valkey-cli");
    let mut command = Command::new(here.join("lib/ld.so"));
    match program.is_file() {
        true => command.arg("--library-path").arg(here.join("lib")).arg(program),
        false => {
            command = Command::new(&valkey.cli);
            &mut command
        }
    };
    command.args(["-h", host, "ping"]);
    Ok(command)
}

fn time(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status()?;
    let took = started.elapsed();
    ensure!(status.success(), "{command:?}: {status}");
    Ok(took)
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
