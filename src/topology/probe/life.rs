//! How far a supervised server is, and what that alone says to a probe.

use super::{Probe, Verdict};

/// The life of a server from its supervisor's point of view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is not started yet: something is waited for, which the text names.
    Guarding(String),
    /// It runs, or is coming up: it is asked itself.
    Running,
    /// It is handing over, saving or stopping.
    Draining,
    /// It has ended, and its supervisor is about to.
    Ended,
}

impl Life {
    /// The answer to a probe; none where the server itself is to be asked.
    ///
    /// Liveness passes whenever there is no server to be killed for, or one that is on its way out: to kill it there
    /// would cut its save off.
    pub fn verdict(&self, probe: Probe) -> Option<Verdict> {
        let held = match (self, probe) {
            (Self::Running, _) => return None,
            (Self::Guarding(what), Probe::Liveness) => Verdict::pass(format!("the supervisor is waiting for {what}")),
            (Self::Guarding(what), _) => Verdict::fail(format!("the server is not started yet: waiting for {what}")),
            (Self::Draining, Probe::Readiness) => Verdict::fail("the server is draining"),
            (Self::Draining, _) => Verdict::pass("the server is draining"),
            (Self::Ended, Probe::Liveness) => Verdict::pass("the server has ended, and its supervisor is about to"),
            (Self::Ended, _) => Verdict::fail("the server has ended"),
        };
        Some(held)
    }
}
