//! Marking our nodes, and lowering settings while the whole cluster is empty.
//!
//! A primary that saw itself without a majority stays at fail for `min(max(cluster-node-timeout, 500 ms), 5 s)` after
//! the last time it did (`clusterUpdateState` in `cluster_legacy.c`), and an empty cluster counts as one. So the timeout
//! is lowered before slots are given. Until it is put back, `min-replicas-to-write` lets no client write, so no first byte
//! of user data comes to live under a lowered timeout, also when we die. Without its sync delay a primary serves its
//! replicas at once.

use std::time::Duration;

use super::restore::originals;
use super::{Deed, Step};
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
    // A small machine cannot keep all the links of a large cluster alive at half a second.
    let shortest = match members {
        0..=32 => Duration::from_millis(500),
        33..=64 => Duration::from_secs(1),
        _ => Duration::from_secs(2),
    };
    Settings {
        node_timeout: member.report.settings.node_timeout.min(shortest),
        min_replicas_to_write: Settings::NO_WRITES,
        replicas_max_lag: Settings::DEFAULT.replicas_max_lag,
        sync_delay: Duration::ZERO,
    }
}
