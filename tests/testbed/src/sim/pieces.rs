//! The key space cut into the few pieces that a story can tell apart, so that a set of slots is one number.

use valkeeper::topology::{Slot, SlotRange};

/// A set of pieces, a bit each.
pub type PieceSet = u128;

/// The key space, cut at every border that one of the given numbers of shards makes.
#[derive(Clone, Debug)]
pub struct Pieces {
    ranges: Vec<SlotRange>,
}

impl Pieces {
    /// The pieces that shares of these numbers of shards are made of; at most 128.
    pub fn of(shards: &[u16]) -> Self {
        let mut firsts: Vec<u16> = shards
            .iter()
            .flat_map(|count| (0..*count).filter_map(|index| SlotRange::share(index, *count)))
            .map(|share| share.first().number())
            .chain([0])
            .collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert!(firsts.len() <= 128, "a set of pieces has 128 bits");
        let lasts = firsts.iter().skip(1).map(|next| next - 1).chain([valkeeper::topology::SLOT_COUNT - 1]);
        let ranges = firsts.iter().zip(lasts).filter_map(|(first, last)| range(*first, last)).collect();
        Self { ranges }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// The first slot of each.
    pub fn firsts(&self) -> impl Iterator<Item = Slot> {
        self.ranges.iter().map(|range| range.first())
    }

    /// All of them.
    pub fn all(&self) -> PieceSet {
        (0..self.count()).fold(0, |set, piece| set | 1 << piece)
    }

    /// How many slots a set has.
    pub fn slots(&self, set: PieceSet) -> u16 {
        self.chosen(set).map(|range| range.last().number() - range.first().number() + 1).sum()
    }

    /// The pieces of these ranges; none where a range ends within a piece.
    pub fn set(&self, ranges: &[SlotRange]) -> Option<PieceSet> {
        let mut set = 0;
        for range in ranges {
            let inside = |piece: &SlotRange| range.first() <= piece.first() && piece.last() <= range.last();
            let part =
                self.ranges.iter().enumerate().filter(|(_, piece)| inside(piece)).fold(0, |s, (n, _)| s | 1 << n);
            if self.slots(part) != range.last().number() - range.first().number() + 1 {
                return None;
            }
            set |= part;
        }
        Some(set)
    }

    /// A set as the server writes it: ascending ranges, none touching the next.
    pub fn ranges(&self, set: PieceSet) -> Vec<SlotRange> {
        let mut joined: Vec<SlotRange> = Vec::new();
        for piece in self.chosen(set) {
            match joined.last_mut() {
                Some(before) if before.last().number() + 1 == piece.first().number() => {
                    *before = range(before.first().number(), piece.last().number()).unwrap_or(*before);
                }
                _ => joined.push(*piece),
            }
        }
        joined
    }

    fn chosen(&self, set: PieceSet) -> impl Iterator<Item = &SlotRange> {
        self.ranges.iter().enumerate().filter(move |(piece, _)| set & 1 << piece != 0).map(|(_, range)| range)
    }
}

fn range(first: u16, last: u16) -> Option<SlotRange> {
    SlotRange::new(Slot::new(first)?, Slot::new(last)?)
}
