//! What the writer tells, and what of it is still there.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use redis::{Connection, cmd};

use super::tally::{Counts, Tally};
use crate::cluster::Cluster;

const VERIFY_DEADLINE: Duration = Duration::from_secs(60);
const BATCH: usize = 1000;

/// What happened to all writers.
#[derive(Debug, Clone)]
pub struct Report {
    /// One for each loop, in the order of the shards.
    pub shards: Vec<ShardReport>,
}

/// What happened to one loop.
#[derive(Debug, Clone)]
pub struct ShardReport {
    /// The shard's number, in the order of slots when the writer was started.
    pub shard: usize,
    /// What is between the braces of its keys, `w:{TAG}:N` with value N.
    pub tag: String,
    /// How many writes were acknowledged.
    pub acknowledged: u64,
    /// The longest time without an acknowledgement.
    pub longest_gap: Gap,
    /// How many answers were MOVED or ASK.
    pub redirects: u64,
    /// How many connections were closed while nothing was asked, or refused.
    pub reconnects: u64,
    /// How many commands failed, by the first word of the answer, or `timeout`, or `broken` for a
    /// connection that ended with a command unanswered.
    pub errors: BTreeMap<String, u64>,
    keys: Vec<Range<u64>>,
}

/// A time without an acknowledgement. None of less than a millisecond is kept; those are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// How long it was.
    pub length: Duration,
    /// When it began, counted from the start of the writer.
    pub began: Duration,
}

/// Acknowledged writes that are not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many were looked for.
    pub checked: u64,
    /// How many are missing or hold another value.
    pub keys: u64,
    /// The first of them of every loop that lost any.
    pub first: Vec<String>,
}

impl ShardReport {
    pub(super) fn new(
        shard: usize,
        tag: &str,
        started: Instant,
        tally: &Tally,
        since: Instant,
        before: &Counts,
    ) -> Self {
        let now = &tally.counts;
        let gaps = tally.gaps.iter().copied().chain([tally.open_gap()]);
        let gaps = gaps.filter(|(began, ended)| *ended > since && *ended - *began >= Duration::from_millis(1));
        let longest = gaps.map(|(began, ended)| Gap { length: ended - began, began: began - started }).max();
        let errors = now.errors.iter().map(|(kind, count)| {
            let before = before.errors.get(kind).copied().unwrap_or(0);
            (kind.clone(), count - before)
        });
        let keys = tally.acknowledged.iter().map(|range| range.start.max(before.next)..range.end);
        Self {
            shard,
            tag: tag.to_owned(),
            acknowledged: now.acknowledged - before.acknowledged,
            longest_gap: longest.unwrap_or_default(),
            redirects: now.redirects - before.redirects,
            reconnects: now.reconnects - before.reconnects,
            errors: errors.filter(|(_, count)| *count > 0).collect(),
            keys: keys.filter(|range| !range.is_empty()).collect(),
        }
    }

    /// How many commands failed.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    fn verify(&self, cluster: &dyn Cluster, lost: &mut Lost) -> Result<()> {
        let numbers: Vec<u64> = self.keys.iter().cloned().flatten().collect();
        let mut owner = None;
        let before = lost.keys;
        for batch in numbers.chunks(BATCH) {
            let keys: Vec<String> = batch.iter().map(|number| format!("w:{{{}}}:{number}", self.tag)).collect();
            let values = cluster.wait_for("acknowledged keys to be read back", VERIFY_DEADLINE, || {
                let mut connection = match owner.take() {
                    Some(connection) => connection,
                    None => serving(cluster, &keys[0])?,
                };
                let values: Vec<Option<String>> = cmd("MGET").arg(&keys).query(&mut connection)?;
                owner = Some(connection);
                Ok(Some(values))
            })?;
            for ((number, key), value) in batch.iter().zip(keys).zip(values) {
                lost.checked += 1;
                if value.as_ref() != Some(&number.to_string()) {
                    if lost.keys == before {
                        lost.first.push(format!("{key} is {value:?}"));
                    }
                    lost.keys += 1;
                }
            }
        }
        Ok(())
    }
}

impl Report {
    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.shards.iter().map(|shard| shard.acknowledged).sum()
    }

    /// The longest time in which some loop had no acknowledgement.
    pub fn longest_gap(&self) -> Gap {
        self.shards.iter().map(|shard| shard.longest_gap).max().unwrap_or_default()
    }

    /// How many answers were MOVED or ASK.
    pub fn redirects(&self) -> u64 {
        self.shards.iter().map(|shard| shard.redirects).sum()
    }

    /// How many connections were closed while nothing was asked, or refused.
    pub fn reconnects(&self) -> u64 {
        self.shards.iter().map(|shard| shard.reconnects).sum()
    }

    /// How many commands failed.
    pub fn error_count(&self) -> u64 {
        self.shards.iter().map(ShardReport::error_count).sum()
    }

    /// How many commands failed, by kind.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for (kind, count) in self.shards.iter().flat_map(|shard| &shard.errors) {
            *sum.entry(kind.clone()).or_default() += count;
        }
        sum
    }

    /// Reads every acknowledged key back from whoever serves it now. Waits for a cluster that does not
    /// serve for a minute at most.
    pub fn verify(&self, cluster: &dyn Cluster) -> Result<Lost> {
        let mut lost = Lost::default();
        for shard in &self.shards {
            shard.verify(cluster, &mut lost)?;
        }
        Ok(lost)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for shard in &self.shards {
            let ShardReport { shard: number, acknowledged, longest_gap, redirects, reconnects, errors, .. } = shard;
            let Gap { length, began } = longest_gap;
            writeln!(
                f,
                "shard {number}: {acknowledged} acknowledged, longest gap {length:.1?} after {began:.1?}, \
                 {redirects} redirects, {reconnects} reconnects, errors {errors:?}"
            )?;
        }
        Ok(())
    }
}

/// A connection to the node that serves the key: the others answer MOVED.
fn serving(cluster: &dyn Cluster, key: &str) -> Result<Connection> {
    let serves = |(_, node): &(_, _)| {
        let mut connection = cluster.access().connect(*node).ok()?;
        cmd("GET").arg(key).query::<Option<String>>(&mut connection).ok()?;
        Some(connection)
    };
    cluster.nodes().iter().find_map(serves).with_context(|| format!("no node serves {key}"))
}
