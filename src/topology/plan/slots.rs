//! Giving free slots to their primaries.
//!
//! A slot is given only when every member answered and none of them knows of an owner: the server's own check is local
//! and may be behind. Each shard's share of the key space goes to one node and stays there: the one that already owns
//! most of it, else a blank one, that of the shard's own ordinal first.

use std::collections::BTreeMap;

use super::{Blocker, Deed, Step};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::membership::{Member, Membership};
use crate::topology::node::NodeId;
use crate::topology::slot::{SlotRange, SlotSet};

pub(super) fn plan(membership: &Membership<'_>, desired: &DesiredTopology, _: &Policy) -> Step {
    if let Some(contested) = contested(membership) {
        return Step::Wait(contested);
    }
    let claimed = claimed(membership);
    let spoken_for = known_owners(membership);
    let free = SlotSet::ALL.without(&claimed).without(&spoken_for);
    if free.is_empty() {
        return Step::Done;
    }
    let primaries = primaries(membership, desired.shape.shards.get());
    let actions = (0..).zip(&primaries).filter_map(|(shard, primary)| {
        let share: SlotSet = SlotRange::share(shard, desired.shape.shards.get()).iter().collect();
        let ranges = share.and(&free).ranges();
        (!ranges.is_empty()).then(|| (*primary).map(|member| member.act(Deed::AddSlots(ranges))))?
    });
    Step::act(actions.collect())
}

/// The slots that members say they own themselves.
pub(super) fn claimed(membership: &Membership<'_>) -> SlotSet {
    let mut claimed = SlotSet::EMPTY;
    for member in &membership.members {
        claimed.add(&member.report.myself().slot_set());
    }
    claimed
}

/// The slots that have an owner in anybody's view.
fn known_owners(membership: &Membership<'_>) -> SlotSet {
    let mut owned = SlotSet::EMPTY;
    for entry in membership.members.iter().flat_map(|member| member.report.view.entries()) {
        owned.add(&entry.slot_set());
    }
    owned
}

/// Who claims slots that another claims, too.
pub(super) fn contested(membership: &Membership<'_>) -> Option<Vec<Blocker>> {
    let owners: Vec<_> = membership.members.iter().filter(|member| owns_slots(member)).collect();
    let mut blockers = Vec::new();
    let mut seen: Vec<(&Member<'_>, SlotSet)> = Vec::new();
    for member in owners {
        let slots = member.report.myself().slot_set();
        for (other, theirs) in &seen {
            let both = slots.and(theirs);
            if !both.is_empty() {
                blockers.push(Blocker::Contested(other.label(), member.label(), Box::new(both)));
            }
        }
        seen.push((member, slots));
    }
    (!blockers.is_empty()).then_some(blockers)
}

/// The primary of each shard, in the order of the shards: owners keep the share they hold most of; blank nodes fill the
/// gaps, the node whose ordinal is the shard's own first. None where nobody is left.
pub(super) fn primaries<'m, 'a>(membership: &'m Membership<'a>, shards: u16) -> Vec<Option<&'m Member<'a>>> {
    let owners = owners_by_share(membership, shards);
    let mut taken: Vec<NodeId> = owners.values().map(|member| member.id()).collect();
    (0..shards)
        .map(|shard| {
            if let Some(owner) = owners.get(&shard) {
                return Some(*owner);
            }
            let candidate = membership
                .members
                .iter()
                .filter(|member| is_free(member) && !taken.contains(&member.id()))
                .min_by_key(|member| {
                    (member.ordinal() != Some(shard.into()), member.ordinal().is_some_and(|own| own < shards.into()))
                })?;
            taken.push(candidate.id());
            Some(candidate)
        })
        .collect()
}

fn owners_by_share<'m, 'a>(membership: &'m Membership<'a>, shards: u16) -> BTreeMap<u16, &'m Member<'a>> {
    let mut overlaps: Vec<(usize, u16, &Member<'a>)> = Vec::new();
    for member in membership.members.iter().filter(|member| owns_slots(member)) {
        let slots = member.report.myself().slot_set();
        for shard in 0..shards {
            let share: SlotSet = SlotRange::share(shard, shards).iter().collect();
            overlaps.push((share.and(&slots).len(), shard, member));
        }
    }
    overlaps.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.id().cmp(&b.2.id())));
    let mut placed: BTreeMap<u16, &Member<'a>> = BTreeMap::new();
    for (_, shard, member) in overlaps {
        if !placed.contains_key(&shard) && !placed.values().any(|other| other.id() == member.id()) {
            placed.insert(shard, member);
        }
    }
    placed
}

/// Whether the node owns slots by its own word.
pub(super) fn owns_slots(member: &Member<'_>) -> bool {
    !member.report.myself().slots.is_empty()
}

/// Whether the node is an empty primary.
pub(super) fn is_free(member: &Member<'_>) -> bool {
    let myself = member.report.myself();
    myself.role.is_primary() && myself.slots.is_empty() && member.report.keys == 0
}
