//! Every pod of a cluster restarted, one by one, under clients that write without pause: a part of `make demo`.
//!
//! `rolling_restart VALKEEPER FOLDER`: the program, and a folder with valkey-server and valkey-cli. Fails when a write was
//! lost or refused, or a shard was gone for as long as the node timeout. Ctrl-C takes everything away once the pod whose
//! turn it is is back; a second one leaves files behind.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal};
use testbed::redis::{Value, cmd, from_redis_value};
use testbed::{Leave, PodRestart, Ready, Report, Rolling, Testbed, Valkey, Writer, fill, restart_pod};

const LIMIT: Duration = Duration::from_secs(60);
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
const KEYS_A_SHARD: u64 = 20_000;
const VALUE_SIZE: usize = 100;
/// What a shell says of a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match demonstrate() {
        Ok(true) => ExitCode::SUCCESS,
        _ if STOP.load(Ordering::Relaxed) => ExitCode::from(INTERRUPTED),
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rolling_restart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False where it was interrupted, as below.
fn demonstrate() -> Result<bool> {
    hear_signals()?;
    let args: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [valkeeper, folder] = &args[..] else {
        bail!("usage: rolling_restart VALKEEPER FOLDER, the folder being that of valkey-server and valkey-cli");
    };
    // In memory, as on a disk that others write to the disk is what is measured.
    let bed = Testbed::builder(&valkey(&absolute(folder)?)?)
        .pods(6)
        .config("save", "3600 1")
        .config("cluster-node-timeout", &NODE_TIMEOUT.as_millis().to_string())
        .binary(absolute(valkeeper)?)
        .supervised(true)
        .in_memory(true)
        .build()?;
    println!(
        "Six pods of Valkey {} run under `valkeeper run`, {} to {}.",
        bed.valkey().version,
        bed.pod(0).addr(),
        bed.pod(5).addr()
    );
    Ok(form(&bed)? && restart_all(&bed)?)
}

fn form(bed: &Testbed) -> Result<bool> {
    let started = Instant::now();
    bed.form(3, 1)?;
    let formed = started.elapsed();
    let primaries = bed.primaries()?;
    for primary in &primaries {
        fill(bed, *primary, KEYS_A_SHARD, VALUE_SIZE)?;
    }
    bed.wait_in_sync(LIMIT)?;
    let names: Vec<_> = primaries.iter().map(|primary| bed.pod(*primary).name()).collect();
    println!(
        "`valkeeper bootstrap` made a cluster of them in {:.1} s; primaries: {}. {} keys are in it.",
        formed.as_secs_f64(),
        names.join(", "),
        KEYS_A_SHARD * 3
    );
    Ok(!STOP.load(Ordering::Relaxed))
}

fn restart_all(bed: &Testbed) -> Result<bool> {
    let rolling =
        Rolling { leave: Leave::Terminate, away: Duration::from_secs(1), ready: Ready::Probe, deadline: LIMIT };
    let writer = Writer::start(bed)?;
    println!(
        "A client writes to each shard without pause. Each pod gets SIGTERM, is away for a second, and comes back.\n"
    );
    println!("{:<10} {:<8} {:<22} {:>13} {:>9}", "POD", "WAS", "", "BACK, READY", "GAP");
    for pod in (0..bed.pods().len()).rev() {
        let restart = restart_pod(bed, &writer, pod, &rolling)?;
        tell(bed, &restart)?;
        if STOP.load(Ordering::Relaxed) {
            return Ok(false);
        }
    }
    bed.wait_in_sync(LIMIT)?;
    let report = writer.stop();
    let lost = report.verify(bed)?.keys;
    conclude(&report, lost)?;
    Ok(true)
}

fn tell(bed: &Testbed, restart: &PodRestart) -> Result<()> {
    let PodRestart { pod, was_primary, gap, took, status, .. } = restart;
    ensure!(status.success(), "run in {} ended with {status}", bed.pod(*pod).name());
    let (role, what) = match was_primary {
        true => ("primary", format!("{} took over", followed(bed, *pod)?)),
        false => ("replica", String::new()),
    };
    println!(
        "{:<10} {role:<8} {what:<22} {:>11.1} s {:>6} ms",
        bed.pod(*pod).name(),
        took.as_secs_f64(),
        gap.length.as_millis()
    );
    Ok(())
}

/// The pod that this one copies.
fn followed(bed: &Testbed, pod: usize) -> Result<String> {
    let role: Vec<Value> = cmd("ROLE").query(&mut bed.connection(pod)?)?;
    let host: String = from_redis_value(role.get(1).context("ROLE says nothing")?.clone())?;
    let found = bed.pods().iter().find(|other| other.addr().to_string() == host);
    Ok(found.with_context(|| format!("{host} is no pod"))?.name().to_owned())
}

/// What a client would call an outage fails. A command without an answer within 200 ms is an error too, but on a machine
/// that is busy with something else it says little: it is told, and held against us where nothing else runs, in the bench.
fn conclude(report: &Report, lost: u64) -> Result<()> {
    let (errors, longest) = (report.errors(), report.longest_gap().length);
    println!("\nlongest write gap   {} ms", longest.as_millis());
    println!("errors              {}", report.error_count());
    println!("acknowledged        {}", report.acknowledged());
    println!("lost                {lost}");
    ensure!(lost == 0, "{lost} acknowledged writes are lost");
    ensure!(errors.keys().all(|kind| kind == "timeout"), "writes failed: {errors:?}");
    ensure!(longest < NODE_TIMEOUT, "a shard was without a primary for {longest:?}");
    if !errors.is_empty() {
        println!(
            "\nThe errors are answers that took longer than 200 ms. Is this machine busy with something else? On one that is \
             not there are none."
        );
    }
    Ok(())
}

/// Servers are started in folders of their own.
fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| path.display().to_string())
}

fn valkey(folder: &Path) -> Result<Valkey> {
    let [server, cli] = ["valkey-server", "valkey-cli"].map(|name| folder.join(name));
    let printed = Command::new(&server).arg("--version").output();
    let printed = printed.with_context(|| format!("run {}", server.display()))?;
    let printed = String::from_utf8_lossy(&printed.stdout);
    let version = printed.split_whitespace().find_map(|word| word.strip_prefix("v="));
    let version = version.with_context(|| format!("{} is no server", server.display()))?.to_owned();
    Ok(Valkey { version, server, cli })
}

/// Servers, files and addresses go with values, so an interruption has to end `main` and not the process.
fn hear_signals() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            if STOP.swap(true, Ordering::Relaxed) {
                exit(INTERRUPTED.into());
            }
            eprintln!("Interrupted: everything is taken away as soon as the present step is done.");
        }
    });
    Ok(())
}
