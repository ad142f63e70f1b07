//! Identities that our members know and that did not answer: pods that are away, and what is left of those that have
//! lost their disk.

use std::collections::BTreeMap;

use super::membership::Member;
use super::node::{Endpoint, NodeId};
use super::slot::SlotSet;

/// What the members know of one that did not answer.
#[derive(Clone, Debug)]
pub struct Absent {
    /// Where it was last known to be.
    pub endpoint: Option<Endpoint>,
    /// The slots that any view gives to it.
    pub slots: SlotSet,
    /// Whether nobody can talk to it.
    pub is_lost: bool,
    /// Who knows it: places among the members.
    pub known_by: Vec<usize>,
}

/// What members know of these identities, none of which is a member's.
pub(super) fn absent(members: &[Member<'_>], ids: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, Absent> {
    let of = |id| {
        let mut absent: Option<Absent> = None;
        for (place, member) in members.iter().enumerate() {
            let Some(entry) = member.report.view.get(id) else {
                continue;
            };
            let absent = absent.get_or_insert_with(|| Absent {
                endpoint: None,
                slots: SlotSet::EMPTY,
                is_lost: true,
                known_by: Vec::new(),
            });
            absent.endpoint = absent.endpoint.or_else(|| entry.endpoint().filter(|_| !entry.flags.without_address));
            absent.slots.extend(&entry.slots);
            absent.is_lost &= entry.is_lost();
            absent.known_by.push(place);
        }
        absent.map(|absent| (id, absent))
    };
    ids.filter_map(of).collect()
}
