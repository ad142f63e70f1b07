//! Islands: nodes that know each other, directly or through others. A healthy cluster is one island.
//!
//! One side's knowledge is enough to tie two nodes together: the one that knows keeps knocking until the other knows
//! too. Nodes that are only known by hearsay tie as well, so that the loss of the node in the middle of a cluster does
//! not make two of it.

use std::collections::BTreeMap;

use super::node::NodeId;
use super::observation::{NodeReport, View, alike};

/// Which nodes belong together.
#[derive(Clone, Debug)]
pub struct Islands {
    /// Who gave a report, ascending.
    reporters: Vec<NodeId>,
    /// Who is only known by hearsay, and their places after the reporters.
    others: BTreeMap<NodeId, usize>,
    /// Each place's way towards the place that stands for its island.
    parents: Vec<usize>,
    /// Whether every reporter knows every other.
    acquainted: bool,
}

impl Islands {
    /// The islands that these nodes and everybody they know fall into.
    pub fn of<'a>(reports: impl IntoIterator<Item = &'a NodeReport>) -> Self {
        let mut reports: Vec<&NodeReport> = reports.into_iter().collect();
        reports.sort_by_key(|report| report.id());
        reports.dedup_by_key(|report| report.id());
        let reporters: Vec<NodeId> = reports.iter().map(|report| report.id()).collect();
        let parents = (0..reporters.len()).collect();
        let mut islands = Self { reporters, others: BTreeMap::new(), parents, acquainted: true };
        let mut heard: Vec<(&View, usize)> = Vec::new();
        for (from, view) in reports.into_iter().map(|report| &report.view).enumerate() {
            if let Some(other) = alike(&heard, |other| other.knows_the_same(view)) {
                islands.join(from, *other);
                continue;
            }
            heard.push((view, from));
            let reporters = std::mem::take(&mut islands.reporters);
            let mut known = 0;
            for (entry, place) in view.beside(&reporters, |id| *id) {
                known += usize::from(place.is_some());
                // Only who is not found there may be somebody whose id is not proven.
                let to = place.or_else(|| entry.is_known().then(|| islands.hearsay(entry.id)));
                to.into_iter().for_each(|to| islands.join(from, to));
            }
            islands.acquainted &= known == reporters.len() && view.has_met();
            islands.reporters = reporters;
        }
        islands
    }

    /// The id that stands for the island of this node; its own where nobody has heard of it.
    pub fn root(&self, id: NodeId) -> NodeId {
        let place = self.reporters.binary_search(&id).ok().or_else(|| self.others.get(&id).copied());
        let root = place.map(|place| self.top(place));
        let named = |root: usize| {
            let other = || self.others.iter().find(|(_, place)| **place == root).map(|(id, _)| *id);
            self.reporters.get(root).copied().or_else(other)
        };
        root.and_then(named).unwrap_or(id)
    }

    /// Whether both are on one island.
    pub fn together(&self, a: NodeId, b: NodeId) -> bool {
        self.root(a) == self.root(b)
    }

    /// Whether everybody who gave a report knows everybody else who did.
    pub fn are_acquainted(&self) -> bool {
        self.acquainted
    }

    /// Everybody who gave no report and is known by somebody who did, ascending.
    pub fn hearsays(&self) -> impl Iterator<Item = NodeId> {
        self.others.keys().copied()
    }

    fn hearsay(&mut self, id: NodeId) -> usize {
        let next = self.parents.len();
        let place = *self.others.entry(id).or_insert(next);
        if place == next {
            self.parents.push(next);
        }
        place
    }

    fn top(&self, place: usize) -> usize {
        let mut at = place;
        while let Some(next) = self.parents.get(at).filter(|next| **next != at) {
            at = *next;
        }
        at
    }

    /// The lower place stands for both: a reporter's, where there is one.
    fn join(&mut self, a: usize, b: usize) {
        if self.parents.get(a) == self.parents.get(b) {
            return;
        }
        let (a_top, b_top) = (self.top(a), self.top(b));
        let (low, high) = (a_top.min(b_top), a_top.max(b_top));
        for place in [a, b, high] {
            if let Some(parent) = self.parents.get_mut(place) {
                *parent = low;
            }
        }
    }
}
