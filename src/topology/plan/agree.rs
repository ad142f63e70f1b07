//! Whether every node sees the same cluster and says ok.

use std::collections::BTreeSet;

use super::Blocker;
use super::slots::receivers;
use crate::topology::membership::{Label, Member, Membership};
use crate::topology::observation::{View, alike};

/// Who says of another what that one does not say himself, of whom, and what it keeps from being done.
pub(super) type Differences<'m, 'a> = Vec<(&'m Member<'a>, &'m Member<'a>, Blocker)>;

/// What is still in the way, gravest first.
pub(super) fn blockers(membership: &Membership<'_>, differences: Differences<'_, '_>) -> Vec<Blocker> {
    let members = &membership.members;
    let unready = members.iter().filter_map(|member| match &member.report.replication.link {
        _ if !member.report.cluster.ok => Some(Blocker::NotOk(member.label())),
        // Its first copy may take hours, and takes a second even where there is nothing to copy; it is on its way.
        Some(link) if !link.up && !link.syncing => Some(Blocker::NotFollowing(member.label())),
        _ => None,
    });
    let receivers = receivers(membership);
    let arriving = members.iter().filter(|member| receivers.contains(&member.id()));
    let arriving = arriving.map(|member| Blocker::Arriving(member.label()));
    arriving.chain(unready).chain(differences.into_iter().map(|(_, _, blocker)| blocker)).collect()
}

/// Who has no link to whom, and who cannot reach whom.
pub(super) fn broken_links(membership: &Membership<'_>) -> Vec<Blocker> {
    let is_broken = |blocker: &Blocker| matches!(blocker, Blocker::Unlinked(..) | Blocker::Suspects(..));
    differences(membership).into_iter().map(|(_, _, blocker)| blocker).filter(is_broken).collect()
}

/// How the members' views of each other differ from what each says of itself, in their order.
pub(super) fn differences<'m, 'a>(membership: &'m Membership<'a>) -> Differences<'m, 'a> {
    let mut found = Vec::new();
    let mut heard: Vec<(&View, Vec<usize>)> = Vec::new();
    for from in &membership.members {
        let view = &from.report.view;
        let misjudged = match alike(&heard, |other| other.says_the_same(view)) {
            Some(misjudged) => misjudged.clone(),
            None => {
                let misjudged = misjudged(view, membership);
                heard.push((view, misjudged.clone()));
                misjudged
            }
        };
        let lost = view.lost().filter_map(|entry| membership.place_of(entry.id));
        let places: BTreeSet<usize> = lost.chain(misjudged).collect();
        let about = places.into_iter().filter_map(|place| membership.members.get(place));
        found.extend(about.filter_map(|about| Some((from, about, difference(from, about)?))));
    }
    found
}

/// The places of the members whose role and slots this view has wrong, or does not have.
fn misjudged(view: &View, membership: &Membership<'_>) -> Vec<usize> {
    let mut right = vec![false; membership.members.len()];
    for (entry, place) in membership.beside(view).filter(|(entry, _)| entry.is_known()) {
        let own = membership.members.get(place).map(|member| member.report.myself());
        let is_right = own.is_some_and(|own| entry.role == own.role && entry.slots == own.slots);
        if let Some(right) = right.get_mut(place) {
            *right = is_right;
        }
    }
    (0..).zip(right).filter(|(_, right)| !right).map(|(place, _)| place).collect()
}

fn difference(from: &Member<'_>, about: &Member<'_>) -> Option<Blocker> {
    let own = about.report.myself();
    let blocker: fn(Label, Label) -> Blocker = match from.report.view.get(own.id) {
        Some(entry) if entry.flags.myself => return None,
        Some(entry) if entry.is_suspected() => Blocker::Suspects,
        Some(entry) if entry.is_lost() => Blocker::Unlinked,
        Some(entry) if entry.role == own.role && entry.slots == own.slots => return None,
        Some(_) => Blocker::Outdated,
        None => Blocker::Unlinked,
    };
    Some(blocker(from.label(), about.label()))
}
