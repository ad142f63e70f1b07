//! Islands: nodes that know each other, directly or through others. A healthy cluster is one island.
//!
//! One side's knowledge is enough to tie two nodes together: the one that knows keeps knocking until the other knows
//! too. Nodes that are only known by hearsay tie as well, so that the loss of the node in the middle of a cluster does
//! not make two of it.

use std::collections::BTreeMap;

use super::node::NodeId;
use super::observation::NodeReport;

/// Which nodes belong together.
#[derive(Clone, Debug)]
pub struct Islands {
    /// Each id's way towards the id that stands for its island.
    parent: BTreeMap<NodeId, NodeId>,
}

impl Islands {
    /// The islands that these nodes and everybody they know fall into.
    pub fn of<'a>(reports: impl IntoIterator<Item = &'a NodeReport>) -> Self {
        let mut islands = Self { parent: BTreeMap::new() };
        for report in reports {
            islands.parent.entry(report.id()).or_insert(report.id());
            for other in report.view.others() {
                islands.join(report.id(), other.id);
            }
        }
        islands
    }

    /// The id that stands for the island of this node.
    pub fn root(&self, id: NodeId) -> NodeId {
        let mut at = id;
        while let Some(next) = self.parent.get(&at).filter(|next| **next != at) {
            at = *next;
        }
        at
    }

    /// Whether both are on one island.
    pub fn together(&self, a: NodeId, b: NodeId) -> bool {
        self.root(a) == self.root(b)
    }

    fn join(&mut self, a: NodeId, b: NodeId) {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.parent.insert(low, low);
        self.parent.insert(high, low);
    }
}
