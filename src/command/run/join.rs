//! A node that comes back without its disk is a new one: it joins the cluster that stands, as bootstrap would have it
//! join, and does its own part only.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::observer::Observer;
use crate::topology::decision::{Decision, Stage};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::observation::Observation;
use crate::topology::plan;
use crate::valkey::Outcome;

/// How often to look while there is something to do, and while nothing changes.
const OFTEN: Duration = Duration::from_millis(500);
const SELDOM: Duration = Duration::from_secs(5);
/// How long one look may take.
const ROUND: Duration = Duration::from_secs(10);

/// Goes on until the node at our address has its place, or had one from the beginning.
pub(super) async fn join(observer: &mut Observer, desired: &DesiredTopology, own: SocketAddr) {
    let (mut before, mut pause) = (None, OFTEN);
    loop {
        let observation = observer.round(Instant::now() + ROUND).await;
        if has_place(&observation, own) {
            return;
        }
        let decision = plan(&observation, desired, &Policy::KEEP);
        let now = Some((stands(&observation), decision.to_string()));
        let changed = now != before;
        pause = if changed { OFTEN } else { (pause * 2).min(SELDOM) };
        before = now;
        if stands(&observation) {
            if changed {
                tracing::info!("joining: {decision}");
            }
            if let Decision::Act(stage) = decision {
                let actions = stage.actions.into_iter().filter(|action| action.address == own).collect();
                let ours = Stage { kind: stage.kind, actions };
                for (action, outcome) in observer.execute(&ours).await {
                    match outcome {
                        Outcome::Done => tracing::info!(stage = %ours.kind, "{action}"),
                        Outcome::Moot(why) => tracing::debug!(stage = %ours.kind, "no longer needed: {action}: {why}"),
                        Outcome::Failed(why) | Outcome::Unanswered(why) | Outcome::Forbidden(why) => {
                            tracing::warn!(stage = %ours.kind, "failed: {action}: {why}");
                        }
                    }
                }
            }
        }
        sleep(pause).await;
    }
}

/// Whether our node follows somebody, or owns something.
fn has_place(observation: &Observation, own: SocketAddr) -> bool {
    observation.reports().any(|(peer, report)| {
        let myself = report.myself();
        peer.address == own && (!myself.role.is_primary() || !myself.slots.is_empty())
    })
}

/// Whether there is a cluster to join: to form one is not for a single node to do.
fn stands(observation: &Observation) -> bool {
    observation.reports().any(|(_, report)| report.myself().owns_slots())
}
