//! Rounds of looking, deciding and acting, as `bootstrap` and `run` have them in common. What is remembered between them
//! is for people and for the pace; no decision rests on it.

use std::collections::BTreeSet;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use tokio::time::Instant;

use crate::observer::Observer;
use crate::topology::decision::{Blocker, Decision, Stage};
use crate::topology::desired::{DesiredTopology, Policy, Shape};
use crate::topology::identity::ClusterId;
use crate::topology::membership::Membership;
use crate::topology::observation::Observation;
use crate::topology::plan;
use crate::topology::refusal::Refusal;
use crate::valkey::Outcome;

/// How old an observation may be that is acted on; a hung server alone makes it two seconds old.
const FRESH: Duration = Duration::from_secs(10);

/// The rounds of one run.
pub(super) struct Rounds<'d> {
    cluster: &'d ClusterId,
    /// None for that which stands.
    shape: Option<Shape>,
    policy: Policy,
    /// What stands, and since when.
    stood: Option<(Standing, Instant)>,
    last_told: Option<Told>,
    /// The failures that were logged: each once.
    warned: BTreeSet<String>,
}

/// One round.
pub(super) struct Round {
    pub(super) observation: Observation,
    pub(super) decision: Decision,
    /// How long looking took.
    pub(super) took: Duration,
    /// For how long there has been the same kind of decision, of refusal, and of what takes patience the very same.
    pub(super) stood: Duration,
}

/// A kind of decision, of refusals which, and a stage that takes patience.
type Standing = (Discriminant<Decision>, Option<Discriminant<Refusal>>, Option<Stage>);

/// What the last sentence was, what it was about, and when it was logged.
struct Told {
    sentence: String,
    about: Discriminant<Decision>,
    at: Instant,
}

impl<'d> Rounds<'d> {
    /// Nobody has looked yet.
    pub(super) fn new(cluster: &'d ClusterId, shape: Option<Shape>, policy: Policy) -> Self {
        Self { cluster, shape, policy, stood: None, last_told: None, warned: BTreeSet::new() }
    }

    /// Looks and decides.
    pub(super) async fn look(&mut self, observer: &mut Observer, deadline: Instant) -> Round {
        let asked = Instant::now();
        let observation = observer.round(deadline).await;
        let took = asked.elapsed();
        let standing = || Shape::whole(&Membership::of(&observation, self.cluster));
        let decision = match self.shape.or_else(standing) {
            Some(shape) => {
                let desired = DesiredTopology { cluster: self.cluster.clone(), shape };
                plan(&observation, &desired, &self.policy)
            }
            None => Decision::Wait(vec![Blocker::NoShape]),
        };
        let patient = stage(&decision).filter(|stage| !stage.patience().is_zero());
        let standing = (discriminant(&decision), refusal(&decision).map(discriminant), patient.cloned());
        let since = match &self.stood {
            Some((before, since)) if *before == standing => *since,
            _ => Instant::now(),
        };
        self.stood = Some((standing, since));
        Round { observation, decision, took, stood: since.elapsed() }
    }

    /// Does what a stage says. An error names what our user may not do; what fails otherwise is logged, and decided anew
    /// in the next round.
    pub(super) async fn act(&mut self, observer: &mut Observer, stage: &Stage) -> Result<(), String> {
        let mut forbidden = None;
        for (action, outcome) in observer.execute(stage).await {
            match outcome {
                Outcome::Done => tracing::debug!(stage = %stage.kind, "{action}"),
                Outcome::Moot(why) => tracing::debug!(stage = %stage.kind, "no longer needed: {action}: {why}"),
                Outcome::Failed(why) | Outcome::Unanswered(why) => {
                    self.warn_once(format!("failed: {action}: {why}"));
                }
                Outcome::Forbidden(why) => forbidden = Some(format!("not allowed: {action}: {why}")),
            }
        }
        forbidden.map_or(Ok(()), Err)
    }

