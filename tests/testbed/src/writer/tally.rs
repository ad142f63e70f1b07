//! What one loop remembers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Shorter pauses are what a closed loop is made of.
const LEAST_GAP: Duration = Duration::from_millis(1);

/// Numbers that only grow.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) redirects: u64,
    pub(super) reconnects: u64,
    pub(super) errors: BTreeMap<String, u64>,
    /// The first number that was not yet tried.
    pub(super) next: u64,
}

#[derive(Debug)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    /// The acknowledged numbers, in order, joined where they touch: a writer of hours fits, and no
    /// growing list makes a pause of its own.
    pub(super) acknowledged: Vec<Range<u64>>,
    /// From when to when nothing was acknowledged.
    pub(super) gaps: Vec<(Instant, Instant)>,
    pub(super) last: Instant,
    pub(super) ended: Option<Instant>,
}

impl Tally {
    pub(super) fn new(now: Instant) -> Self {
        Self { counts: Counts::default(), acknowledged: Vec::new(), gaps: Vec::new(), last: now, ended: None }
    }

    pub(super) fn acknowledge(&mut self, number: u64) {
        let now = Instant::now();
        // What came before the first is the start of the loop.
        if self.counts.acknowledged > 0 && now - self.last >= LEAST_GAP {
            self.gaps.push((self.last, now));
        }
        self.last = now;
        self.counts.acknowledged += 1;
        self.counts.next = number + 1;
        match self.acknowledged.last_mut() {
            Some(range) if range.end == number => range.end += 1,
            _ => self.acknowledged.push(number..number + 1),
        }
    }

    pub(super) fn error(&mut self, kind: &str, number: u64) {
        *self.counts.errors.entry(kind.to_owned()).or_default() += 1;
        self.counts.next = number + 1;
    }

    pub(super) fn end(&mut self) {
        self.ended.get_or_insert_with(Instant::now);
    }

    /// The gap that is open.
    pub(super) fn open_gap(&self) -> (Instant, Instant) {
        (self.last, self.ended.unwrap_or_else(Instant::now))
    }
}
