//! What the cluster looks like to who moves slots: its primaries and what each owns, if that is beyond doubt.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Refused;
use crate::topology::membership::{Label, Member, Membership};
use crate::topology::node::{Moving, NodeEntry, NodeId, Role, exports};
use crate::topology::observation::View;
use crate::topology::slot::{Slot, SlotRange, SlotSet};
use crate::topology::version::Version;

/// A cluster that slots can be moved in.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Every primary that is known to all, lowest ordinal first.
    pub primaries: Vec<Primary>,
    /// Whether everybody sees everybody's slots as their owner does.
    pub agreed: bool,
    /// Who stands for whom: each member, and each node that a member knows of, and the primary of its shard.
    primary_of: BTreeMap<NodeId, NodeId>,
}

/// A primary of ours.
#[derive(Clone, Debug)]
pub struct Primary {
    /// Who.
    pub id: NodeId,
    /// For people.
    pub label: Label,
    /// Where it answers.
    pub address: SocketAddr,
    /// What it runs.
    pub version: Option<Version>,
    /// What it owns.
    pub slots: SlotSet,
    /// How many keys it holds.
    pub keys: u64,
    /// How many bytes it uses.
    pub memory: u64,
    /// Its slots that are on their way.
    pub moving: Vec<Moving>,
}

impl Ground {
    /// Surveys a round's members.
    pub fn survey(membership: &Membership<'_>) -> Result<Self, Refused> {
        let members = &membership.members;
        if members.is_empty() {
            let asked = membership.silent.iter().map(|(node, why)| (node.clone(), why.to_string()));
            return Err(Refused::Nobody(asked.collect()));
        }
        let primaries: Vec<&Member<'_>> = members
            .iter()
            .filter(|member| member.report.myself().role.is_primary() && is_placed(member, members))
            .collect();
        uncontested(&primaries)?;
        let opinions = membership.opinions();
        let ground = Self {
            primaries: primaries.iter().map(|member| Primary::of(member)).collect(),
            agreed: agreed(&opinions, &primaries),
            primary_of: shards(members, &opinions),
        };
        ground.covered(&opinions)?;
        for member in &primaries {
            let report = member.report;
            if report.is_lowered() {
                return Err(Refused::Forming(member.label()));
            }
            if report.myself().flags.no_failover && report.myself().owns_slots() {
                return Err(Refused::Leaving(member.label()));
            }
            if !report.cluster.ok {
                return Err(Refused::NotOk(member.label()));
            }
            if let Some(other) = primaries.iter().find(|other| other.report.view.suspects(member.id())) {
                return Err(Refused::Suspected { node: member.label(), by: other.label() });
            }
        }
        // A node that leaves is neither filled nor, as it has nothing, emptied.
        let leaving: Vec<NodeId> =
            primaries.iter().filter(|member| member.report.myself().flags.no_failover).map(|m| m.id()).collect();
        let mut ground = ground;
        ground.primaries.retain(|primary| !leaving.contains(&primary.id));
        Ok(ground)
    }

    /// The primary of this id.
    pub fn get(&self, id: NodeId) -> Option<&Primary> {
        self.primaries.iter().find(|primary| primary.id == id)
    }

    /// Who owns a slot.
    pub fn owner(&self, slot: Slot) -> Option<&Primary> {
        self.primaries.iter().find(|primary| primary.slots.contains(slot))
    }

    /// The primary that stands for a node now: itself, or who has taken over from it.
    pub fn heir_of(&self, id: NodeId) -> Option<&Primary> {
        self.get(*self.primary_of.get(&id)?)
    }

    /// How a node is told to people: by its pod where it is a primary.
    pub fn label(&self, id: NodeId) -> String {
        self.get(id).map_or_else(|| id.short(), |primary| primary.label.to_string())
    }

    fn covered(&self, opinions: &[&View]) -> Result<(), Refused> {
        let mut served = SlotSet::EMPTY;
        for primary in &self.primaries {
            served.add(&primary.slots);
            // What it was given and has not been told yet; nobody else claims it, or it would not be importing.
            served.add(&unclaimed_imports(primary, opinions));
        }
        let missing = SlotSet::ALL.without(&served);
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Refused::Uncovered(Box::new(missing))),
        }
    }
}

