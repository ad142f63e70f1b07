//! How far a run is: for the person who watches, for the log, for the report.

use std::io::IsTerminal as _;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Mutex;
use tokio::time::{Instant, interval, sleep};

use crate::topology::rebalance::Key;
use crate::topology::slot::Slot;

/// Counts what is moved, tells it every few seconds, and holds the pace down where that is wanted.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    bar: Option<ProgressBar>,
    slots: AtomicU64,
    keys: AtomicU64,
    /// How many keys there will be in all, as far as is known.
    expected: AtomicU64,
    expected_slots: AtomicU64,
    /// In microseconds.
    longest: AtomicU64,
    big: Mutex<Vec<BigKey>>,
    pace: Option<NonZeroU32>,
    /// Until when the keys that went over already fill the time at that pace, in microseconds since the start.
    paid_until: AtomicU64,
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
        Self {
            started: Instant::now(),
            bar,
            slots: AtomicU64::default(),
            keys: AtomicU64::default(),
            expected: AtomicU64::default(),
            expected_slots: AtomicU64::default(),
            longest: AtomicU64::default(),
            big: Mutex::default(),
            pace,
            paid_until: AtomicU64::default(),
        }
    }

    /// How many slots have changed hands.
    pub fn slots(&self) -> u64 {
        read(&self.slots)
    }

    /// How many keys have.
    pub fn keys(&self) -> u64 {
        read(&self.keys)
    }

    /// How long it has taken so far.
    pub fn took(&self) -> Duration {
        self.started.elapsed()
    }

    /// The longest that a source was kept from serving by keys that are not told of one by one.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(read(&self.longest))
    }

    /// How many keys a second.
    pub fn rate(&self) -> u64 {
        let seconds = self.took().as_secs_f64();
        if seconds > 0.0 { (self.keys() as f64 / seconds) as u64 } else { 0 }
    }

    pub(super) async fn big(&self) -> Vec<BigKey> {
        self.big.lock().await.clone()
    }

    /// So much is about to be moved.
    pub(super) fn expect(&self, slots: u64, keys: u64) {
        self.expected.store(self.keys() + keys, Ordering::Relaxed);
        self.expected_slots.store(self.slots() + slots, Ordering::Relaxed);
    }

    /// So many slots have a new owner.
    pub(super) fn settled(&self, slots: usize) {
        self.slots.fetch_add(slots as u64, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(read(&self.expected_slots));
            bar.set_position(self.slots());
            bar.set_message(self.speed());
        }
    }

    /// Keys have gone over, and how long the source took.
    pub(super) fn moved(&self, keys: usize, took: Option<Duration>) {
        self.keys.fetch_add(keys as u64, Ordering::Relaxed);
        if let Some(took) = took {
            self.longest.fetch_max(micros(took), Ordering::Relaxed);
        }
    }

    pub(super) async fn moved_big(&self, key: &Key, slot: Slot, from: &str, took: Duration) {
        let name = String::from_utf8_lossy(&key.name).into_owned();
        self.big.lock().await.push(BigKey { name, slot, bytes: key.bytes, took, from: from.to_owned() });
        self.moved(1, None);
    }

    /// Waits until so many more keys may go.
    pub(super) async fn admit(&self, keys: usize) {
        let Some(pace) = self.pace else { return };
        let now = micros(self.took());
        let from = read(&self.paid_until).max(now);
        let costs = Duration::from_secs_f64(keys as f64 / f64::from(pace.get()));
        self.paid_until.store(from + micros(costs), Ordering::Relaxed);
        sleep(Duration::from_micros(from - now)).await;
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
            if self.bar.is_none() && read(&self.expected_slots) > self.slots() {
                tracing::info!("{} of {} slots, {}", self.slots(), read(&self.expected_slots), self.speed());
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
        let (done, all) = (self.keys(), read(&self.expected).max(self.keys()));
        let eta = match self.rate() {
            0 => String::new(),
            rate => format!(", {} s left", all.saturating_sub(done).div_ceil(rate)),
        };
        format!("{done} of {all} keys, {} keys/s{eta}", self.rate())
    }
}

fn read(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
