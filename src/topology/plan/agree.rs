//! Whether every node sees the same cluster and says ok.

use super::Blocker;
use crate::topology::membership::{Member, Membership};

/// What is still in the way, gravest first.
pub(super) fn blockers(membership: &Membership<'_>) -> Vec<Blocker> {
    let members = &membership.members;
    let pairs = members
        .iter()
        .flat_map(|from| members.iter().filter(|to| to.id() != from.id()).filter_map(|to| difference(from, to)));
    let unready = members.iter().filter_map(|member| match &member.report.replication.link {
        _ if !member.report.cluster.ok => Some(Blocker::NotOk(member.label())),
        // Its first copy may take hours, and takes a second even where there is nothing to copy; it is on its way.
        Some(link) if !link.up && !link.syncing => Some(Blocker::NotFollowing(member.label())),
        _ => None,
    });
    unready.chain(pairs).collect()
}

/// How one node's view of another differs from what the other says of itself.
fn difference(from: &Member<'_>, to: &Member<'_>) -> Option<Blocker> {
    let Some(entry) = from.report.view.get(to.id()) else {
        return Some(Blocker::Unlinked(from.label(), to.label()));
    };
    let own = to.report.myself();
    if entry.flags.failed || entry.flags.suspected {
        return Some(Blocker::Suspects(from.label(), to.label()));
    }
    if !entry.connected || entry.flags.without_address {
        return Some(Blocker::Unlinked(from.label(), to.label()));
    }
    (entry.role != own.role || entry.slots != own.slots).then(|| Blocker::Outdated(from.label(), to.label()))
}
