//! What slots mean that are on their way when nobody moves them: a run was killed, or a server changed places meanwhile.
//!
//! The order in which a slot moves is: importing at the target, migrating at the source, its keys, owner at the target,
//! owner at the source. So these are all the states there can be, and what is done about each:
//!
//! | source | target | what happened | what is done |
//! |---|---|---|---|
//! | owner, migrating | importing | killed among the keys | finished |
//! | owner, migrating | nothing | the target forgot: reset, or another took its place | finished, the target told anew |
//! | owner | importing, no keys | killed after the first command | closed |
//! | owner | importing, with keys | the source forgot | finished, the source told anew |
//! | – | owner | killed before the last command | closed where a mark is left |
//! | nobody | importing | another tool told the source first | the target becomes the owner |
//! | owner, migrating | not here | the target is gone | whoever took over from it; else refused |
//! | owner, migrating to another | importing, no keys | two runs with different aims | closed; the source's word counts |
//!
//! A replica knows of its primary's slots on their way (8.0 and newer replicate CLUSTER SETSLOT), so after a failover the
//! new primary is in the same state. Slots of replicas are not looked at.

use std::collections::{BTreeMap, BTreeSet};

use super::goal::possible;
use super::ground::unclaimed_imports;
use super::{Ground, Move, Primary, Refused};
use crate::topology::membership::Membership;
use crate::topology::node::{Moving, NodeId};
use crate::topology::slot::{Slot, SlotRange};

/// How many keys of a slot a node holds.
pub type Counts = BTreeMap<(NodeId, Slot), u64>;

/// What is done about an open slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mend {
    /// Everything that is left is moved, and the target becomes the owner.
    Finish {
        /// Which slot.
        slot: Slot,
        /// Who owns it.
        from: NodeId,
        /// Who is to own it.
        to: NodeId,
    },
    /// The mark is taken away: CLUSTER SETSLOT STABLE.
    Close {
        /// Which slot.
        slot: Slot,
        /// On whom.
        on: NodeId,
    },
    /// The node becomes the owner of what it has received: nobody else is.
    Own {
        /// Which slot.
        slot: Slot,
        /// Who.
        by: NodeId,
    },
}

/// Which keys have to be counted before [`mend`] can tell: those of nodes that receive a slot which nobody sends.
pub fn doubts(ground: &Ground) -> BTreeSet<(NodeId, Slot)> {
    let imports = ground.primaries.iter().flat_map(|primary| imports(primary).map(|(slot, _)| (primary.id, slot)));
    imports.collect()
}

/// What is done about every open slot, by slot; empty where none is open. What cannot be finished is refused.
pub fn mend(ground: &Ground, membership: &Membership<'_>, counts: &Counts) -> Result<BTreeSet<Mend>, Refused> {
    let mut mends = BTreeSet::new();
    let mut sent: BTreeMap<Slot, NodeId> = BTreeMap::new();
    for primary in &ground.primaries {
        for (slot, to) in primary.exports() {
            if !primary.slots.contains(slot) {
                mends.insert(Mend::Close { slot, on: primary.id });
                continue;
            }
            match ground.heir_of(to) {
                Some(target) if target.id == primary.id => {
                    mends.insert(Mend::Close { slot, on: primary.id });
                }
                Some(target) => {
                    sent.insert(slot, target.id);
                    mends.insert(Mend::Finish { slot, from: primary.id, to: target.id });
                }
                None => {
                    let gone = to.short();
                    return Err(Refused::Stranded { slot, owner: primary.label.clone(), gone });
                }
            }
        }
    }
    let opinions = membership.opinions();
    let mut taken: BTreeMap<Slot, NodeId> = BTreeMap::new();
    for primary in &ground.primaries {
        let orphans = unclaimed_imports(primary, &opinions);
        for (slot, _) in imports(primary) {
            if sent.get(&slot) == Some(&primary.id) {
                continue;
            }
            let keys = counts.get(&(primary.id, slot)).copied().unwrap_or_default();
            match ground.owner(slot) {
                Some(owner) if owner.id == primary.id || keys == 0 => {
                    mends.insert(Mend::Close { slot, on: primary.id });
                }
                Some(owner) if !sent.contains_key(&slot) && !taken.contains_key(&slot) => {
                    taken.insert(slot, primary.id);
                    mends.insert(Mend::Finish { slot, from: owner.id, to: primary.id });
                }
                Some(_) => return Err(Refused::Stray { slot, node: primary.label.clone(), keys }),
                None if orphans.contains(slot) => {
                    mends.insert(Mend::Own { slot, by: primary.id });
                }
                None => {}
            }
        }
    }
    let finished = mends.iter().filter_map(|mend| match mend {
        Mend::Finish { slot, from, to } => {
            let slots = SlotRange::new(*slot, *slot).iter().collect();
            Some(Move { from: *from, to: *to, slots })
        }
        Mend::Close { .. } | Mend::Own { .. } => None,
    });
    possible(ground, membership, &finished.collect::<Vec<_>>())?;
    Ok(mends)
}

fn imports(primary: &Primary) -> impl Iterator<Item = (Slot, NodeId)> + '_ {
    primary.moving.iter().filter_map(|moving| match moving {
        Moving::From(slot, from) => Some((*slot, *from)),
        Moving::To(..) => None,
    })
}
