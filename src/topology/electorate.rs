//! Whether a takeover can be voted on: a replica is elected by a majority of the primaries that own slots.
//!
//! To ask a replica in vain does harm: 8.0 begins no other election of its for four node timeouts, and who has voted for
//! it votes for no replica of that primary again for two.

use std::fmt;
use std::time::Duration;

use super::node::{NodeEntry, NodeId};
use super::observation::View;

/// Those that could vote, as the replica to be elected sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Electorate {
    /// How many of them its bus is linked to.
    pub up: usize,
    /// How many there are.
    pub all: usize,
    /// How many of those that are down come before the one that is to be replaced.
    pub before: usize,
}

impl Electorate {
    /// The primaries with slots in a replica's view. `dead` does not vote, however lately its link broke; nor do those
    /// that are known to be `gone`, to which the replica's bus seems linked whenever it tries to reach them.
    pub fn of(view: &View, dead: Option<NodeId>, gone: &[NodeId]) -> Self {
        let voters = || view.entries().iter().filter(|entry| entry.owns_slots());
        let is_up = |voter: &&NodeEntry| {
            voter.connected && !voter.flags.failed && Some(voter.id) != dead && !gone.contains(&voter.id)
        };
        let before = voters().filter(|voter| !is_up(voter) && Some(voter.id) < dead).count();
        Self { up: voters().filter(is_up).count(), all: voters().count(), before }
    }

    /// Whether those that are up are a majority.
    pub fn can_elect(self) -> bool {
        self.up > self.all / 2
    }
}

/// How long the heirs of primaries that died together wait for each other: every primary votes once in an epoch, and two
/// that ask in the same one may both fail. 8.0 begins an attempt up to a tenth of a second after it was asked to.
pub const TURN: Duration = Duration::from_millis(250);

/// How long an attempt to be elected by force is given before the next, the first of them being number 1. Who wins does so
/// within moments; but on a slow disk every vote takes its time, and from 8.1 on who is asked again begins anew.
pub fn attempt(number: usize) -> Duration {
    match number {
        0 | 1 => Duration::from_secs(1),
        2 => Duration::from_secs(2),
        // The server gives up after this time (`CLUSTER_MF_TIMEOUT` in `cluster_legacy.h`).
        _ => Duration::from_secs(5),
    }
}

impl fmt::Display for Electorate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} primaries can vote", self.up, self.all)
    }
}
