//! Slots that somebody takes for another's than who owns them, and would for good.
//!
//! A server believes news of a slot only under a higher epoch than that of whom it takes for the owner
//! (`clusterUpdateSlotsConfigWith` in `cluster_legacy.c`). Who was away during a handover and then hears the former
//! primary before its heir hears it as a replica, with the heir's epoch: the slots stay with the former primary there, as
//! the heir's word has the same epoch. So the heir gets a higher one.
//!
//! What is looked for is a view that contradicts itself, as it is told in one piece: there a replica owns slots. Views of
//! several nodes that contradict each other say nothing, as they were told at different moments: while a slot moves, its
//! new owner may be asked before and others after.

use std::collections::{BTreeMap, BTreeSet};

use super::slots::{contested, owns_slots};
use super::{Action, Deed};
use crate::topology::membership::{Member, Membership};
use crate::topology::node::{NodeId, Role};

pub(super) fn plan(membership: &Membership<'_>) -> Vec<Action> {
    if contested(membership).is_some() {
        return Vec::new();
    }
    let members = &membership.members;
    let highest = members.iter().map(|member| member.report.cluster.current_epoch).max().unwrap_or_default();
    // Whose slots move gets epochs as they do.
    let is_at_rest = |member: &&Member<'_>| owns_slots(member) && member.report.myself().moving.is_empty();
    let owners = || members.iter().filter(is_at_rest);
    let unheard: BTreeSet<NodeId> = members.iter().flat_map(|from| unheard(from, membership)).collect();
    let raised = owners().filter(|owner| unheard.contains(&owner.id())).filter_map(|owner| {
        // The server gives none to who has the highest: then another one gets it first.
        let is_highest = owner.report.myself().config_epoch >= highest;
        let on = if is_highest { owners().find(|other| other.id() != owner.id())? } else { owner };
        Some((on.id(), on))
    });
    let raised: BTreeMap<_, _> = raised.collect();
    raised.into_values().map(|member| member.act(Deed::BumpEpoch)).collect()
}

/// Whom a node hears and yet takes his slots for those of his replica, and will not learn better.
fn unheard<'m>(from: &'m Member<'_>, membership: &'m Membership<'_>) -> impl Iterator<Item = NodeId> + 'm {
    let view = &from.report.view;
    view.others().filter(|entry| !entry.slots.is_empty()).filter_map(move |entry| {
        let Role::Replica(Some(primary)) = entry.role else { return None };
        let own = membership.get(primary)?.report.myself();
        let is_unheard = view.get(primary).is_some_and(|primary| !primary.is_lost())
            && entry.config_epoch >= own.config_epoch
            && !entry.slot_set().and(&own.slot_set()).is_empty()
            && membership.get(entry.id)?.report.myself().role == entry.role;
        is_unheard.then_some(primary)
    })
}
