//! Hash slots: the 16384 pieces a Valkey Cluster's key space is cut into.

use std::fmt;

/// How many slots a cluster has (`CLUSTER_SLOTS` in the server's `cluster.h`).
pub const SLOT_COUNT: u16 = 16_384;

/// A slot number below [`SLOT_COUNT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

/// Neighbouring slots from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotRange {
    first: Slot,
    last: Slot,
}

/// Any set of slots.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet {
    words: [u64; WORDS],
}

const WORDS: usize = SLOT_COUNT as usize / 64;

impl Slot {
    /// A slot, unless the number is too large for one.
    pub fn new(number: u16) -> Option<Self> {
        (number < SLOT_COUNT).then_some(Self(number))
    }

    /// The slot's number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl SlotRange {
    /// The slots from `first` to `last`, unless they are the wrong way round.
    pub fn new(first: Slot, last: Slot) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The part of the key space that shard `index` of `shards` gets when nothing stands yet: as even as whole slots
    /// allow, the longer parts first. `None` where `index` is no shard, or there are more shards than slots.
    pub fn share(index: u16, shards: u16) -> Option<Self> {
        if index >= shards || shards > SLOT_COUNT {
            return None;
        }
        let (size, longer) = (SLOT_COUNT / shards, SLOT_COUNT % shards);
        let first = index * size + index.min(longer);
        let last = first + size - u16::from(index >= longer);
        Self::new(Slot::new(first)?, Slot::new(last)?)
    }

    /// Whose share a slot is in, of so many shards; the inverse of [`SlotRange::share`].
    pub fn shard_of(slot: Slot, shards: u16) -> u16 {
        let shards = shards.clamp(1, SLOT_COUNT);
        let (size, longer) = (SLOT_COUNT / shards, SLOT_COUNT % shards);
        match slot.0 < longer * (size + 1) {
            true => slot.0 / (size + 1),
            false => (slot.0 - longer) / size,
        }
    }

    /// The lowest slot of the range.
    pub fn first(self) -> Slot {
        self.first
    }

    /// The highest slot of the range.
    pub fn last(self) -> Slot {
        self.last
    }

    /// The slots of the range, ascending.
    pub fn slots(self) -> impl Iterator<Item = Slot> {
        (self.first.0..=self.last.0).map(Slot)
    }
}

impl SlotSet {
    /// No slot at all.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// Every slot there is.
    pub const ALL: Self = Self { words: [u64::MAX; WORDS] };

    /// Adds a slot; false where it was in already.
    pub fn insert(&mut self, slot: Slot) -> bool {
        let bit = 1u64 << (slot.0 % 64);
        match self.words.get_mut(usize::from(slot.0 / 64)) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }

    /// Whether the slot is in.
    pub fn contains(&self, slot: Slot) -> bool {
        self.words.get(usize::from(slot.0 / 64)).is_some_and(|word| word & (1u64 << (slot.0 % 64)) != 0)
    }

    /// How many slots are in.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no slot is in.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Adds every slot of `other`.
    pub fn add(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(other.words) {
            *word |= more;
        }
    }

    /// The slots that are in both.
    pub fn and(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// The slots that are in this one and not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    /// The slots as ranges, ascending, none touching the next.
    pub fn ranges(&self) -> Vec<SlotRange> {
        let mut ranges: Vec<SlotRange> = Vec::new();
        for slot in self.slots() {
            match ranges.last_mut() {
                Some(range) if range.last.0 + 1 == slot.0 => range.last = slot,
                _ => ranges.push(SlotRange { first: slot, last: slot }),
            }
        }
        ranges
    }

    /// The slots, ascending.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let bits = |word: u64| (0..64).filter(move |bit| word >> bit & 1 == 1);
        let words = (0..).step_by(64).zip(&self.words).filter(|(_, word)| **word != 0);
        words.flat_map(move |(first, word)| bits(*word).map(move |bit| Slot(first + bit)))
    }

    fn combine(&self, other: &Self, both: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = Self::EMPTY;
        for ((word, a), b) in result.words.iter_mut().zip(self.words).zip(other.words) {
            *word = both(a, b);
        }
        result
    }
}

impl<'a> Extend<&'a SlotRange> for SlotSet {
    fn extend<I: IntoIterator<Item = &'a SlotRange>>(&mut self, ranges: I) {
        for range in ranges {
            let (first, last) = (usize::from(range.first.0), usize::from(range.last.0));
            for (index, word) in self.words.iter_mut().enumerate().take(last / 64 + 1).skip(first / 64) {
                let low = first.saturating_sub(index * 64);
                let high = (last - index * 64).min(63);
                *word |= (u64::MAX << low) & (u64::MAX >> (63 - high));
            }
        }
    }
}

impl<'a> FromIterator<&'a SlotRange> for SlotSet {
    fn from_iter<I: IntoIterator<Item = &'a SlotRange>>(ranges: I) -> Self {
        let mut set = Self::EMPTY;
        set.extend(ranges);
        set
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl fmt::Debug for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ranges(f, &self.ranges())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({self})")
    }
}

/// Writes ranges as people read them, `0-5460 5462`, the tail of a long list as a count.
fn write_ranges(f: &mut fmt::Formatter<'_>, ranges: &[SlotRange]) -> fmt::Result {
    const SHOWN: usize = 4;
    if ranges.is_empty() {
        return f.write_str("-");
    }
    for (place, range) in ranges.iter().take(SHOWN).enumerate() {
        if place > 0 {
            f.write_str(" ")?;
        }
        write!(f, "{range}")?;
    }
    match ranges.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, " and {more} more ranges"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_slot_once_and_differ_by_one_at_most() {
        for shards in [1, 2, 3, 5, 7, 100, 1_000, SLOT_COUNT] {
            let mut covered = SlotSet::EMPTY;
            let mut sizes = Vec::new();
            for index in 0..shards {
                let share = SlotRange::share(index, shards);
                sizes.push(share.into_iter().flat_map(SlotRange::slots).filter(|slot| covered.insert(*slot)).count());
            }
            assert_eq!(covered, SlotSet::ALL);
            assert!(sizes.iter().max().zip(sizes.iter().min()).is_some_and(|(max, min)| max - min <= 1));
        }
    }

    #[test]
    fn there_is_no_share_beyond_the_shards_nor_beyond_the_slots() {
        assert_eq!(SlotRange::share(3, 3), None);
        assert_eq!(SlotRange::share(0, 0), None);
        assert_eq!(SlotRange::share(0, SLOT_COUNT + 1), None);
    }

    #[test]
    fn ranges_of_a_set_join_neighbours() {
        let ranges: Vec<_> = [(0, 3), (4, 5), (7, 7)]
            .into_iter()
            .filter_map(|(first, last)| SlotRange::new(Slot::new(first)?, Slot::new(last)?))
            .collect();
        assert_eq!(SlotSet::from_iter(&ranges).to_string(), "0-5 7");
    }
}
