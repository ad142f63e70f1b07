//! Containers, and the images that they are made of: the project's own Dockerfile over what is on this machine.
//!
//! `scripts/with-docker.sh` runs the tests with an engine. Everything they make has the name of their process in its own,
//! and goes when its owner is dropped.

mod chart;
mod group;
mod images;
mod pods;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testbed::{Cluster, Report, ShardReport, Writer};

pub use chart::{Chart, ChartPods};
pub use group::{Group, Shape};
pub use images::{Images, images};
pub use pods::Pod;

/// How long one command of Docker may take; to build an image is the longest.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs `docker` to its end; what it printed, or what went wrong.
pub fn docker(args: &[&str]) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(args).env("DOCKER_BUILDKIT", "1");
    finished(&mut command)
}

/// Runs a program to its end; what it printed on standard output, or what went wrong.
pub fn finished(command: &mut Command) -> Result<String> {
    testbed::die_with_parent(command);
    let output = testbed::run(command, DEADLINE).with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let said = [&output.stderr[..], &output.stdout].concat();
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A client that writes without pause. A machine that lacks processors, or whose disk has other work, lets every server
/// stand still for a second and more: how long a pause is, [`Pauses`] judges.
pub fn writer(cluster: &dyn Cluster) -> Result<Writer> {
    Writer::start_patient(cluster, Duration::from_secs(10))
}

/// How long the clients of a shard that was handed over could write nothing, and those of the others meanwhile.
///
/// What held up the others, too, the machine did: its disk and its processors have other work.
#[derive(Debug, Default)]
pub struct Pauses(Vec<(Duration, Duration)>);

impl Pauses {
    /// Does something to a primary under a client that writes, and keeps how long that was held up.
    pub fn during(&mut self, writer: &Writer, deed: impl FnOnce()) {
        let mark = writer.mark();
        deed();
        let report = writer.report_since(&mark);
        // Its writes were sent to another node from then on.
        let (moved, others): (Vec<_>, Vec<_>) = report.shards.iter().partition(|shard| shard.redirects > 0);
        assert_eq!(moved.len(), 1, "{report}");
        let longest = |shards: &[&ShardReport]| shards.iter().map(|shard| shard.longest_gap.length).max();
        self.0.push((longest(&moved).unwrap(), longest(&others).unwrap()));
    }

    /// They were as short as promised, but for what the machine took. It may have held up one of them and nobody else.
    pub fn assert_short(&self) {
        const LONGEST: Duration = Duration::from_millis(150);
        println!("without a write, and the other shards meanwhile: {:.1?}", self.0);
        let own = self.0.iter().map(|(pause, machine)| pause.saturating_sub(*machine));
        assert!(own.filter(|pause| *pause > LONGEST).count() <= 1, "{:?}", self.0);
    }
}

/// Some writes, and what they are to be verified by.
pub fn some_writes(cluster: &dyn Cluster) -> Result<Report> {
    let writer = writer(cluster)?;
    testbed::wait_for("some writes", Duration::from_secs(60), || {
        Ok((writer.report().acknowledged() > 1_000).then_some(()))
    })?;
    Ok(writer.stop())
}

/// A name that nobody else has.
pub fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("valkeeper-{}-{what}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