    /// One sentence a round, unless it is still the one of the round before; about what is waited for, one a second.
    pub(super) fn tell(&mut self, decision: &Decision) {
        let stage = stage(decision).map(|stage| stage.kind);
        let (sentence, about) = (decision.to_string(), discriminant(decision));
        let is_old = |told: &Told| {
            let is_due = stage.is_some() || told.at.elapsed() >= Duration::from_secs(1);
            told.sentence == sentence || (told.about == about && !is_due)
        };
        if self.last_told.as_ref().is_some_and(is_old) {
            return;
        }
        match stage {
            Some(stage) => tracing::info!(stage = %stage, "{sentence}"),
            None => tracing::info!("{sentence}"),
        }
        self.last_told = Some(Told { sentence, about, at: Instant::now() });
    }

    /// Logs that something went wrong, unless it was said before.
    pub(super) fn warn_once(&mut self, sentence: String) {
        /// A run may last for months.
        const REMEMBERED: usize = 100;
        if self.warned.len() >= REMEMBERED {
            self.warned.clear();
        }
        if !self.warned.contains(&sentence) {
            tracing::warn!("{sentence}");
            self.warned.insert(sentence);
        }
    }

    /// What was said may be said again.
    pub(super) fn forget_warnings(&mut self) {
        self.warned.clear();
    }
}

impl Round {
    /// What may be acted on: a process that was frozen since it looked must look again, as addresses may have changed
    /// hands; and some things have to stand for a while.
    pub(super) fn stage(&self) -> Option<&Stage> {
        stage(&self.decision).filter(|stage| self.took < FRESH && self.stood >= stage.patience())
    }

    /// The refusal that has stood for long enough.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        refusal(&self.decision).filter(|refusal| self.stood >= refusal.patience())
    }
}

fn stage(decision: &Decision) -> Option<&Stage> {
    match decision {
        Decision::Act(stage) => Some(stage),
        _ => None,
    }
}

fn refusal(decision: &Decision) -> Option<&Refusal> {
    match decision {
        Decision::Refuse(refusal) => Some(refusal),
        _ => None,
    }
}

/// How long to wait between rounds: briefly while things move, ever longer while they do not, and always so long that
/// asking takes a small part of the servers' time. In a large cluster the answers themselves are work for everybody.
pub(super) struct Pace {
    tempo: Tempo,
    current: Duration,
    moved: Instant,
    /// How many rounds have acted in a row.
    acts: u32,
}

/// How quick a pace is.
#[derive(Clone, Copy)]
pub(super) struct Tempo {
    /// While things move.
    pub(super) shortest: Duration,
    /// While they do not.
    pub(super) longest: Duration,
    /// What the length of a round can make of a wait at most.
    pub(super) after_long_round: Duration,
}

impl Pace {
    /// After this long without a change the waits grow.
    const LIVELY: Duration = Duration::from_secs(3);
    /// A wait is at least this many times as long as the round before it took.
    const IDLE_PART: u32 = 4;
    /// After an act we look at once; but stages that keep undoing each other must not keep everybody busy.
    const ACTS_IN_A_ROW: u32 = 10;

    pub(super) fn new(tempo: Tempo) -> Self {
        Self { tempo, current: tempo.shortest, moved: Instant::now(), acts: 0 }
    }

    /// How long to wait after this round.
    pub(super) fn next(&mut self, acted: bool, changed: bool, round: Duration) -> Duration {
        if changed {
            self.moved = Instant::now();
        }
        self.acts = if acted { self.acts.saturating_add(1) } else { 0 };
        if acted && changed && self.acts <= Self::ACTS_IN_A_ROW {
            return Duration::ZERO;
        }
        self.current = match self.moved.elapsed() < Self::LIVELY {
            true => self.tempo.shortest,
            false => (self.current * 2).min(self.tempo.longest),
        };
        self.current.max(self.least(round))
    }

    /// How long to wait where there is nothing to be quick for.
    pub(super) fn longest(&self) -> Duration {
        self.tempo.longest
    }

    /// How long to wait at least.
    pub(super) fn least(&self, round: Duration) -> Duration {
        self.tempo.shortest.max((round * Self::IDLE_PART).min(self.tempo.after_long_round))
    }
}
