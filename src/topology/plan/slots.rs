//! Giving free slots to their primaries.
//!
//! A slot is given only when every member answered and none of them knows of an owner: the server's own check is local
//! and may be behind. Each shard's share of the key space goes to one node and stays there: the one that already owns
//! most of it, else a blank one, that of the shard's own ordinal first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

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
    if claimed == SlotSet::ALL {
        return Step::Done;
    }
    let free = SlotSet::ALL.without(&claimed).without(&known_owners(membership));
    let shards = desired.shape.shards.get();
    let primaries = primaries(membership, shards);
    let given = (0..).zip(&primaries).filter_map(|(shard, primary)| {
        let share: SlotSet = SlotRange::share(shard, shards).iter().collect();
        let ranges = share.and(&free).ranges();
        (!ranges.is_empty()).then_some(((*primary)?, ranges))
    });
    let given: Vec<_> = given.collect();
    let unheard: Vec<_> = given.iter().filter_map(|(member, _)| unheard(member, membership)).collect();
    if !unheard.is_empty() {
        return Step::Wait(unheard);
    }
    // Where slots were owned before, whoever gets some now must be above all who ever claimed them.
    let highest = highest_epoch(membership);
    let low = given.iter().filter(|(member, _)| is_free(member) && member.report.myself().config_epoch < highest);
    let bumps: Vec<_> = low.map(|(member, _)| member.act(Deed::BumpEpoch)).collect();
    match bumps.is_empty() {
        true => Step::act(given.into_iter().map(|(member, ranges)| member.act(Deed::AddSlots(ranges))).collect()),
        false => Step::Act(bumps),
    }
}

/// An owner that nobody knows would be taken for what is left of another time.
fn unheard(member: &Member<'_>, membership: &Membership<'_>) -> Option<Blocker> {
    let mut others = membership.members.iter().filter(|other| other.id() != member.id());
    let first = others.clone().next()?;
    let is_known = others.any(|other| other.report.view.get(member.id()).is_some());
    (!is_known).then(|| Blocker::Unlinked(first.label(), member.label()))
}

/// Whether every slot has one owner that answers and says ok.
pub(super) fn are_served(membership: &Membership<'_>) -> bool {
    let says_ok = |member: &Member<'_>| !owns_slots(member) || member.report.cluster.ok;
    claimed(membership) == SlotSet::ALL && contested(membership).is_none() && membership.members.iter().all(says_ok)
}

/// The highest epoch under which anybody owns slots, in anybody's view.
fn highest_epoch(membership: &Membership<'_>) -> u64 {
    let owners = membership.members.iter().flat_map(|member| member.report.view.owners());
    owners.filter(|entry| entry.role.is_primary()).map(|entry| entry.config_epoch).max().unwrap_or(0)
}

/// The slots that members say they own themselves.
pub(super) fn claimed(membership: &Membership<'_>) -> SlotSet {
    membership.members.iter().flat_map(|member| &member.report.myself().slots).collect()
}

/// The slots that have an owner in anybody's view.
fn known_owners(membership: &Membership<'_>) -> SlotSet {
    let owners = membership.members.iter().flat_map(|member| member.report.view.owners());
    owners.flat_map(|entry| &entry.slots).collect()
}

/// Who claims slots that another claims, too.
pub(super) fn contested(membership: &Membership<'_>) -> Option<Vec<Blocker>> {
    let mut blockers = Vec::new();
    let mut seen = SlotSet::EMPTY;
    let owners: Vec<_> = membership.members.iter().filter(|member| owns_slots(member)).collect();
    for (place, member) in owners.iter().enumerate() {
        let slots = member.report.myself().slot_set();
        if !seen.and(&slots).is_empty() {
            let others = owners.iter().take(place);
            let both = others.map(|other| (other, slots.and(&other.report.myself().slot_set())));
            let both = both.filter(|(_, both)| !both.is_empty());
            blockers
                .extend(both.map(|(other, both)| Blocker::Contested(other.label(), member.label(), Box::new(both))));
        }
        seen.add(&slots);
    }
    (!blockers.is_empty()).then_some(blockers)
}

