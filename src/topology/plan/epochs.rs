//! Giving each node an epoch of its own, so that no two primaries have to settle theirs by collision.
//!
//! Primaries get the highest. A replica speaks with its primary's epoch, and servers since 8.1 pass over what is said with
//! a lower epoch than they have heard from that node before; had a node a higher epoch of its own while it was blank,
//! one late packet of that time would make its peers deaf to it as a replica.

use std::collections::BTreeSet;

use super::announce::is_empty;
use super::slots::primaries;
use super::{Deed, Step};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::membership::{Member, Membership};
use crate::topology::node::NodeId;

pub(super) fn plan(membership: &Membership<'_>, desired: &DesiredTopology, _: &Policy) -> Step {
    if membership.members.len() < 2 || !is_empty(membership) {
        return Step::Done;
    }
    let mut waiting: Vec<_> = membership
        .members
        .iter()
        .filter(|member| member.is_blank() && member.report.myself().config_epoch == 0)
        .collect();
    if waiting.is_empty() {
        return Step::Done;
    }
    let taken: BTreeSet<u64> = membership
        .members
        .iter()
        .flat_map(|member| member.report.view.entries())
        .map(|entry| entry.config_epoch)
        .collect();
    let free = (1..).filter(|epoch| !taken.contains(epoch));
    let heads: BTreeSet<NodeId> =
        primaries(membership, desired.shape.shards.get()).into_iter().flatten().map(Member::id).collect();
    waiting.sort_by_key(|member| heads.contains(&member.id()));
    Step::act(waiting.into_iter().zip(free).map(|(member, epoch)| member.act(Deed::SetEpoch(epoch))).collect())
}
