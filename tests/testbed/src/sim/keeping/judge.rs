//! What no keeper may do, and what has to stand in the end.

use std::time::Duration;

use valkeeper::topology::{Action, Deed, Mark, NodeId, StageKind};

use super::setting::Setting;
use crate::sim::history::{Rule, Violation};
use crate::sim::history::{broken, host_of, name};
use crate::sim::{Id, PieceSet, Sim};

/// Watches one history of keeping.
///
/// An identity may be forgotten when no wanted pod has it on its disk, whether the pod is up or down. One that came back
/// with a pod which nobody wanted when it was decided on is excused where nobody knows it to own slots: nothing but time
/// is lost by it. And whoever forgets it must not take slots from it that nobody else who is up claims.
#[derive(Clone, Debug)]
pub struct Judge {
    /// How many keys each piece had from the beginning; nothing is written.
    written: Vec<u64>,
    /// Pieces that faults have taken from the world.
    pub bereft: PieceSet,
    /// The pods that are wanted at the moment, and since when.
    pub wanted: Vec<(usize, Duration)>,
    /// When the partition that stands began.
    pub parted: Option<Duration>,
}

impl Judge {
    /// A judge of what happens from now on.
    pub fn new(sim: &Sim, wanted: &[usize]) -> Self {
        let most = |piece: usize| ours(sim).map(|at| sim.hosts[at].server.keys[piece]).max().unwrap_or(0);
        let written = (0..sim.pieces.count()).map(most).collect();
        let wanted = wanted.iter().map(|pod| (*pod, Duration::ZERO)).collect();
        Self { written, bereft: 0, wanted, parted: None }
    }

    /// Somebody is about to do this on his own node, having seen everybody at that time.
    pub fn acts(&self, sim: &Sim, seen: Duration, kind: StageKind, action: &Action) -> Result<(), Violation> {
        let Some(at) = host_of(sim, action.on) else { return Ok(()) };
        let detail = || format!("{kind}: {action}");
        let server = &sim.hosts[at].server;
        broken(sim.hosts[at].is_foreign, Rule::ForeignTouched, detail)?;
        let rearranges =
            matches!(action.deed, Deed::Replicate(_) | Deed::Forget(_) | Deed::AddSlots(_) | Deed::BumpEpoch);
        let cut_off = sim.hosts[at].side != 0 && self.parted.is_some_and(|since| since <= seen);
        broken(rearranges && cut_off, Rule::MinorityActed, detail)?;
        match &action.deed {
            Deed::Meet(id, _) => {
                let is_foreign = host_of(sim, *id).is_some_and(|to| sim.hosts[to].is_foreign);
                broken(is_foreign, Rule::ForeignTouched, detail)
            }
            Deed::AddSlots(ranges) => {
                let set = sim.pieces.set(ranges).unwrap_or(PieceSet::MAX);
                let taken = ours(sim).filter(|other| *other != at);
                let taken = taken.fold(0, |set, other| set | sim.hosts[other].server.own_slots());
                broken(set & taken != 0, Rule::SlotForTwo, detail)
            }
            // A primary that is not empty refuses by itself.
            Deed::Replicate(_) if server.follows.is_none() => Ok(()),
            Deed::Replicate(_) => {
                let held = (0..server.keys.len()).filter(|piece| server.keys[*piece] > 0);
                let others = || ours(sim).filter(|other| *other != at);
                let is_last = |piece: usize| !others().any(|other| sim.hosts[other].server.keys[piece] > 0);
                broken(held.into_iter().any(is_last), Rule::LastCopy, detail)
            }
            Deed::Forget(id) => self.forgets(sim, at, seen, *id, detail),
            _ => Ok(()),
        }
    }

    fn forgets(
        &self,
        sim: &Sim,
        at: usize,
        seen: Duration,
        whom: NodeId,
        detail: impl Fn() -> String,
    ) -> Result<(), Violation> {
        let is_whom = |id: &Id| sim.node_id(*id) == whom;
        let server = &sim.hosts[at].server;
        let slots = server.known.iter().filter_map(|known| known.id).find(is_whom).map_or(0, |id| server.slots_of(id));
        let up = ours(sim).filter(|other| sim.hosts[*other].is_up);
        let claimed = up.fold(0, |set, other| set | sim.hosts[other].server.own_slots());
        broken(slots & !claimed != 0, Rule::ForgotOwner, &detail)?;
        let living = self.wanted.iter().find(|(pod, _)| is_whom(&sim.hosts[*pod].server.id));
        let is_excused = living.is_none_or(|(_, since)| *since > seen && slots == 0);
        broken(!is_excused, Rule::ForgotAlive, detail)
    }

