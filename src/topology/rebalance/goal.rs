//! What a run is to reach, and which moves are left until it is reached.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use super::ground::is_called;
use super::{Evacuation, Ground, Move, Refused, Share, spread};
use crate::topology::membership::Membership;
use crate::topology::node::Role;
use crate::topology::version::Version;

/// Where the slots are to lie in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// On all primaries, in proportion to their weights; who is not named weighs 1.
    Even(BTreeMap<String, u32>),
    /// On none of these pods.
    Evacuate {
        /// Who leaves.
        pods: Vec<String>,
        /// How many shards are to remain; none for as many as keep a member.
        shards: Option<NonZeroU16>,
    },
}

impl Goal {
    /// The moves that are left, none where the goal is reached. The same cluster gives the same moves.
    pub fn moves(&self, ground: &Ground, membership: &Membership<'_>) -> Result<Vec<Move>, Refused> {
        let moves = match self {
            Self::Even(weights) => even(ground, membership, weights)?,
            Self::Evacuate { pods, shards } => Evacuation::of(ground, membership, pods, *shards)?.moves,
        };
        possible(ground, membership, &moves)?;
        Ok(moves)
    }
}

/// Whether the targets can take what they are sent: a new plan's, or what an earlier one has left half-way.
pub(super) fn possible(ground: &Ground, membership: &Membership<'_>, moves: &[Move]) -> Result<(), Refused> {
    moves.iter().try_for_each(|one| readable(ground, one))?;
    copied(ground, membership, moves)
}

fn even(ground: &Ground, membership: &Membership<'_>, weights: &BTreeMap<String, u32>) -> Result<Vec<Move>, Refused> {
    let is_primary = |name: &str| ground.primaries.iter().any(|primary| primary.is_called(name));
    for (name, weight) in weights.iter().filter(|(name, _)| !is_primary(name)) {
        let is_member = membership.members.iter().any(|member| is_called(&member.label(), member.id(), name));
        match (is_member, weight) {
            (false, _) => return Err(Refused::Unknown(name.clone())),
            // An emptied primary may have become a replica of who took its last slot; so it has none, as it is to.
            (true, 0) => {}
            (true, _) => return Err(Refused::NotPrimary(name.clone())),
        }
    }
    let shares = ground.primaries.iter().map(|primary| {
        let weight = weights.iter().find(|(name, _)| primary.is_called(name)).map_or(1, |(_, weight)| *weight);
        Share { id: primary.id, slots: primary.slots.clone(), weight }
    });
    spread(&shares.collect::<Vec<_>>()).ok_or(Refused::Everybody)
}

/// What a primary is given its replicas must get, too: no slot goes to one that has a replica without its data.
fn copied(ground: &Ground, membership: &Membership<'_>, moves: &[Move]) -> Result<(), Refused> {
    for replica in &membership.members {
        let report = replica.report;
        let Role::Replica(Some(of)) = report.myself().role else { continue };
        let lacks_copy = report.replication.link.as_ref().is_some_and(|link| !link.up);
        if lacks_copy
            && moves.iter().any(|one| one.to == of)
            && let Some(primary) = ground.get(of)
        {
            return Err(Refused::Uncopied { primary: primary.label.clone(), replica: replica.label() });
        }
    }
    Ok(())
}

/// A dump of a newer major version is not read by an older one (`verifyDumpPayload` in `cluster.c`).
fn readable(ground: &Ground, one: &Move) -> Result<(), Refused> {
    let side = |id| {
        let primary = ground.get(id)?;
        Some((primary.label.clone(), primary.version?))
    };
    let (Some(from), Some(to)) = (side(one.from), side(one.to)) else {
        return Ok(());
    };
    let major = |version: Version| version.major;
    match major(from.1) > major(to.1) {
        true => Err(Refused::OlderTarget { from: Box::new(from), to: Box::new(to) }),
        false => Ok(()),
    }
}
