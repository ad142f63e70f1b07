//! Which slots go where: as few as possible, and the same for the same input.

use super::Move;
use crate::topology::node::NodeId;
use crate::topology::slot::{Slot, SlotRange, SlotSet};

/// A primary, what it owns, and how many slots it is to own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who.
    pub id: NodeId,
    /// What it owns.
    pub slots: SlotSet,
    /// Its part: twice as heavy is twice as many slots, 0 is none.
    pub weight: u32,
}

/// The moves after which every primary owns slots in proportion to its weight, to one slot. No slot moves twice, and none
/// that need not. Where slots cannot be split evenly, who owns more than its part keeps more; so what is even stays as it
/// is. While the moves are done, in whatever order, those that are left stay the same: another run that looks meanwhile
/// sends no slot elsewhere.
///
/// None where no weight is above 0.
pub fn spread(shares: &[Share]) -> Option<Vec<Move>> {
    let slots: u64 = shares.iter().map(|share| share.slots.len() as u64).sum();
    let weights: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
    if weights == 0 {
        return None;
    }
    let mut quotas: Vec<usize> = Vec::with_capacity(shares.len());
    let mut remainders = Vec::with_capacity(shares.len());
    for (place, share) in shares.iter().enumerate() {
        let part = slots * u64::from(share.weight);
        let quota = usize::try_from(part / weights).unwrap_or(usize::MAX);
        quotas.push(quota);
        // How much more would change with every slot that moves.
        remainders.push((part % weights, share.slots.len() > quota, place));
    }
    // Largest remainder first, then who owns more than its part, then the order of the input.
    remainders.sort_by_key(|(remainder, is_over, place)| {
        (std::cmp::Reverse(*remainder), std::cmp::Reverse(*is_over), *place)
    });
    let left = usize::try_from(slots).unwrap_or_default().saturating_sub(quotas.iter().sum());
    for (_, _, place) in remainders.iter().take(left) {
        if let Some(quota) = quotas.get_mut(*place) {
            *quota += 1;
        }
    }
    Some(moves(shares, &quotas))
}

/// The moves after which nobody of weight 0 owns anything; what they own goes to the others, those with least first. The
/// others keep what they have.
///
/// None where somebody has to give and nobody can take.
pub fn fill(shares: &[Share]) -> Option<Vec<Move>> {
    let mut quotas: Vec<usize> =
        shares.iter().map(|share| if share.weight == 0 { 0 } else { share.slots.len() }).collect();
    let pool: usize = shares.iter().filter(|share| share.weight == 0).map(|share| share.slots.len()).sum();
    for _ in 0..pool {
        let takers = shares.iter().zip(&quotas).enumerate().filter(|(_, (share, _))| share.weight > 0);
        let (place, _) = takers.min_by_key(|(place, (_, quota))| (**quota, *place))?;
        if let Some(quota) = quotas.get_mut(place) {
            *quota += 1;
        }
    }
    Some(moves(shares, &quotas))
}

/// Who has too many gives to who has too few, both in order; the highest slots go first.
fn moves(shares: &[Share], quotas: &[usize]) -> Vec<Move> {
    let mut takers: Vec<(NodeId, usize)> = shares
        .iter()
        .zip(quotas)
        .map(|(share, quota)| (share.id, quota.saturating_sub(share.slots.len())))
        .filter(|(_, lacks)| *lacks > 0)
        .rev()
        .collect();
    let mut moves = Vec::new();
    for (share, quota) in shares.iter().zip(quotas) {
        let surplus = share.slots.len().saturating_sub(*quota);
        let mut given = highest(&share.slots, surplus).into_iter();
        while given.len() > 0 {
            let Some((to, lacks)) = takers.last_mut() else { break };
            let taken: Vec<SlotRange> =
                given.by_ref().take(*lacks).filter_map(|slot| SlotRange::new(slot, slot)).collect();
            *lacks -= taken.len();
            moves.push(Move { from: share.id, to: *to, slots: taken.iter().collect() });
            if *lacks == 0 {
                takers.pop();
            }
        }
    }
    moves
}

/// So many of the highest slots, ascending.
fn highest(slots: &SlotSet, many: usize) -> Vec<Slot> {
    let skipped = slots.len().saturating_sub(many);
    slots.slots().skip(skipped).collect()
}