    /// Nothing is lost but by disks, and nobody else is drawn in.
    pub fn glance(&self, sim: &Sim) -> Result<(), Violation> {
        for (piece, written) in self.written.iter().enumerate().filter(|(piece, _)| self.bereft & 1 << piece == 0) {
            let is_kept = ours(sim).any(|at| sim.hosts[at].server.keys[piece] >= *written);
            broken(!is_kept, Rule::KeyLost, || format!("nobody holds piece {piece}"))?;
        }
        let mut owner = vec![None; sim.hosts.iter().map(|host| host.server.id + 1).max().unwrap_or(0)];
        sim.hosts.iter().for_each(|host| owner[host.server.id] = Some(host.is_foreign));
        for (at, host) in sim.hosts.iter().enumerate() {
            let known = host.server.known.iter().filter_map(|known| known.id);
            let mut whose = known.filter_map(|id| owner.get(id).copied().flatten());
            broken(whose.any(|is| is != host.is_foreign), Rule::ForeignTouched, || name(sim, at))?;
        }
        Ok(())
    }

    /// Everybody says that the cluster stands.
    pub fn finished(&self, sim: &Sim, setting: &Setting) -> Result<(), Violation> {
        let wanted = setting.wanted();
        let shape = setting.after.shape;
        let mut taken: PieceSet = 0;
        let wrong = |is: bool, detail: String| broken(is, Rule::WrongShape, || detail);
        for at in wanted {
            let own = sim.hosts[*at].server.own_slots();
            broken(own & taken != 0, Rule::SlotForTwo, || name(sim, *at))?;
            taken |= own;
        }
        wrong(taken != sim.pieces.all(), "not every slot has an owner".to_owned())?;
        let primaries: Vec<&usize> = wanted.iter().filter(|at| sim.hosts[**at].server.follows.is_none()).collect();
        wrong(primaries.len() != usize::from(shape.shards.get()), format!("{} primaries", primaries.len()))?;
        for primary in primaries {
            let server = &sim.hosts[*primary].server;
            let follows = |at: &&usize| sim.hosts[**at].server.follows == Some(server.id);
            let replicas: Vec<_> = wanted.iter().filter(follows).collect();
            let count = replicas.len();
            wrong(count != usize::from(shape.replicas), format!("{} has {count} replicas", name(sim, *primary)))?;
            let own = server.own_slots();
            let lacks = |piece: usize| own & 1 << piece != 0 && server.keys[piece] < self.written[piece];
            let mut pieces = 0..self.written.len();
            broken(pieces.any(lacks), Rule::KeyLost, || format!("{} lacks keys", name(sim, *primary)))?;
        }
        let ids: Vec<Id> = wanted.iter().map(|at| sim.hosts[*at].server.id).collect();
        for at in wanted {
            let server = &sim.hosts[*at].server;
            // A handshake that leads nowhere ends by itself.
            let is_there = |known: &super::Known| known.id.is_none_or(|id| ids.contains(&id));
            let left = server.known.iter().filter(|known| !is_there(known)).count();
            broken(left > 0, Rule::Leftover, || format!("{} knows {left} who are not there", name(sim, *at)))?;
            let is_plain = Mark::parse(&server.name).is_some_and(|mark| mark.forming.is_none());
            let is_right = is_plain && server.settings == sim.hosts[*at].file;
            broken(!is_right, Rule::SettingsLeft, || name(sim, *at))?;
        }
        Ok(())
    }

    /// Whether a refusal is right once faults have stopped: slots whose owner will not come back.
    pub fn has_reason(&self, sim: &Sim, setting: &Setting) -> bool {
        let claimed = setting.wanted().iter().fold(0, |set, at| set | sim.hosts[*at].server.own_slots());
        claimed != sim.pieces.all()
    }
}

/// Our own pods.
pub(super) fn ours(sim: &Sim) -> impl Iterator<Item = usize> {
    (0..sim.hosts.len()).filter(|at| !sim.hosts[*at].is_foreign)
}
