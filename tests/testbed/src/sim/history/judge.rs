//! The invariants: what no planner may do, whatever it sees and whenever it dies.

use std::fmt;

use valkeeper::topology::{Action, Decision, Deed, DesiredTopology, Mark, Observation};

use crate::sim::{Id, PieceSet, Sim};

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A slot is never requested for two nodes, nor one that somebody is known to own.
    SlotForTwo,
    /// Slots are given to one island only.
    SlotsApart,
    /// No action on a node that did not answer.
    SilentPeer,
    /// Converged stays converged.
    LeftConverged,
    /// Islands with slots are never merged.
    IslandsMerged,
    /// A node of another cluster is never touched.
    ForeignTouched,
    /// A primary with slots or keys is never made a replica.
    DataReplicatedOver,
    /// The number of assigned slots never falls.
    SlotsFell,
    /// No key is lost.
    KeyLost,
    /// No key is written while the node's settings are lowered.
    WrittenWhileLowered,
    /// Once faults stop, Converged within a bounded time, or Refuse where there is a reason.
    Unfinished,
    /// After Converged the settings are the file's, and every node carries its plain mark.
    SettingsLeft,
    /// Converged means that the wanted shape stands.
    WrongShape,
    /// Same input, same output.
    Fickle,
    /// The last copy of data is not given up for another's.
    LastCopy,
    /// No identity is forgotten whose disk a wanted pod has.
    ForgotAlive,
    /// No identity is forgotten that owns slots which nobody who is here claims.
    ForgotOwner,
    /// Nothing is rearranged on the minority's side of a partition, on what was seen there.
    MinorityActed,
    /// In the end nobody knows anybody who is not there.
    Leftover,
}

/// Which promise was broken, and how.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The promise.
    pub rule: Rule,
    /// The circumstances.
    pub detail: String,
}

/// Watches one history.
#[derive(Clone, Debug)]
pub struct Judge {
    desired: DesiredTopology,
    /// Pods that stood as clusters of their own from the beginning, by number.
    islands: Vec<u8>,
    /// How many keys clients have written into each piece.
    written: Vec<u64>,
    assigned: PieceSet,
}

impl Judge {
    /// A judge of what happens from now on.
    pub fn new(sim: &Sim, desired: DesiredTopology, islands: Vec<u8>) -> Self {
        let mut written = vec![0; sim.pieces.count()];
        for host in sim.hosts.iter().filter(|host| !host.is_foreign) {
            written.iter_mut().zip(&host.server.keys).for_each(|(all, keys)| *all = keys.max(all).to_owned());
        }
        Self { desired, islands, written, assigned: assigned(sim) }
    }

    /// A client wrote a key.
    pub fn wrote(&mut self, sim: &Sim, at: usize, piece: usize) -> Result<(), Violation> {
        self.written[piece] += 1;
        let host = &sim.hosts[at];
        let is_lowered = host.server.settings.node_timeout != host.file.node_timeout;
        broken(is_lowered, Rule::WrittenWhileLowered, || name(sim, at))
    }