impl Primary {
    fn of(member: &Member<'_>) -> Self {
        let myself = member.report.myself();
        Self {
            id: member.id(),
            label: member.label(),
            address: member.address,
            version: member.report.version,
            slots: myself.slot_set(),
            keys: member.report.keys,
            memory: member.report.used_memory,
            moving: myself.moving.clone(),
        }
    }

    /// Whether it moves whole slots at once.
    pub fn is_atomic(&self) -> bool {
        self.version.is_some_and(|version| version >= Version::ATOMIC_MIGRATION)
    }

    /// The slots that it sends, and to whom.
    pub fn exports(&self) -> impl Iterator<Item = (Slot, NodeId)> + '_ {
        exports(&self.moving)
    }

    /// Whether a person means it: by its pod, its address or its id.
    pub fn is_called(&self, name: &str) -> bool {
        is_called(&self.label, self.id, name)
    }
}

/// The slots that a node receives and that no view gives to anybody but itself: the old owner was told already.
pub(super) fn unclaimed_imports(primary: &Primary, opinions: &[&View]) -> SlotSet {
    let imports = primary.moving.iter().filter_map(|moving| match moving {
        Moving::From(slot, _) => SlotRange::new(*slot, *slot),
        Moving::To(..) => None,
    });
    let imports: SlotSet = imports.collect::<Vec<_>>().iter().collect();
    if imports.is_empty() {
        return imports;
    }
    let others = opinions.iter().flat_map(|view| view.owners()).filter(|owner| owner.id != primary.id);
    imports.without(&others.flat_map(|owner| &owner.slots).collect())
}

pub(super) fn is_called(label: &Label, id: NodeId, name: &str) -> bool {
    label.pod.as_ref().is_some_and(|pod| pod.as_str() == name)
        || label.address.to_string() == name
        || id.to_string() == name
}

/// Whether a node has slots, or is known by all that have.
fn is_placed(member: &Member<'_>, members: &[Member<'_>]) -> bool {
    let knows = |one: &Member<'_>, other: &Member<'_>| {
        one.id() == other.id() || one.report.view.get(other.id()).is_some_and(|entry| !entry.flags.without_address)
    };
    !member.report.myself().slots.is_empty()
        || members
            .iter()
            .filter(|other| other.report.myself().owns_slots())
            .all(|other| knows(other, member) && knows(member, other))
}

fn uncontested(primaries: &[&Member<'_>]) -> Result<(), Refused> {
    let mut seen = SlotSet::EMPTY;
    let mut slots = primaries.iter().flat_map(|primary| &primary.report.myself().slots).flat_map(|range| range.slots());
    if slots.all(|slot| seen.insert(slot)) {
        return Ok(());
    }
    for (place, one) in primaries.iter().enumerate() {
        for other in primaries.iter().skip(place + 1) {
            let both = one.report.myself().slot_set().and(&other.report.myself().slot_set());
            if !both.is_empty() {
                return Err(Refused::Contested(one.label(), other.label(), Box::new(both)));
            }
        }
    }
    Ok(())
}

fn agreed(opinions: &[&View], primaries: &[&Member<'_>]) -> bool {
    primaries.iter().map(|primary| primary.report.myself()).all(|own| {
        opinions.iter().all(|view| match view.get(own.id) {
            Some(seen) => seen.slots == own.slots || seen.slot_set() == own.slot_set(),
            None => own.slots.is_empty(),
        })
    })
}

/// Every node's primary: as it says itself, else as members say.
fn shards(members: &[Member<'_>], opinions: &[&View]) -> BTreeMap<NodeId, NodeId> {
    let primary = |entry: &NodeEntry| match entry.role {
        Role::Primary => Some(entry.id),
        Role::Replica(primary) => primary,
    };
    let said = opinions.iter().flat_map(|view| view.others());
    let own = members.iter().map(|member| member.report.myself());
    // The last one counts.
    said.chain(own).filter_map(|entry| Some((entry.id, primary(entry)?))).collect()
}
