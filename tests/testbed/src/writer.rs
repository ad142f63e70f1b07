//! A client that writes without pause and remembers every acknowledgement.

mod link;
mod report;
mod tally;
mod worker;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use redis::{Connection, cmd};

use crate::cluster::Cluster;
use crate::locked::locked;
pub use report::{Gap, Lost, Report, ShardReport};
use tally::{Counts, Tally};
use worker::Worker;

/// How long a command may take, and a connection to open.
const PATIENCE: Duration = Duration::from_millis(200);
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Closed loops that write unique keys, each to one shard, and follow it wherever it goes. They end on drop.
///
/// A command has 200 ms; without an answer by then its connection is opened anew. What counts as what:
/// a redirect is MOVED or ASK; a reconnect is a connection that was closed while nothing was asked, or
/// refused; everything else is an error: another error reply, a time that ran out, and a connection
/// that breaks while a command is unanswered, since nobody knows what became of it.
#[derive(Debug)]
pub struct Writer {
    started: Instant,
    stop: Arc<AtomicBool>,
    loops: Vec<Loop>,
}

/// A moment in the life of a [`Writer`], which a report can begin at.
#[derive(Debug, Clone)]
pub struct Mark {
    at: Instant,
    counts: Vec<Counts>,
}

#[derive(Debug)]
struct Loop {
    shard: usize,
    tag: String,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// One loop for each primary that serves slots now, shards numbered in the order of their slots.
    /// Returns after every one's first acknowledgement.
    pub fn start(cluster: &dyn Cluster) -> Result<Self> {
        Self::start_many(cluster, 1)
    }

    /// [`Writer::start`] with several loops for each shard.
    pub fn start_many(cluster: &dyn Cluster, per_shard: usize) -> Result<Self> {
        Self::start_with(cluster, per_shard, PATIENCE)
    }

    /// [`Writer::start`] with another time for each command. A machine that is short of processors lets every server
    /// stand still for some hundred milliseconds; whoever judges by errors alone gives commands more than that.
    pub fn start_patient(cluster: &dyn Cluster, patience: Duration) -> Result<Self> {
        Self::start_with(cluster, 1, patience)
    }

    fn start_with(cluster: &dyn Cluster, per_shard: usize, patience: Duration) -> Result<Self> {
        let mut owned = cluster.owned()?;
        let mut seen = Vec::new();
        // A primary may serve several ranges.
        owned.retain(|one| {
            !seen.contains(&one.primary) && {
                seen.push(one.primary);
                true
            }
        });
        ensure!(!owned.is_empty(), "no node serves slots");
        let known: Vec<SocketAddr> = cluster.nodes().into_iter().map(|(_, node)| node).collect();
        let mut asked = cluster.any_connection()?;
        let started = Instant::now();
        let mut writer = Self { started, stop: Arc::default(), loops: Vec::new() };
        for (shard, one) in owned.iter().enumerate() {
            for _ in 0..per_shard {
                let tag = tag_in(&mut asked, |slot| one.slots.contains(&slot))?;
                let tally = Arc::new(Mutex::new(Tally::new(started)));
                let worker = Worker::new(
                    &tag,
                    one.primary,
                    known.clone(),
                    cluster.access().clone(),
                    patience,
                    tally.clone(),
                    writer.stop.clone(),
                );
                let thread = thread::Builder::new().name(format!("writer {shard}")).spawn(move || worker.run())?;
                writer.loops.push(Loop { shard, tag, tally, thread: Some(thread) });
            }
        }
        cluster.wait_for("the first acknowledgement of every writer", FIRST_ANSWER, || {
            let report = writer.report();
            let all = report.shards.iter().all(|shard| shard.acknowledged > 0);
            ensure!(all, "{report}");
            Ok(Some(()))
        })?;
        Ok(writer)
    }

    /// Now, for [`Writer::report_since`].
    pub fn mark(&self) -> Mark {
        let counts = self.loops.iter().map(|one| locked(&one.tally).counts.clone()).collect();
        Mark { at: Instant::now(), counts }
    }

    /// What has happened from the first acknowledgement until now.
    pub fn report(&self) -> Report {
        let mark = Mark { at: self.started, counts: vec![Counts::default(); self.loops.len()] };
        self.report_since(&mark)
    }

    /// What has happened since that moment. A gap that it fell into counts whole; a gap that is still
    /// open counts as it is now.
    pub fn report_since(&self, mark: &Mark) -> Report {
        let report = |(one, before): (&Loop, &Counts)| {
            let tally = locked(&one.tally);
            ShardReport::new(one.shard, &one.tag, self.started, &tally, mark.at, before)
        };
        Report { shards: self.loops.iter().zip(&mark.counts).map(report).collect() }
    }

    /// Ends the loops and tells all.
    pub fn stop(mut self) -> Report {
        self.join();
        self.report()
    }

    fn join(&mut self) {
        let running = !self.stop.swap(true, Ordering::Relaxed);
        for one in &mut self.loops {
            let _ = one.thread.take().map(JoinHandle::join);
        }
        if running {
            // The wait for the threads is no gap.
            self.loops.iter().for_each(|one| locked(&one.tally).end());
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.join();
    }
}

/// A hash tag that nobody in this process has had, and whose slot is as wished.
pub(crate) fn tag_in(asked: &mut Connection, wanted: impl Fn(u16) -> bool) -> Result<String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let tag = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        let slot = cmd("CLUSTER").arg("KEYSLOT").arg(&tag).query(asked).context("CLUSTER KEYSLOT")?;
        if wanted(slot) {
            return Ok(tag);
        }
    }
}
