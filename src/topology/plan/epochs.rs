//! Giving each node an epoch of its own, so that no two primaries have to settle theirs by collision.

use std::collections::BTreeSet;

use super::announce::is_empty;
use super::{Deed, Step};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::membership::Membership;

pub(super) fn plan(membership: &Membership<'_>, _: &DesiredTopology, _: &Policy) -> Step {
    if membership.members.len() < 2 || !is_empty(membership) {
        return Step::Done;
    }
    let taken: BTreeSet<u64> = membership
        .members
        .iter()
        .flat_map(|member| member.report.view.entries())
        .map(|entry| entry.config_epoch)
        .collect();
    let free = (1..).filter(|epoch| !taken.contains(epoch));
    let waiting =
        membership.members.iter().filter(|member| member.is_blank() && member.report.myself().config_epoch == 0);
    Step::act(waiting.zip(free).map(|(member, epoch)| member.act(Deed::SetEpoch(epoch))).collect())
}