    /// A planner decided.
    pub fn planned(&self, sim: &Sim, observation: &Observation, decision: &Decision) -> Result<(), Violation> {
        let Decision::Act(stage) = decision else { return Ok(()) };
        let mut requested: PieceSet = 0;
        for action in &stage.actions {
            let mut answers = observation.reports().filter(|(peer, _)| peer.address == action.address);
            let Some((_, report)) = answers.find(|(_, report)| report.id() == action.on) else {
                return violation(Rule::SilentPeer, action.to_string());
            };
            let own = report.myself();
            match &action.deed {
                Deed::AddSlots(ranges) => {
                    let set = sim.pieces.set(ranges).unwrap_or(PieceSet::MAX);
                    let owned = seen_owned(sim, observation);
                    broken(set & (requested | owned) != 0, Rule::SlotForTwo, || action.to_string())?;
                    requested |= set;
                }
                Deed::Replicate(_) => {
                    let holds = own.role.is_primary() && (!own.slots.is_empty() || report.keys > 0);
                    broken(holds, Rule::DataReplicatedOver, || action.to_string())?;
                }
                Deed::Meet(id, endpoint) => {
                    let there = |peer: &valkeeper::topology::Peer| {
                        peer.address.ip() == endpoint.ip && peer.address.port() == endpoint.port
                    };
                    let asked = observation.reports().any(|(peer, report)| there(peer) && report.id() == *id);
                    broken(!asked, Rule::SilentPeer, || action.to_string())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An action was done.
    pub fn acted(&self, sim: &Sim, action: &Action) -> Result<(), Violation> {
        let on = host_of(sim, action.on);
        broken(on.is_some_and(|on| sim.hosts[on].is_foreign), Rule::ForeignTouched, || action.to_string())?;
        match &action.deed {
            Deed::Meet(id, _) => {
                let to = host_of(sim, *id);
                broken(to.is_some_and(|to| sim.hosts[to].is_foreign), Rule::ForeignTouched, || action.to_string())?;
                let island = |at: Option<usize>| at.and_then(|at| self.islands.get(at)).filter(|island| **island > 0);
                let both = island(on).zip(island(to)).is_some_and(|(one, other)| one != other);
                broken(both, Rule::IslandsMerged, || action.to_string())
            }
            Deed::AddSlots(_) => {
                let apart = islands_with_slots(sim);
                let stood = self.islands.iter().max().map_or(1, |most| (*most).max(1));
                broken(apart > usize::from(stood), Rule::SlotsApart, || format!("{action}: {apart} islands with slots"))
            }
            _ => Ok(()),
        }
    }

    /// Something happened: nothing may be lost by it, and nobody else drawn in.
    pub fn glance(&mut self, sim: &Sim) -> Result<(), Violation> {
        let assigned = assigned(sim);
        let fell = sim.pieces.ranges(self.assigned & !assigned);
        broken(!fell.is_empty(), Rule::SlotsFell, || format!("nobody owns {fell:?} any more"))?;
        self.assigned = assigned;
        for (piece, written) in self.written.iter().enumerate() {
            let ours = sim.hosts.iter().filter(|host| !host.is_foreign);
            let kept = ours.map(|host| host.server.keys[piece]).max().unwrap_or(0);
            let lost = written.saturating_sub(kept);
            broken(lost > 0, Rule::KeyLost, || format!("{lost} of {written} keys of piece {piece}"))?;
        }
        let owner = |id: Id| sim.hosts.iter().find(|host| host.server.id == id).map(|host| host.is_foreign);
        for (at, host) in sim.hosts.iter().enumerate() {
            let mut strangers = host.server.known.iter().filter_map(|known| known.id).filter_map(owner);
            broken(strangers.any(|is| is != host.is_foreign), Rule::ForeignTouched, || name(sim, at))?;
        }
        Ok(())
    }

    /// It is said to have converged, and nothing disturbs it any more.
    pub fn finished(&self, sim: &Sim) -> Result<(), Violation> {
        let ours: Vec<usize> = (0..sim.hosts.len()).filter(|at| !sim.hosts[*at].is_foreign).collect();
        let mut taken: PieceSet = 0;
        for at in &ours {
            let own = sim.hosts[*at].server.own_slots();
            broken(own & taken != 0, Rule::SlotForTwo, || format!("{} owns {own:b}", name(sim, *at)))?;
            taken |= own;
        }
        broken(taken != sim.pieces.all(), Rule::WrongShape, || format!("only {taken:b} is owned"))?;
        let primaries: Vec<&usize> = ours.iter().filter(|at| sim.hosts[**at].server.own_slots() != 0).collect();
        let shape = self.desired.shape;
        let count = primaries.len();
        broken(count != usize::from(shape.shards.get()), Rule::WrongShape, || format!("{count} primaries"))?;
        for primary in primaries {
            let id = sim.hosts[*primary].server.id;
            let replicas = ours.iter().filter(|at| sim.hosts[**at].server.follows == Some(id)).count();
            let is_right = replicas == usize::from(shape.replicas);
            broken(!is_right, Rule::WrongShape, || format!("{} has {replicas} replicas", name(sim, *primary)))?;
        }
        for at in ours {
            let host = &sim.hosts[at];
            let mark = Mark::parse(&host.server.name);
            let is_plain = mark.is_some_and(|mark| mark.cluster == self.desired.cluster && mark.forming.is_none());
            let is_right = is_plain && host.server.settings == host.file;
            broken(!is_right, Rule::SettingsLeft, || format!("{}: {:?}", name(sim, at), host.server.name))?;
        }
        Ok(())
    }
}

/// Breaks a rule if so.
pub(in crate::sim) fn broken(is: bool, rule: Rule, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if is { violation(rule, detail()) } else { Ok(()) }
}

fn violation(rule: Rule, detail: String) -> Result<(), Violation> {
    Err(Violation { rule, detail })
}

/// A pod as people know it.
pub(in crate::sim) fn name(sim: &Sim, at: usize) -> String {
    sim.hosts[at].pod.as_ref().map_or_else(|| format!("server {at}"), ToString::to_string)
}

pub(in crate::sim) fn host_of(sim: &Sim, id: valkeeper::topology::NodeId) -> Option<usize> {
    sim.hosts.iter().position(|host| sim.node_id(host.server.id) == id)
}

/// What our own servers say they own.
fn assigned(sim: &Sim) -> PieceSet {
    sim.hosts.iter().filter(|host| !host.is_foreign).fold(0, |set, host| set | host.server.own_slots())
}

/// What anybody of ours was seen to know an owner of.
fn seen_owned(sim: &Sim, observation: &Observation) -> PieceSet {
    let ours = observation
        .reports()
        .filter(|(_, report)| host_of(sim, report.id()).is_none_or(|at| !sim.hosts[at].is_foreign));
    ours.flat_map(|(_, report)| report.view.entries())
        .filter_map(|entry| sim.pieces.set(&entry.slots))
        .fold(0, |set, more| set | more)
}

/// How many groups of our servers, none of which knows of another group, own slots.
fn islands_with_slots(sim: &Sim) -> usize {
    let mut groups: Vec<(Vec<Id>, bool)> = Vec::new();
    for host in sim.hosts.iter().filter(|host| !host.is_foreign) {
        let own = host.server.known.iter().filter_map(|known| known.id).chain([host.server.id]);
        let mut group: (Vec<Id>, bool) = (own.collect(), host.server.own_slots() != 0);
        groups.retain(|other| {
            let touches = other.0.iter().any(|id| group.0.contains(id));
            if touches {
                group.0.extend(&other.0);
                group.1 |= other.1;
            }
            !touches
        });
        groups.push(group);
    }
    groups.iter().filter(|group| group.1).count()
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}
