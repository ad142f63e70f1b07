//! Slots that somebody takes for another's than who owns them, and would for good.
//!
//! A server believes news of a slot only under a higher epoch than that of whom it takes for the owner
//! (`clusterUpdateSlotsConfigWith` in `cluster_legacy.c`). Who was away during a handover and then hears the former
//! primary before its heir hears it as a replica, with the heir's epoch: the slots stay with the former primary there, as
//! the heir's word has the same epoch. So the heir gets a higher one.

use std::collections::BTreeMap;

use super::agree::Differences;
use super::slots::{contested, owns_slots};
use super::{Action, Blocker, Deed};
use crate::topology::membership::{Member, Membership};
use crate::topology::node::NodeEntry;
use crate::topology::observation::View;
use crate::topology::slot::SlotRange;

/// A line that gives other slots to a member than it claims.
struct Wrong<'m> {
    view: &'m View,
    line: &'m NodeEntry,
    claims: &'m [SlotRange],
}

pub(super) fn plan(membership: &Membership<'_>, differences: &Differences<'_, '_>) -> Vec<Action> {
    let is_outdated = differences.iter().any(|(_, _, blocker)| matches!(blocker, Blocker::Outdated(..)));
    if !is_outdated || contested(membership).is_some() {
        return Vec::new();
    }
    let members = &membership.members;
    let highest = members.iter().map(|member| member.report.cluster.current_epoch).max().unwrap_or_default();
    let owners = || members.iter().filter(|member| owns_slots(member));
    let wrong: Vec<Wrong<'_>> = differences.iter().filter_map(|(from, about, _)| wrong(from, about)).collect();
    let unheard = owners().filter(|owner| wrong.iter().any(|wrong| is_unheard(owner, wrong)));
    let raised = unheard.filter_map(|owner| {
        // The server gives none to who has the highest: then another one gets it first.
        let is_highest = owner.report.myself().config_epoch >= highest;
        let on = if is_highest { owners().find(|other| other.id() != owner.id())? } else { owner };
        Some((on.id(), on))
    });
    let raised: BTreeMap<_, _> = raised.collect();
    raised.into_values().map(|member| member.act(Deed::BumpEpoch)).collect()
}

/// Whether somebody hears the owner and yet takes its slots for those of another one that does not claim them, and will
/// not learn better.
fn is_unheard(owner: &Member<'_>, wrong: &Wrong<'_>) -> bool {
    let own = owner.report.myself();
    let hears = || wrong.view.get(own.id).is_some_and(|entry| !entry.is_lost());
    wrong.line.id != own.id
        && wrong.line.config_epoch >= own.config_epoch
        && overlap(&wrong.line.slots, &own.slots)
        && !overlap(wrong.claims, &own.slots)
        && hears()
}

fn wrong<'m>(from: &Member<'m>, about: &Member<'m>) -> Option<Wrong<'m>> {
    let (view, claims) = (&from.report.view, &about.report.myself().slots);
    let line = view.get(about.id()).filter(|line| line.slots != *claims)?;
    Some(Wrong { view, line, claims })
}

fn overlap(one: &[SlotRange], other: &[SlotRange]) -> bool {
    one.iter().any(|one| other.iter().any(|other| one.first() <= other.last() && other.first() <= one.last()))
}
