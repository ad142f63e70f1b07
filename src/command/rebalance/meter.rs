//! How far a run is: for the person who watches, for the log, for the report.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal as _;
use std::num::NonZeroU32;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, interval, sleep};

use crate::topology::rebalance::Key;
use crate::topology::slot::Slot;

/// Counts what is moved, tells it every few seconds, and holds the pace down where that is wanted.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    bar: Option<ProgressBar>,
    slots: Cell<u64>,
    keys: Cell<u64>,
    /// How many keys there will be in all, as far as is known.
    expected: Cell<u64>,
    expected_slots: Cell<u64>,
    progressed: Cell<Instant>,
    longest: Cell<Duration>,
    big: RefCell<Vec<BigKey>>,
    pace: Option<NonZeroU32>,
    /// Until when the keys that went over already fill the time at that pace.
    paid_until: Cell<Instant>,
}

/// A key that was moved alone, because it keeps its source from serving anybody meanwhile.
#[derive(Clone, Debug)]
pub(super) struct BigKey {
    pub(super) name: String,
    pub(super) slot: Slot,
    pub(super) bytes: u64,
    pub(super) took: Duration,
    pub(super) from: String,
}

impl Meter {
    /// Nothing is moved yet; no more than so many keys a second will be.
    pub fn new(pace: Option<NonZeroU32>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:20}] {pos}/{len} slots  {wide_msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let now = Instant::now();
        Self {
            started: now,
            bar,
            slots: Cell::default(),
            keys: Cell::default(),
            expected: Cell::default(),
            expected_slots: Cell::default(),
            progressed: Cell::new(now),
            longest: Cell::default(),
            big: RefCell::default(),
            pace,
            paid_until: Cell::new(now),
        }
    }

    /// How many slots have changed hands.
    pub fn slots(&self) -> u64 {
        self.slots.get()
    }

    /// How many keys have.
    pub fn keys(&self) -> u64 {
        self.keys.get()
    }

    /// How long it has taken so far.
    pub fn took(&self) -> Duration {
        self.started.elapsed()
    }

    /// The longest that a source was kept from serving by keys that are not told of one by one.
    pub fn longest(&self) -> Duration {
        self.longest.get()
    }

    /// How many keys a second.
    pub fn rate(&self) -> u64 {
        let seconds = self.took().as_secs_f64();
        if seconds > 0.0 { (self.keys.get() as f64 / seconds) as u64 } else { 0 }
    }

    pub(super) fn big(&self) -> Vec<BigKey> {
        self.big.borrow().clone()
    }

    /// How long ago anything was moved.
    pub(super) fn idle(&self) -> Duration {
        self.progressed.get().elapsed()
    }

    /// So much is about to be moved.
    pub(super) fn expect(&self, slots: u64, keys: u64) {
        self.expected.set(self.keys.get() + keys);
        self.expected_slots.set(self.slots.get() + slots);
    }

    /// So many slots have a new owner.
    pub(super) fn settled(&self, slots: usize) {
        self.slots.set(self.slots.get() + slots as u64);
        self.progressed.set(Instant::now());
        if let Some(bar) = &self.bar {
            bar.set_length(self.expected_slots.get());
            bar.set_position(self.slots.get());
            bar.set_message(self.speed());
        }
    }

    /// Keys have gone over, and how long the source took.
    pub(super) fn moved(&self, keys: usize, took: Option<Duration>) {
        self.keys.set(self.keys.get() + keys as u64);
        self.progressed.set(Instant::now());
        if let Some(took) = took {
            self.longest.set(self.longest.get().max(took));
        }
    }

    pub(super) fn moved_big(&self, key: &Key, slot: Slot, from: &str, took: Duration) {
        let name = String::from_utf8_lossy(&key.name).into_owned();
        self.big.borrow_mut().push(BigKey { name, slot, bytes: key.bytes, took, from: from.to_owned() });
        self.moved(1, None);
    }

    /// Waits until so many more keys may go.
    pub(super) async fn admit(&self, keys: usize) {
        let Some(pace) = self.pace else { return };
        let now = Instant::now();
        let from = self.paid_until.get().max(now);
        self.paid_until.set(from + Duration::from_secs_f64(keys as f64 / f64::from(pace.get())));
        sleep(from - now).await;
    }

    /// The pace that was asked for.
    pub(super) fn pace(&self) -> Option<NonZeroU32> {
        self.pace
    }

    /// A line in the log every few seconds, where there is no terminal to draw on; never over.
    pub(super) async fn tell(&self) {
        const OFTEN: Duration = Duration::from_secs(5);
        let mut ticks = interval(OFTEN);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if self.bar.is_none() && self.expected_slots.get() > self.slots.get() {
                tracing::info!("{} of {} slots, {}", self.slots.get(), self.expected_slots.get(), self.speed());
            }
        }
    }

    /// Says something once.
    pub(super) fn say(&self, sentence: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(sentence.to_owned()),
            None => tracing::info!("{sentence}"),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn speed(&self) -> String {
        let (done, all) = (self.keys.get(), self.expected.get().max(self.keys.get()));
        let eta = match self.rate() {
            0 => String::new(),
            rate => format!(", {} s left", all.saturating_sub(done).div_ceil(rate)),
        };
        format!("{done} of {all} keys, {} keys/s{eta}", self.rate())
    }
}
