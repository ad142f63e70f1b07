//! The end: clients notice, and the server stops, or is found to be gone.

use std::time::Duration;

use super::{Drain, Phase, Step, Verdict, Waiting};
use crate::topology::observation::Silence;
use crate::topology::order::Order;

/// How often to look at a server that is silent, or does not stop.
const ANSWER: Duration = Duration::from_millis(100);
const STOP: Duration = Duration::from_millis(200);

impl Drain {
    pub(super) fn settle(&mut self, now: Duration) -> Option<Step> {
        self.enter(Phase::Settle, now);
        let from = *self.settled_from.get_or_insert(now);
        let until = (from + self.policy.budget.delay).min(self.policy.budget.last);
        (now < until).then(|| Step::Wait(Waiting::Settling, (until - now).min(ANSWER)))
    }

    pub(super) fn stop(&mut self, now: Duration) -> Step {
        if !self.policy.stop || self.stop_sent {
            return self.end(now);
        }
        self.enter(Phase::Stop, now);
        let force = now >= self.policy.budget.last || self.verdict != Verdict::Clean;
        let order = Order::Shutdown { force };
        match self.refused.iter().position(|(refused, _)| *refused == order) {
            Some(_) if force => self.end(now),
            Some(place) => {
                let (_, why) = self.refused.swap_remove(place);
                Step::Wait(Waiting::Stopping(why), STOP)
            }
            None => Step::Own(order),
        }
    }

    /// A server that does not answer may be busy, and is waited for until the last second; one that is gone needs
    /// nothing any more.
    pub(super) fn silent(&mut self, now: Duration, silence: &Silence) -> Step {
        let is_final =
            matches!(silence, Silence::Refused | Silence::Denied(_) | Silence::Untrusted(_) | Silence::Unusable(_));
        if self.stop_sent {
            return self.end(now);
        }
        if is_final || now >= self.policy.budget.last {
            if self.save.outcome.is_none() {
                self.verdict = Verdict::Unfinished(format!("the server {silence}"));
            }
            return self.end(now);
        }
        Step::Wait(Waiting::Server(silence.clone()), ANSWER)
    }

    fn end(&mut self, now: Duration) -> Step {
        self.ended = Some(now);
        Step::Done
    }
}
