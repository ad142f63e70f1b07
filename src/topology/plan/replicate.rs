//! Giving each shard its replicas. Who already follows a primary of ours stays with it; only gaps are filled, first by
//! nodes without a shard, then from shards that have a replica too many.

use std::collections::BTreeMap;

use super::slots::{claimed, is_free, owns_slots, primaries, receivers};
use super::{Action, Blocker, Deed, Step};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::membership::{Member, Membership};
use crate::topology::node::{NodeId, Role};
use crate::topology::slot::SlotSet;

/// A shard while its gaps are being filled.
struct Shard<'m, 'a> {
    primary: &'m Member<'a>,
    replicas: Vec<&'m Member<'a>>,
}

pub(super) fn plan(membership: &Membership<'_>, desired: &DesiredTopology, _: &Policy) -> Step {
    let primaries = primaries(membership, desired.shape.shards.get());
    // A new shard of a cluster that serves every slot stands without any until some are moved to it.
    let serves = claimed(membership) == SlotSet::ALL;
    let is_headless = |primary: &Option<&Member<'_>>| !primary.is_some_and(|primary| serves || owns_slots(primary));
    let headless = primaries.iter().enumerate().filter(|(_, primary)| is_headless(primary));
    let headless: Vec<_> = headless.map(|(shard, _)| Blocker::NoPrimary(shard)).collect();
    let is_complete = membership.members.len() >= desired.shape.members();
    if !headless.is_empty() && is_complete {
        return Step::Wait(headless);
    }
    let mut shards: Vec<Shard<'_, '_>> =
        primaries.into_iter().flatten().map(|primary| Shard { primary, replicas: Vec::new() }).collect();
    let places: BTreeMap<NodeId, usize> =
        shards.iter().enumerate().map(|(place, shard)| (shard.primary.id(), place)).collect();
    let mut unplaced = Vec::new();
    let receivers = receivers(membership);
    let is_primary = |member: &Member<'_>| owns_slots(member) || receivers.contains(&member.id());
    let others = membership.members.iter().filter(|member| !is_primary(member) && !places.contains_key(&member.id()));
    for member in others {
        let following = match member.report.myself().role {
            Role::Replica(Some(primary)) => places.get(&primary).and_then(|place| shards.get_mut(*place)),
            _ => None,
        };
        match following {
            Some(shard) => shard.replicas.push(member),
            None => unplaced.push(member),
        }
    }
    let wanted = usize::from(desired.shape.replicas);
    let owners = shards.iter().filter(|shard| owns_slots(shard.primary)).count();
    match is_complete {
        true => unplaced.extend(surplus(&mut shards, wanted, membership)),
        // New shards may need each of them as a primary, and others may see another part of the cluster.
        false if owners < usize::from(desired.shape.shards.get()) => unplaced.retain(|member| !is_free(member)),
        false => {}
    }

    let (mut actions, mut blockers) = (Vec::new(), Vec::new());
    for (member, primary) in place(&mut shards, unplaced, wanted) {
        match follow(member, primary, membership) {
            Ok(action) => actions.push(action),
            Err(blocker) => blockers.push(*blocker),
        }
    }
    let lacking = shards.iter().filter(|shard| shard.replicas.len() < wanted);
    blockers.extend(lacking.map(|shard| Blocker::NoneToSpare(shard.primary.label())));
    match actions.is_empty() && !blockers.is_empty() {
        true => Step::Wait(blockers),
        false => Step::act(actions),
    }
}

/// Takes as many replicas out of shards with too many as shards with too few lack. Those that stay have a whole copy, and
/// nobody is taken from a primary that somebody cannot reach.
fn surplus<'m, 'a>(shards: &mut [Shard<'m, 'a>], wanted: usize, membership: &Membership<'_>) -> Vec<&'m Member<'a>> {
    let lacking: usize = shards.iter().map(|shard| wanted.saturating_sub(shard.replicas.len())).sum();
    let mut moved = Vec::new();
    for shard in shards.iter_mut().filter(|shard| lacking > 0 && shard.replicas.len() > wanted) {
        let site = shard.primary.site();
        shard.replicas.sort_by_key(|replica| (!is_in_sync(replica), replica.site().shares(&site)));
        let in_sync = shard.replicas.iter().filter(|replica| is_in_sync(replica)).count();
        if in_sync < wanted || is_suspected(shard.primary, membership) {
            continue;
        }
        while shard.replicas.len() > wanted && moved.len() < lacking {
            moved.extend(shard.replicas.pop());
        }
    }
    moved
}

