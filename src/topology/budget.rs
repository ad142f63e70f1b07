//! The grace period, split.

use std::fmt;
use std::time::Duration;

/// The parts of a grace period, as moments after its start, in this order: hand over, save, settle, stop, kill.
///
/// What a part leaves goes to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The whole.
    pub grace: Duration,
    /// Handing over is given up.
    pub handover: Duration,
    /// Saving is given up, where another node holds the data.
    pub save: Duration,
    /// How long a node that is done goes on answering.
    pub delay: Duration,
    /// The last second: the server is told to stop whatever it does, and killed in the middle of it.
    pub last: Duration,
    /// The server is killed.
    pub kill: Duration,
}

/// A grace period that is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort {
    grace: Duration,
    delay: Duration,
}

impl Budget {
    /// Two attempts of the server's own five seconds, and a second to look at each.
    const HANDOVER: Duration = Duration::from_secs(12);
    const RESERVE: Duration = Duration::from_secs(1);
    const SHORTEST_STOP: Duration = Duration::from_secs(1);
    const LONGEST_STOP: Duration = Duration::from_secs(5);
    /// To hand over and to save, at least.
    const LEAST: Duration = Duration::from_secs(3);

    /// Splits a grace period.
    pub fn split(grace: Duration, delay: Duration) -> Result<Self, TooShort> {
        let stop = (grace / 10).clamp(Self::SHORTEST_STOP, Self::LONGEST_STOP);
        let work = grace.saturating_sub(Self::RESERVE + stop).saturating_sub(delay);
        if work < Self::LEAST {
            return Err(TooShort { grace, delay });
        }
        Ok(Self {
            grace,
            handover: Self::HANDOVER.min(work / 2),
            save: work,
            delay,
            last: grace.saturating_sub(Self::RESERVE),
            kill: grace.saturating_sub(Self::RESERVE / 2),
        })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} s to hand over, {:.1} s to save, {:.1} s to settle, {:.1} s to stop",
            self.handover.as_secs_f64(),
            self.save.saturating_sub(self.handover).as_secs_f64(),
            self.delay.as_secs_f64(),
            self.grace.saturating_sub(self.save + self.delay).as_secs_f64()
        )
    }
}

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = Budget::LEAST + Budget::RESERVE + Budget::SHORTEST_STOP + self.delay;
        write!(
            f,
            "a grace period of {:.1} s is too short to hand over, save and stop in; it takes {:.0} s at least",
            self.grace.as_secs_f64(),
            least.as_secs_f64().ceil()
        )?;
        match self.delay.is_zero() {
            true => Ok(()),
            false => write!(f, ", with the {:.1} s of --delay", self.delay.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_come_in_order_and_fit_the_whole() {
        for grace in 5..=600 {
            for delay in 0..10 {
                let (grace, delay) = (Duration::from_secs(grace), Duration::from_secs(delay));
                let Ok(budget) = Budget::split(grace, delay) else {
                    assert!(grace < Duration::from_secs(7) + delay, "{grace:?} {delay:?}");
                    continue;
                };
                assert!(budget.handover < budget.save, "{budget:?}");
                assert!(budget.save + budget.delay < budget.last, "{budget:?}");
                assert!(budget.last < budget.kill && budget.kill < budget.grace, "{budget:?}");
                assert!(budget.grace - budget.last == Duration::from_secs(1), "{budget:?}");
            }
        }
    }

    #[test]
    fn a_grace_period_that_is_too_short_says_how_long_it_should_be() {
        let short = Budget::split(Duration::from_secs(4), Duration::from_secs(2)).unwrap_err();
        assert!(short.to_string().contains("7 s at least, with the 2.0 s of --delay"), "{short}");
    }
}
