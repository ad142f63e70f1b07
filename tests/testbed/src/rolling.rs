//! Every pod restarted, one by one, as a StatefulSet's rolling update does.

use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use redis::cmd;

use crate::process::run;
use crate::testbed::Testbed;
use crate::writer::{Gap, Report, Writer};

/// How pods are restarted.
#[derive(Debug, Clone)]
pub struct Rolling {
    /// How a pod goes.
    pub leave: Leave,
    /// How long it is away, between the end of its process and the start of the next.
    pub away: Duration,
    /// What is waited for before the next pod's turn.
    pub ready: Ready,
    /// How long each of these may take: to leave, and to be ready again.
    pub deadline: Duration,
}

/// How a pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// SIGTERM to what the pod started, the server or `run`.
    Terminate,
    /// The preStop hook that charts have: BGSAVE, and so long a sleep. Then SIGTERM.
    SaveAndSleep(Duration),
    /// `valkeeper drain` with these arguments, which must exit with 0. Then SIGTERM.
    Drain(Vec<String>),
}

/// When a pod is ready again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// Every server says ok and every replica follows.
    InSync,
    /// `valkeeper probe readiness` in that pod exits with 0.
    Probe,
}

/// What the restart of one pod did.
#[derive(Debug, Clone)]
pub struct PodRestart {
    /// Which one.
    pub pod: usize,
    /// Whether it served slots when its turn came.
    pub was_primary: bool,
    /// The longest time in which some shard had no acknowledged write.
    pub gap: Gap,
    /// From the first thing done to it until it was ready again.
    pub took: Duration,
    /// How what the pod had started ended.
    pub status: ExitStatus,
    /// What the writer saw meanwhile.
    pub report: Report,
}

/// Restarts every pod, the last first. Fails where one does not leave or come back in time.
pub fn rolling_restart(bed: &Testbed, writer: &Writer, how: &Rolling) -> Result<Vec<PodRestart>> {
    (0..bed.pods().len()).rev().map(|pod| restart_pod(bed, writer, pod, how)).collect()
}

/// One pod's turn in [`rolling_restart`].
pub fn restart_pod(bed: &Testbed, writer: &Writer, pod: usize, how: &Rolling) -> Result<PodRestart> {
    let mark = writer.mark();
    let was_primary = bed.primaries()?.contains(&pod);
    let started = Instant::now();
    let restarted = leave(bed, pod, how).and_then(|status| {
        thread::sleep(how.away);
        bed.pod(pod).start()?;
        wait_ready(bed, pod, how)?;
        Ok(status)
    });
    let took = started.elapsed();
    let report = writer.report_since(&mark);
    let status = restarted.with_context(|| format!("restart of pod {pod} after {took:?}; writers:\n{report}"))?;
    Ok(PodRestart { pod, was_primary, gap: report.longest_gap(), took, status, report })
}

fn leave(bed: &Testbed, pod: usize, how: &Rolling) -> Result<ExitStatus> {
    match &how.leave {
        Leave::Terminate => {}
        Leave::SaveAndSleep(time) => {
            // Such a hook looks neither at the answer nor at the end of it.
            let _ = cmd("BGSAVE").exec(&mut bed.connection(pod)?);
            thread::sleep(*time);
        }
        Leave::Drain(args) => {
            let args: Vec<&str> = ["drain"].into_iter().chain(args.iter().map(String::as_str)).collect();
            let output = run(&mut bed.valkeeper_in(pod, &args), how.deadline)?;
            let printed = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "valkeeper drain ended with {}:\n{printed}", output.status);
        }
    }
    bed.pod(pod).terminate()?;
    bed.pod(pod).wait_end(how.deadline)
}

fn wait_ready(bed: &Testbed, pod: usize, how: &Rolling) -> Result<()> {
    match how.ready {
        Ready::InSync => bed.wait_in_sync(how.deadline),
        Ready::Probe => bed.wait_for("valkeeper probe readiness to pass", how.deadline, || {
            let output = run(&mut bed.valkeeper_in(pod, &["probe", "readiness"]), how.deadline)?;
            let printed = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "pod {pod} is not ready: {printed}");
            Ok(Some(()))
        }),
    }
}
