//! How many keys one MIGRATE takes: the source serves nobody while it runs.

use std::time::Duration;

/// From this size on, in bytes of memory, a key is told to people.
pub const BIG: u64 = 4 << 20;

/// A key of the slot that is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name: any bytes.
    pub name: Vec<u8>,
    /// What it takes in memory, in bytes, as MEMORY USAGE says.
    pub bytes: u64,
}

/// The keys of one MIGRATE, all of one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Never empty.
    pub keys: Vec<Key>,
    /// What they weigh together.
    pub weight: u64,
}

/// How much one MIGRATE may weigh, made to fit the time that the last ones took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    limit: u64,
}

/// A key costs as much again as so many bytes: its command, its place in the dictionary, its deletion.
const OVERHEAD: u64 = 256;

impl Window {
    /// A MIGRATE that took longer than this, from question to answer, was too large. In it are those of the other
    /// connections to the same source that came before: so it bounds what a client waits for.
    const LONG: Duration = Duration::from_millis(25);
    const SHORT: Duration = Duration::from_millis(10);
    const LEAST: u64 = 16 << 10;
    const MOST: u64 = 1 << 20;

    /// Where to begin: some three milliseconds of an ordinary machine.
    pub const START: Self = Self { limit: 256 << 10 };

    /// How much one MIGRATE may weigh.
    pub fn limit(self) -> u64 {
        self.limit
    }

    /// The window after a MIGRATE of that weight took so long.
    #[must_use]
    pub fn after(self, weight: u64, took: Duration) -> Self {
        // One key alone cannot be made smaller, and says nothing of many.
        let limit = match took {
            _ if weight > self.limit => self.limit,
            took if took > Self::LONG => self.limit / 2,
            took if took < Self::SHORT && weight > self.limit / 2 => self.limit + self.limit / 4,
            _ => self.limit,
        };
        Self { limit: limit.clamp(Self::LEAST, Self::MOST) }
    }
}

impl Batch {
    /// Whether it is one key that people are told of.
    pub fn is_big(&self) -> bool {
        self.keys.iter().any(|key| key.bytes >= BIG)
    }
}

/// The keys of a slot in as few batches as the window allows; whatever is too large for it goes alone.
pub fn batches(keys: Vec<Key>, window: Window) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for key in keys {
        let weight = key.bytes.saturating_add(OVERHEAD);
        match batches.last_mut() {
            Some(last) if last.weight + weight <= window.limit => {
                last.weight += weight;
                last.keys.push(key);
            }
            _ => batches.push(Batch { keys: vec![key], weight }),
        }
    }
    batches
}

/// For how long a key of that size keeps its source from serving anybody when it is moved by MIGRATE: it is dumped, sent,
/// checked and stored before the source goes on. Measured on a plain machine; only an estimate.
pub fn blocks_for(bytes: u64) -> Duration {
    const BYTES_A_SECOND: f64 = 200e6;
    Duration::from_secs_f64(bytes as f64 / BYTES_A_SECOND)
}
