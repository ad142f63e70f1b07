//! Whether every node sees the same cluster and says ok.

use super::Blocker;
use super::slots::receivers;
use crate::topology::membership::{Label, Member, Membership};
use crate::topology::node::NodeEntry;

/// What is still in the way, gravest first.
pub(super) fn blockers(membership: &Membership<'_>) -> Vec<Blocker> {
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
    let differences = members.iter().flat_map(|from| differences(from, membership));
    arriving.chain(unready).chain(differences).chain(members.iter().flat_map(met_in_vain)).collect()
}

/// Whom a lowered node still tries to meet: it gives that up within the lowered timeout, and is not to go on under the
/// usual one, as somebody else's may come to answer there.
fn met_in_vain<'a>(from: &'a Member<'_>) -> impl Iterator<Item = Blocker> + 'a {
    let forming = from.mark.as_ref().and_then(|mark| mark.forming);
    let is_lowered = forming.is_some_and(|own| from.report.settings.node_timeout < own.node_timeout);
    let meeting = from.report.view.others().filter(move |entry| is_lowered && entry.flags.handshake);
    meeting.filter_map(|entry| Some(Blocker::Unlinked(from.label(), Label::of(entry)?)))
}

/// Who has no link to whom, and who cannot reach whom.
pub(super) fn broken_links(membership: &Membership<'_>) -> Vec<Blocker> {
    let is_broken = |blocker: &Blocker| matches!(blocker, Blocker::Unlinked(..) | Blocker::Suspects(..));
    membership.members.iter().flat_map(|from| differences(from, membership)).filter(is_broken).collect()
}

/// How one node's view of the others differs from what they say of themselves, in the order of the members.
fn differences(from: &Member<'_>, membership: &Membership<'_>) -> Vec<Blocker> {
    let members = &membership.members;
    let mut found: Vec<(usize, Blocker)> = Vec::new();
    let mut known = 0;
    for (entry, place) in membership.view_of(from).filter(|(entry, _)| entry.is_known()) {
        let Some((place, to)) = place.and_then(|place| Some((place, members.get(place)?))) else {
            continue;
        };
        known += 1;
        if !entry.flags.myself {
            found.extend(difference(from, entry, to).map(|blocker| (place, blocker)));
        }
    }
    if known < members.len() {
        let unknown = members.iter().enumerate().filter(|(_, to)| from.report.view.get(to.id()).is_none());
        found.extend(unknown.map(|(place, to)| (place, Blocker::Unlinked(from.label(), to.label()))));
    }
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, blocker)| blocker).collect()
}

fn difference(from: &Member<'_>, entry: &NodeEntry, to: &Member<'_>) -> Option<Blocker> {
    let own = to.report.myself();
    if entry.flags.failed || entry.flags.suspected {
        return Some(Blocker::Suspects(from.label(), to.label()));
    }
    if !entry.connected || entry.flags.without_address {
        return Some(Blocker::Unlinked(from.label(), to.label()));
    }
    (entry.role != own.role || entry.slots != own.slots).then(|| Blocker::Outdated(from.label(), to.label()))
}
