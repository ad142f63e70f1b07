//! The pure core: what a cluster looks like, what it should look like, and the next step from the one to the other.
//!
//! No I/O, no clock, no randomness, no logging in here; the same input gives the same output, and no input panics.

pub mod absent;
pub mod acl;
pub mod budget;
pub mod changeover;
pub mod decision;
pub mod desired;
pub mod drain;
pub mod electorate;
pub mod health;
pub mod identity;
pub mod island;
pub mod membership;
pub mod node;
pub mod observation;
pub mod order;
pub mod parse;
pub mod plan;
pub mod probe;
pub mod rebalance;
pub mod refusal;
pub mod server;
pub mod slot;
pub mod start;
pub mod succession;
pub mod supervise;
pub mod version;

pub use decision::{Action, Blocker, Decision, Deed, Stage, StageKind};
pub use desired::{DesiredTopology, Policy, Shape};
pub use identity::{ClusterId, Mark, PodName, Settings};
pub use membership::{Label, Member, Membership};
pub use node::{Endpoint, NodeEntry, NodeId, Role};
pub use observation::{NodeReport, Observation, Peer, Silence, View};
pub use plan::{plan, restore};
pub use refusal::Refusal;
pub use slot::{SLOT_COUNT, Slot, SlotRange, SlotSet};
pub use supervise::{Deadlines, Supervisor};
pub use version::Version;
