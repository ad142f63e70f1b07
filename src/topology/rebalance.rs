//! Moving slots between primaries that stand: who is to own which, what slots mean that are half moved already, which
//! shards are kept when pods leave, and how much goes over at once.
//!
//! Nothing is remembered outside of the cluster. A run looks, mends what another one began, plans from what it sees and
//! moves; then it looks again, until nothing is left to be done. The plan is a function of what is seen, so two runs
//! beside each other want the same.

mod batch;
mod evacuation;
mod goal;
mod ground;
mod open;
mod refused;
mod spread;

use super::node::NodeId;
use super::slot::SlotSet;

pub use batch::{BIG, Batch, Key, Window, batches, blocks_for};
pub use evacuation::{Evacuation, Heir, heir};
pub use goal::Goal;
pub use ground::{Ground, Primary};
pub use open::{Counts, Mend, doubts, mend};
pub use refused::Refused;
pub use spread::{Share, fill, spread};

/// Slots that go from one primary to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Who owns them.
    pub from: NodeId,
    /// Who is to own them.
    pub to: NodeId,
    /// Which; never empty.
    pub slots: SlotSet,
}
