//! Lowering the node timeout for the last part of forming, when nearly every node has a link to every other: in a cluster
//! whose nodes take long to meet. Among a few it is lowered from the beginning, and among many, where gossip must be quick.
//!
//! A primary that saw itself without a majority stays at fail for `min(max(cluster-node-timeout, 500 ms), 5 s)` after
//! the last time it did (`clusterUpdateState` in `cluster_legacy.c`), and an empty cluster counts as one. So the timeout
//! is lowered once slots are given, for as long as somebody does not say ok; and as nodes ping each other twice in that
//! time, news spread.
//!
//! Not while links are being made: who does not answer within half of the timeout is connected to anew (`clusterCron`).
//! Where handshakes keep the machines busy, as with TLS, that makes more of them, without end. So where somebody does not
//! answer under a lowered timeout it goes up again, until the links stand.

use std::time::Duration;

use super::meet::takes_long;
use super::{Blocker, Deed, Stage, StageKind, Step, agree, restore};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::identity::Settings;
use crate::topology::membership::Membership;

pub(super) fn plan(membership: &Membership<'_>, _: &DesiredTopology, policy: &Policy) -> Step {
    let members = &membership.members;
    let is_over = members.iter().all(|member| member.report.cluster.ok);
    let could_be_written = members.iter().any(|member| !member.report.settings.are_lowered() || member.report.keys > 0);
    if !policy.hurry || !takes_long(members.len()) || is_over || could_be_written {
        return Step::Done;
    }
    // One a node are made in a moment.
    let broken = agree::broken_links(membership);
    if broken.len() > members.len() || broken.iter().any(is_suspicion) {
        return Step::Done;
    }
    let timeout = timeout(members.len());
    let lowered = members.iter().filter(|member| member.report.settings.node_timeout > timeout).filter_map(|member| {
        let mark = member.mark.clone().filter(|mark| mark.forming.is_some())?;
        Some(member.act(Deed::Lower(mark, Settings { node_timeout: timeout, ..member.report.settings })))
    });
    Step::act(lowered.collect())
}

/// What puts the timeouts back, and nothing else, where machines are too busy for short ones.
pub(super) fn relief(membership: &Membership<'_>, desired: &DesiredTopology) -> Option<Stage> {
    let actions = restore::timeouts(membership);
    if actions.is_empty() || !takes_long(desired.shape.members()) {
        return None;
    }
    let is_busy = !membership.silent.is_empty() || agree::broken_links(membership).iter().any(is_suspicion);
    is_busy.then_some(Stage { kind: StageKind::Hurry, actions })
}

fn is_suspicion(blocker: &Blocker) -> bool {
    matches!(blocker, Blocker::Suspects(..))
}

/// A small machine cannot keep all the links of a large cluster alive at half a second.
pub(super) fn timeout(members: usize) -> Duration {
    match members {
        0..=32 => Duration::from_millis(500),
        33..=64 => Duration::from_secs(1),
        _ => Duration::from_secs(2),
    }
}
