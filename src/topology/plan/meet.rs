//! Getting the nodes to know each other, and finding again those that have moved.
//!
//! In a small cluster everybody meets everybody: a handshake takes up to a tenth of a second, gossip takes longer. In a
//! large one that would be thousands of handshakes, so each meets the nodes 1, 2, 4, 8 … places further round a ring,
//! and gossip does the rest.
//!
//! Where one run acts on all nodes, of two only the earlier meets the later, which then opens a link of its own, and hears
//! from others where that goes wrong. Met from both sides, many are named by gossip before their handshake is over and
//! are connected to anew: over TLS, where handshakes are what takes the time, that is twice the work. Among a few nodes
//! it is little, and all know each other sooner.

use std::net::SocketAddr;

use super::{Action, Blocker, Deed, Step};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::membership::{Member, Membership};
use crate::topology::node::{Endpoint, NodeEntry};

/// Up to this many nodes everybody meets everybody.
const FULL_MESH: usize = 64;

/// Up to this many nodes the handshakes are nothing.
const FEW: usize = 8;

/// What one node knows of another.
enum Acquaintance {
    /// Its id and an address at which it answers.
    Known,
    /// A handshake is under way.
    Meeting,
    /// Its id, and no address at which it answers.
    Moved,
    /// Nothing.
    Unknown,
}

pub(super) fn plan(membership: &Membership<'_>, _: &DesiredTopology, policy: &Policy) -> Step {
    if membership.islands.are_acquainted() {
        return Step::Done;
    }
    let actions = introductions(membership, policy);
    let Some(first) = membership.members.first() else {
        return Step::Done;
    };
    let apart = membership
        .members
        .iter()
        .filter(|member| !membership.islands.together(first.id(), member.id()))
        .map(|member| Blocker::Unlinked(first.label(), member.label()));
    match actions.is_empty() {
        false => Step::Act(actions),
        true => match apart.collect::<Vec<_>>() {
            apart if apart.is_empty() => Step::Done,
            apart => Step::Wait(apart),
        },
    }
}

/// The meetings of nodes that know each other already and have lost each other's address: what heals a cluster while
/// some of its members are still missing. All that have lost each other meet, as gossip does not heal two that have both
/// struck out the other's address; those on the ring first, and not too many at once.
pub(super) fn rejoin(membership: &Membership<'_>) -> Vec<Action> {
    const AT_ONCE: usize = 16;
    let members = &membership.members;
    let mut actions = Vec::new();
    for (place, from) in members.iter().enumerate() {
        let mut moved: Vec<(usize, &Member<'_>)> = from
            .report
            .view
            .lost()
            .filter_map(|entry| membership.place_of(entry.id))
            .filter_map(|other| Some((other, members.get(other)?)))
            .filter(|(_, to)| matches!(acquaintance(from, to), Acquaintance::Moved))
            .collect();
        moved.sort_by_key(|(other, _)| {
            let distance = distance(place, *other, members.len());
            (!is_step(distance, members.len()), distance)
        });
        let most = if members.len() <= FULL_MESH { FULL_MESH } else { AT_ONCE };
        actions.extend(moved.into_iter().take(most).map(|(_, to)| meeting(from, to)));
    }
    actions
}

/// Whether so many nodes meet so many that handshakes keep machines busy.
pub(super) fn takes_long(members: usize) -> bool {
    (FEW + 1..=FULL_MESH).contains(&members)
}

/// The meetings of nodes that do not know each other. Those that have moved have met by then.
fn introductions(membership: &Membership<'_>, policy: &Policy) -> Vec<Action> {
    let members = &membership.members;
    let is_one_sided = policy.hurry && takes_long(members.len());
    let steps: Vec<usize> = (1..members.len()).filter(|step| is_step(*step, members.len())).collect();
    let mut actions = Vec::new();
    for (place, from) in members.iter().enumerate() {
        let mut met: Vec<usize> = steps.iter().map(|step| (place + step) % members.len()).collect();
        met.retain(|other| !is_one_sided || place < *other);
        met.sort_unstable();
        let met = met.into_iter().filter_map(|other| members.get(other));
        let unknown = met.filter(|to| matches!(acquaintance(from, to), Acquaintance::Unknown));
        actions.extend(unknown.map(|to| meeting(from, to)));
    }
    actions
}

fn meeting(from: &Member<'_>, to: &Member<'_>) -> Action {
    let (ip, port, bus_port) = (to.address.ip(), to.address.port(), to.report.myself().bus_port);
    from.act(Deed::Meet(to.id(), Endpoint { ip, port, bus_port }))
}

/// How many places further round the ring.
fn distance(from: usize, to: usize, count: usize) -> usize {
    (to + count - from) % count
}

/// Whether each meets who is so many places further.
fn is_step(distance: usize, count: usize) -> bool {
    count <= FULL_MESH || distance.is_power_of_two()
}

fn acquaintance(from: &Member<'_>, to: &Member<'_>) -> Acquaintance {
    let meeting = || from.report.view.is_meeting(to.address);
    match from.report.view.get(to.id()) {
        Some(entry) if !entry.is_lost() => Acquaintance::Known,
        // What a node says of its own address does not count: after a move it does not know the new one yet.
        Some(entry) if is_at(entry, to.address) => Acquaintance::Known,
        Some(_) if meeting() => Acquaintance::Meeting,
        Some(_) => Acquaintance::Moved,
        None if meeting() => Acquaintance::Meeting,
        None => Acquaintance::Unknown,
    }
}

fn is_at(entry: &NodeEntry, address: SocketAddr) -> bool {
    !entry.flags.without_address && entry.ip == Some(address.ip()) && entry.port == address.port()
}