fn is_in_sync(replica: &Member<'_>) -> bool {
    replica.report.replication.link.as_ref().is_some_and(|link| link.up && !link.syncing)
}

fn is_suspected(primary: &Member<'_>, membership: &Membership<'_>) -> bool {
    membership.members.iter().any(|member| member.report.view.suspects(primary.id()))
}

/// Whom each node is to follow; those for whom there is no gap are left out.
fn place<'m, 'a>(
    shards: &mut [Shard<'m, 'a>],
    unplaced: Vec<&'m Member<'a>>,
    wanted: usize,
) -> Vec<(&'m Member<'a>, &'m Member<'a>)> {
    let mut placed = Vec::new();
    for member in unplaced {
        if let Some(shard) = gap(shards, member, wanted) {
            shard.replicas.push(member);
            placed.push((member, shard.primary));
        }
    }
    keep_apart(&mut placed);
    placed
}

/// The shard that the node is to join: one whose primary runs elsewhere, of these that of its own ordinal, else the one
/// that lacks most.
fn gap<'s, 'm, 'a>(
    shards: &'s mut [Shard<'m, 'a>],
    member: &Member<'_>,
    wanted: usize,
) -> Option<&'s mut Shard<'m, 'a>> {
    let count = u32::try_from(shards.len()).ok()?;
    let own = member.ordinal().and_then(|ordinal| usize::try_from(ordinal.checked_rem(count)?).ok());
    let site = member.site();
    shards
        .iter_mut()
        .enumerate()
        .filter(|(_, shard)| shard.replicas.len() < wanted)
        .min_by_key(|(index, shard)| (shard.primary.site().shares(&site), Some(*index) != own, shard.replicas.len()))
        .map(|(_, shard)| shard)
}

/// Who was placed last may have been left with the machine or the zone of its primary: it changes places with another
/// where that is better for both together.
fn keep_apart<'m, 'a>(placed: &mut [(&'m Member<'a>, &'m Member<'a>)]) {
    let sites: Vec<_> = placed.iter().map(|(member, primary)| (member.site(), primary.site())).collect();
    let mut of: Vec<usize> = (0..placed.len()).collect();
    let shares = |member: usize, place: usize| match (sites.get(member), sites.get(place)) {
        (Some((member, _)), Some((_, primary))) => u32::from(member.shares(primary)),
        _ => 0,
    };
    for one in 0..of.len() {
        let Some(mine) = of.get(one).copied().filter(|mine| shares(one, *mine) > 0) else {
            continue;
        };
        let better = (0..of.len()).find(|other| {
            let theirs = of.get(*other).copied().unwrap_or(mine);
            shares(one, theirs) + shares(*other, mine) < shares(one, mine) + shares(*other, theirs)
        });
        if let Some(other) = better {
            of.swap(one, other);
        }
    }
    let primaries: Vec<_> = placed.iter().map(|(_, primary)| *primary).collect();
    for ((_, primary), place) in placed.iter_mut().zip(of) {
        if let Some(swapped) = primaries.get(place) {
            *primary = swapped;
        }
    }
}

/// REPLICATE works on an empty primary or a replica, towards a node that it knows as a primary. The copy of a primary that
/// is not here is never given up for another's.
fn follow(member: &Member<'_>, primary: &Member<'_>, membership: &Membership<'_>) -> Result<Action, Box<Blocker>> {
    let knows = member.report.view.get(primary.id()).is_some_and(|entry| entry.role.is_primary());
    match member.report.myself().role {
        Role::Replica(former) if member.report.keys > 0 && former.is_none_or(|id| membership.get(id).is_none()) => {
            Err(Box::new(Blocker::HoldsCopy(member.label())))
        }
        Role::Replica(_) if knows => Ok(member.act(Deed::Replicate(primary.id()))),
        Role::Primary if knows && is_free(member) => Ok(member.act(Deed::Replicate(primary.id()))),
        _ => Err(Box::new(Blocker::Outdated(member.label(), primary.label()))),
    }
}
