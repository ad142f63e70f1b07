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

use std::collections::BTreeMap;

use super::slots::{contested, owns_slots};
use super::{Action, Deed};
use crate::topology::membership::{Member, Membership};
use crate::topology::node::{NodeEntry, Role};

pub(super) fn plan(membership: &Membership<'_>) -> Vec<Action> {
    if contested(membership).is_some() {
        return Vec::new();
    }
    let members = &membership.members;
    let highest = members.iter().map(|member| member.report.cluster.current_epoch).max().unwrap_or_default();
    let owners = || members.iter().filter(|member| owns_slots(member));
    // Whose slots move gets epochs as they do.
    let at_rest = owners().filter(|owner| owner.report.myself().moving.is_empty());
    let unheard = at_rest.filter(|owner| members.iter().any(|from| is_unheard(owner, from, membership)));
    let raised = unheard.filter_map(|owner| {
        // The server gives none to who has the highest: then another one gets it first.
        let is_highest = owner.report.myself().config_epoch >= highest;
        let on = if is_highest { owners().find(|other| other.id() != owner.id())? } else { owner };
        Some((on.id(), on))
    });
    let raised: BTreeMap<_, _> = raised.collect();
    raised.into_values().map(|member| member.act(Deed::BumpEpoch)).collect()
}

/// Whether somebody hears the owner and yet takes its slots for those of its replica, and will not learn better.
fn is_unheard(owner: &Member<'_>, from: &Member<'_>, membership: &Membership<'_>) -> bool {
    let own = owner.report.myself();
    let slots = own.slot_set();
    let view = &from.report.view;
    let hears = view.get(owner.id()).is_some_and(|entry| entry.connected && !entry.is_lost());
    let follows = |entry: &NodeEntry| entry.role == Role::Replica(Some(own.id));
    hears
        && view.others().any(|entry| {
            follows(entry)
                && entry.config_epoch >= own.config_epoch
                && !entry.slot_set().and(&slots).is_empty()
                && membership.get(entry.id).is_some_and(|other| follows(other.report.myself()))
        })
}
