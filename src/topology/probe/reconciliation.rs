//! How far `run` is with keeping the cluster in its shape. It never makes a pod unready: to take more pods out mends
//! nothing.

use serde::Serialize;

use crate::topology::decision::{Blocker, Decision, Few, Stage};
use crate::topology::membership::Label;

/// What reconciliation comes to at the moment; as JSON, `{"state":"…","reason":"…","remedy":null}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// What it is at.
    pub state: Phase,
    /// The same in a sentence.
    pub reason: String,
    /// What a human can do, where nothing goes on without one.
    pub remedy: Option<String>,
    /// Whether slots that are on their way are waited for.
    #[serde(skip)]
    pub awaits_slots: bool,
}

/// What reconciliation is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It leaves everything as it is for now, as this node is not to take part.
    Paused,
    /// There is no cluster yet.
    Unformed,
    /// The cluster is as it is to be.
    Converged,
    /// Something is being done, here or on another node.
    Acting,
    /// Something has to come about first.
    Waiting,
    /// To go on would be unsafe.
    Refused,
}

impl Reconciliation {
    /// Nothing is done, for this reason.
    pub fn paused(reason: impl Into<String>) -> Self {
        Self { state: Phase::Paused, reason: reason.into(), remedy: None, awaits_slots: false }
    }

    /// To form a cluster is not for a single node.
    pub fn unformed() -> Self {
        Self {
            state: Phase::Unformed,
            reason: "no cluster stands here yet: this node joins one, and forms none by itself".to_owned(),
            remedy: Some("`valkeeper bootstrap` forms it".to_owned()),
            awaits_slots: false,
        }
    }

    /// What has been decided for long, and not been done by whom it was for: nothing else comes before that.
    pub fn overdue(stage: &Stage) -> Self {
        let mut nodes: Vec<&Label> = stage.actions.iter().map(|action| &action.label).collect();
        nodes.sort();
        nodes.dedup();
        let whose = if nodes.len() == 1 { "its" } else { "their" };
        Self {
            state: Phase::Waiting,
            reason: format!("waiting for {} to do {whose} part: {stage}", Few(&nodes)),
            remedy: Some(
                "see there whether `valkeeper run` is at work, and what its log and /readyz say: one that is paused, that \
                 leaves or that may not do it holds up all that comes after"
                    .to_owned(),
            ),
            awaits_slots: false,
        }
    }

    /// What was decided for a cluster that stands. A refusal counts once it `is_final`: until then it may pass.
    pub fn of(decision: &Decision, is_final: bool) -> Self {
        let (state, remedy) = match decision {
            Decision::Converged(_) => (Phase::Converged, None),
            Decision::Act(_) => (Phase::Acting, None),
            Decision::Refuse(refusal) if is_final => (Phase::Refused, Some(refusal.remedy())),
            Decision::Wait(blockers) => {
                (Phase::Waiting, blockers.iter().find_map(Blocker::remedy).map(ToOwned::to_owned))
            }
            Decision::Refuse(_) => (Phase::Waiting, None),
        };
        let is_arrival = |blocker: &Blocker| matches!(blocker, Blocker::Arriving(_));
        let awaits_slots = matches!(decision, Decision::Wait(blockers) if blockers.iter().any(is_arrival));
        Self { state, reason: decision.to_string(), remedy, awaits_slots }
    }
}
