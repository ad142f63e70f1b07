//! Which shards are kept when pods leave, who gives its slots to whom, and who hands over.

use std::cmp::Reverse;
use std::num::NonZeroU16;
use std::time::Duration;

use super::ground::is_called;
use super::spread::fill;
use super::{Ground, Move, Refused, Share};
use crate::topology::drain::{Peer, elects};
use crate::topology::membership::{Label, Member, Membership};
use crate::topology::node::{NodeId, Role};
use crate::topology::server::ServerReport;

/// What has to be done so that pods can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evacuation {
    /// The primaries of the shards that remain, by their order in the cluster.
    pub kept: Vec<NodeId>,
    /// What the others give away.
    pub moves: Vec<Move>,
    /// Primaries of kept shards that leave: a member of theirs that stays has to take over.
    pub handovers: Vec<NodeId>,
    /// Members that stay.
    pub staying: Vec<NodeId>,
    /// Members of shards that are to be emptied and have no member that stays.
    pub dissolving: Vec<Label>,
}

/// How far behind an heir may be when it is asked, in bytes: the primary holds writes back until it has caught up.
const LITTLE: u64 = 1 << 20;

/// How long after its start the primaries may lack the link to a replica over which they would vote for it.
const YOUNG: Duration = Duration::from_secs(60);

/// Who can take over now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heir {
    /// This one, at once.
    Ready(NodeId),
    /// Nobody yet, and why.
    Later(String),
}

impl Evacuation {
    /// Plans. Kept are the shards with the most members that stay, then those whose primary stays, then those with the
    /// most slots, then those of the lowest ordinal: as many as asked for, else as many as own slots and keep a member.
    pub fn of(
        ground: &Ground,
        membership: &Membership<'_>,
        pods: &[String],
        shards: Option<NonZeroU16>,
    ) -> Result<Self, Refused> {
        let members = &membership.members;
        for name in pods {
            if !members.iter().any(|member| is_called(&member.label(), member.id(), name)) {
                let named = |label: &Label| {
                    label.pod.as_ref().is_some_and(|pod| pod.as_str() == name) || label.address.to_string() == *name
                };
                return Err(match membership.silent.iter().find(|(label, _)| named(label)) {
                    Some((label, why)) => Refused::Silent(label.clone(), why.to_string()),
                    None => Refused::Unknown(name.clone()),
                });
            }
        }
        let leaves = |label: &Label, id| pods.iter().any(|name| is_called(label, id, name));
        let staying: Vec<NodeId> =
            members.iter().filter(|member| !leaves(&member.label(), member.id())).map(|member| member.id()).collect();
        let stayers = |primary: NodeId| {
            staying.iter().filter(|id| ground.heir_of(**id).is_some_and(|heir| heir.id == primary)).count()
        };
        let mut candidates: Vec<_> = ground
            .primaries
            .iter()
            .enumerate()
            .filter(|(_, primary)| stayers(primary.id) > 0)
            .map(|(place, primary)| {
                let stays = staying.contains(&primary.id);
                (Reverse(stayers(primary.id)), Reverse(stays), Reverse(primary.slots.len()), place, primary)
            })
            .collect();
        candidates.sort_by_key(|(stayers, stays, slots, place, _)| (*stayers, *stays, *slots, *place));
        let left = candidates.len();
        let owning = candidates.iter().filter(|candidate| !candidate.4.slots.is_empty()).count();
        let wanted = shards.map_or(if owning > 0 { owning } else { left }, |shards| shards.get().into());
        if left == 0 {
            return Err(Refused::Everybody);
        }
        if wanted > left {
            return Err(Refused::TooFewShards { asked: wanted, left });
        }
        let mut kept: Vec<_> =
            candidates.into_iter().take(wanted).map(|(.., place, primary)| (place, primary.id)).collect();
        kept.sort();
        let kept: Vec<NodeId> = kept.into_iter().map(|(_, id)| id).collect();
        let shares = ground.primaries.iter().map(|primary| Share {
            id: primary.id,
            slots: primary.slots.clone(),
            weight: u32::from(kept.contains(&primary.id)),
        });
        let moves = fill(&shares.collect::<Vec<_>>()).ok_or(Refused::Everybody)?;
        let dissolves =
            |member: &Member<'_>| ground.heir_of(member.id()).is_some_and(|primary| stayers(primary.id) == 0);
        let dissolving = members.iter().filter(|member| dissolves(member)).map(Member::label).collect();
        let handovers = kept.iter().copied().filter(|id| !staying.contains(id)).collect();
        Ok(Self { kept, moves, handovers, staying, dissolving })
    }
}

/// Which replica of a primary that leaves is asked to take over: one that stays, has its link up and is least behind.
/// The peers are all that can vote, and all replicas.
pub fn heir(own: &ServerReport, peers: &[Peer], staying: &[NodeId]) -> Heir {
    let mut why = "no replica stays, answers and follows it".to_owned();
    let mut ready = Vec::new();
    let replicas: Vec<NodeId> = own.replicas().map(|replica| replica.id).collect();
    for peer in peers.iter().filter(|peer| staying.contains(&peer.id) && replicas.contains(&peer.id)) {
        let report = match &peer.answer {
            Ok(report) => report,
            Err(silence) => {
                why = format!("{} {silence}", peer.label);
                continue;
            }
        };
        let follows = report.myself().map(|myself| myself.role) == Some(Role::Replica(own.id()));
        let is_up = report.replication.link.as_ref().is_some_and(|link| link.up);
        let behind = own.replication.offset.saturating_sub(report.replication.offset);
        if report.id() != Some(peer.id) || !follows || report.leaving {
            why = format!("{} does not follow it, or is about to stop", peer.label);
        } else if !is_up || report.loading.is_some() {
            why = format!("{} has no whole copy yet", peer.label);
        } else if behind > LITTLE {
            why = format!("{} is {behind} bytes behind", peer.label);
        } else if report.uptime < YOUNG && !elects(own, peer.id, peers) {
            why = format!("{} was just started, and too few primaries have a link to it", peer.label);
        } else {
            ready.push((behind, peer.id));
        }
    }
    ready.sort();
    ready.first().map_or(Heir::Later(why), |(_, id)| Heir::Ready(*id))
}
