//! How far `run` is with keeping the cluster in its shape. It never makes a pod unready: to take more pods out mends
//! nothing.

use serde::Serialize;

use crate::topology::decision::Decision;

/// What reconciliation comes to at the moment; as JSON, `{"state":"…","reason":"…","remedy":null}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// What it is at.
    pub state: Phase,
    /// The same in a sentence.
    pub reason: String,
    /// What a human can do, where nothing goes on without one.
    pub remedy: Option<String>,
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
        Self { state: Phase::Paused, reason: reason.into(), remedy: None }
    }

    /// To form a cluster is not for a single node.
    pub fn unformed() -> Self {
        Self {
            state: Phase::Unformed,
            reason: "no cluster stands here yet: this node joins one, and forms none by itself".to_owned(),
            remedy: Some("`valkeeper bootstrap` forms it".to_owned()),
        }
    }

    /// What was decided for a cluster that stands. A refusal counts once it `is_final`: until then it may pass.
    pub fn of(decision: &Decision, is_final: bool) -> Self {
        let (state, remedy) = match decision {
            Decision::Converged(_) => (Phase::Converged, None),
            Decision::Act(_) => (Phase::Acting, None),
            Decision::Refuse(refusal) if is_final => (Phase::Refused, Some(refusal.remedy())),
            Decision::Wait(_) | Decision::Refuse(_) => (Phase::Waiting, None),
        };
        Self { state, reason: decision.to_string(), remedy }
    }
}
