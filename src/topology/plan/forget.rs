//! Forgetting the identities that no pod has any more: what is left of a pod that has lost its disk or was taken away.
//!
//! Every pod there is to be has answered, and none of them as this node: it will not come back. It must own no slot in
//! anybody's view, and nobody may copy it. The server refuses to learn of a forgotten node again for a minute
//! (`CLUSTER_BLACKLIST_TTL` in `cluster_legacy.c`); whoever has not forgotten it by then brings it back, and it is
//! forgotten anew.

use std::collections::BTreeSet;

use super::refuse::holds_copy;
use super::{Deed, Step};
use crate::topology::absent::Absent;
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::membership::{Member, Membership};
use crate::topology::node::{NodeId, Role};

pub(super) fn plan(membership: &Membership<'_>, desired: &DesiredTopology, policy: &Policy) -> Step {
    if !every_pod_answers(membership, desired) {
        return Step::Done;
    }
    let gone = membership.absent.iter().filter(|(id, absent)| is_gone(membership, **id, absent, policy));
    let actions = gone.flat_map(|(id, absent)| {
        let knowing = absent.known_by.iter().filter_map(|place| membership.members.get(*place));
        knowing.map(|member| member.act(Deed::Forget(*id)))
    });
    Step::act(actions.collect())
}

/// Whether the members are the pods that there are to be. An old process of a pod that runs twice must not be taken for
/// another pod; nor must one that has just been added, or is about to be taken away, for one that is missing.
fn every_pod_answers(membership: &Membership<'_>, desired: &DesiredTopology) -> bool {
    let wanted = desired.shape.members();
    let ordinals = membership.members.iter().filter_map(Member::ordinal);
    let is_expected = |ordinal| usize::try_from(ordinal).is_ok_and(|ordinal| ordinal < wanted);
    let names: BTreeSet<_> = membership.members.iter().map(|member| member.pod.as_ref()).collect();
    let is_nameless = names.iter().all(Option::is_none);
    let is_distinct = names.len() == membership.members.len() && !names.contains(&None);
    membership.silent.is_empty() && ordinals.into_iter().all(is_expected) && (is_nameless || is_distinct)
}

fn is_gone(membership: &Membership<'_>, id: NodeId, absent: &Absent, policy: &Policy) -> bool {
    let members = &membership.members;
    let is_followed = members.iter().any(|member| member.report.myself().role == Role::Replica(Some(id)));
    let is_given_up = policy.give_up == Some(id) && !members.iter().any(|member| holds_copy(member, id));
    let is_needless = absent.slots.is_empty() && members.iter().all(|member| member.report.cluster.ok);
    absent.is_lost && !is_followed && (is_needless || is_given_up)
}
