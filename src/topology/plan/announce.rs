//! Marking our nodes, and lowering settings while the whole cluster is empty.
//!
//! Until they are put back, `min-replicas-to-write` lets no client write, so no first byte of user data comes to live
//! under a lowered timeout, also when we die. Without its sync delay a primary serves its replicas at once.

use std::time::Duration;

use super::meet::takes_long;
use super::restore::originals;
use super::{Deed, Step, hurry};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::identity::{Mark, Settings};
use crate::topology::membership::{Member, Membership};

pub(super) fn plan(membership: &Membership<'_>, desired: &DesiredTopology, policy: &Policy) -> Step {
    let lower = policy.hurry && is_empty(membership);
    let actions = membership.members.iter().filter_map(|member| {
        let forming = originals(member, membership);
        let (cluster, pod, site) = (desired.cluster.clone(), member.pod.clone(), member.site());
        let mut mark = Mark { cluster, pod, forming, site };
        match forming {
            None if lower => {
                mark.forming = Some(member.report.settings);
                let settings = lowered(member, membership.members.len());
                Some(member.act(Deed::Lower(mark, settings)))
            }
            _ => (member.mark.as_ref() != Some(&mark)).then(|| member.act(Deed::Announce(mark))),
        }
    });
    Step::act(actions.collect())
}

/// No slot assigned in any view, no key anywhere.
pub(super) fn is_empty(membership: &Membership<'_>) -> bool {
    membership.members.iter().all(|member| {
        let report = member.report;
        report.keys == 0 && report.cluster.slots_assigned == 0 && report.view.owners().next().is_none()
    })
}

fn lowered(member: &Member<'_>, members: usize) -> Settings {
    let shortest = match takes_long(members) {
        true => Duration::from_secs(5),
        false => hurry::timeout(members),
    };
    Settings {
        node_timeout: member.report.settings.node_timeout.min(shortest),
        min_replicas_to_write: Settings::NO_WRITES,
        replicas_max_lag: Settings::DEFAULT.replicas_max_lag,
        sync_delay: Duration::ZERO,
    }
}