/// The primary of each shard, in the order of the shards: owners keep the share they hold most of; the gaps are filled by
/// those that slots are on their way to, then by empty primaries, the node whose ordinal is the shard's own first. None
/// where nobody is left.
///
/// Who follows whom already does not count: pods that saw different moments would choose differently, and two that are
/// both empty could make each other replicas.
pub(super) fn primaries<'m, 'a>(membership: &'m Membership<'a>, shards: u16) -> Vec<Option<&'m Member<'a>>> {
    let owners = owners_by_share(membership, shards);
    let receivers = receivers(membership);
    let receives = |member: &Member<'_>| receivers.contains(&member.id());
    let free = membership.members.iter().filter(|member| receives(member) || is_free(member));
    let mut free: Vec<_> = free.map(|member| (receives(member), member.ordinal(), member)).collect();
    (0..shards)
        .map(|shard| {
            if let Some(owner) = owners.get(&shard) {
                return Some(*owner);
            }
            let (place, _) = free.iter().enumerate().min_by_key(|(_, (receives, ordinal, _))| {
                let is_elsewhere = ordinal.is_some_and(|own| own < shards.into());
                (!receives, *ordinal != Some(shard.into()), is_elsewhere)
            })?;
            let (_, _, member) = free.remove(place);
            Some(member)
        })
        .collect()
}

/// Each shard's owner: who holds most of its share, of those that hold no other's.
fn owners_by_share<'m, 'a>(membership: &'m Membership<'a>, shards: u16) -> BTreeMap<u16, &'m Member<'a>> {
    let mut overlaps: Vec<(u16, u16, &Member<'a>)> = Vec::new();
    for member in membership.members.iter().filter(|member| owns_slots(member)) {
        let mut held: BTreeMap<u16, u16> = BTreeMap::new();
        for slot in member.report.myself().slots.iter().flat_map(|range| range.slots()) {
            *held.entry(SlotRange::shard_of(slot, shards)).or_default() += 1;
        }
        overlaps.extend(held.into_iter().map(|(shard, slots)| (slots, shard, member)));
    }
    overlaps.sort_by_key(|(slots, shard, member)| (Reverse(*slots), *shard, member.id()));
    let (mut placed, mut settled) = (BTreeMap::new(), BTreeSet::new());
    for (_, shard, member) in overlaps {
        if !placed.contains_key(&shard) && settled.insert(member.id()) {
            placed.insert(shard, member);
        }
    }
    // Who holds no share that is left gets one that nobody holds.
    let homeless = membership.members.iter().filter(|member| owns_slots(member) && !settled.contains(&member.id()));
    let homeless: Vec<_> = homeless.collect();
    let empty: Vec<u16> = (0..shards).filter(|shard| !placed.contains_key(shard)).collect();
    placed.extend(empty.into_iter().zip(homeless));
    placed
}

/// Whether the node owns slots by its own word.
pub(super) fn owns_slots(member: &Member<'_>) -> bool {
    !member.report.myself().slots.is_empty()
}

/// The primaries that own nothing yet and that slots are on their way to, in their own words or in those of who sends
/// them. Until the first slot has arrived as a whole, such a node holds keys that nobody else has any more.
pub(in crate::topology) fn receivers(membership: &Membership<'_>) -> BTreeSet<NodeId> {
    let sent = membership.members.iter().flat_map(|member| member.report.myself().exports().map(|(_, to)| to));
    let told = membership.members.iter().filter(|member| member.report.myself().receives_slots()).map(Member::id);
    let is_empty = |member: &Member<'_>| member.report.myself().role.is_primary() && !owns_slots(member);
    sent.chain(told).filter(|id| membership.get(*id).is_some_and(is_empty)).collect()
}

/// Whether the node is an empty primary, and no slot is on its way to it.
pub(super) fn is_free(member: &Member<'_>) -> bool {
    let myself = member.report.myself();
    myself.role.is_primary() && myself.slots.is_empty() && myself.moving.is_empty() && member.report.keys == 0
}
