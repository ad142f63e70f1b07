//! A planner as a process: it observes, thinks, acts one action after the other in any order, and looks again. It may be
//! slow at every step, and killed between any two.

use std::mem::discriminant;
use std::time::Duration;

use fastrand::Rng;
use valkeeper::topology::{Action, Decision, DesiredTopology, Observation, Policy, Refusal, StageKind};

use super::Sim;

/// What decides: [`valkeeper::topology::plan()`], or something that is to be found out.
pub type PlanFn = fn(&Observation, &DesiredTopology, &Policy) -> Decision;

/// How fast and how well a planner sees and acts.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The probability that the answer of one server is lost.
    pub loss: f64,
    /// The longest time between seeing and acting.
    pub think: Duration,
    /// The longest time between one action and the next.
    pub act: Duration,
    /// The longest time between one round and the next.
    pub rest: Duration,
}

/// A running planner.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// When it does its next step.
    pub next: Duration,
    /// How fast it is.
    pub pace: Pace,
    /// How many rounds it has planned.
    pub rounds: u32,
    /// When it last looked.
    pub seen: Duration,
    desired: DesiredTopology,
    policy: Policy,
    plan: PlanFn,
    phase: Phase,
    refused: Option<(Refusal, Duration)>,
    random: Rng,
}

#[derive(Clone, Debug)]
enum Phase {
    Look,
    Think(Observation),
    Act(StageKind, Vec<Action>),
    Over,
}

/// What one step of a planner came to.
#[derive(Debug)]
pub enum Event {
    /// It has asked everybody.
    Observed,
    /// It has decided, on what it saw some time ago.
    Planned(Box<Observation>, Box<Decision>),
    /// It has done an action, or the server did not want it.
    Acted(StageKind, Box<Action>, Result<(), String>),
    /// It is over.
    Ended(End),
}

/// How a planner ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The cluster stands.
    Converged,
    /// The refusal stood for as long as it must.
    Refused(Box<Refusal>),
}

impl Pace {
    /// A planner that nothing holds up.
    pub const BRISK: Self = Self {
        loss: 0.0,
        think: Duration::from_millis(5),
        act: Duration::from_millis(2),
        rest: Duration::from_millis(200),
    };
}

impl Bootstrap {
    /// A planner that starts now.
    pub fn new(plan: PlanFn, desired: DesiredTopology, policy: Policy, pace: Pace, seed: u64, now: Duration) -> Self {
        let random = Rng::with_seed(seed);
        Self { next: now, pace, rounds: 0, seen: now, desired, policy, plan, phase: Phase::Look, refused: None, random }
    }

    /// Does the step that is due, at the simulator's time.
    pub fn step(&mut self, sim: &mut Sim) -> Event {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Look => {
                self.phase = Phase::Think(sim.observe(self.pace.loss));
                self.seen = sim.now;
                self.next = sim.now + self.up_to(self.pace.think);
                Event::Observed
            }
            Phase::Think(observation) => {
                self.rounds += 1;
                let decision = (self.plan)(&observation, &self.desired, &self.policy);
                self.take(&decision, sim.now);
                Event::Planned(Box::new(observation), Box::new(decision))
            }
            Phase::Act(kind, mut actions) => match actions.pop() {
                Some(action) => {
                    let result = sim.execute(&action);
                    self.next = sim.now + self.up_to(self.pace.act);
                    self.phase = if actions.is_empty() { Phase::Look } else { Phase::Act(kind, actions) };
                    Event::Acted(kind, Box::new(action), result)
                }
                None => self.look_again(sim.now),
            },
            Phase::Over => Event::Ended(match &self.refused {
                Some((refusal, _)) => End::Refused(Box::new(refusal.clone())),
                None => End::Converged,
            }),
        }
    }

    fn look_again(&mut self, now: Duration) -> Event {
        (self.phase, self.next) = (Phase::Look, now);
        Event::Observed
    }

    fn take(&mut self, decision: &Decision, now: Duration) {
        let rest = now + self.pace.rest / 2 + self.up_to(self.pace.rest / 2);
        let since = match (&self.refused, decision) {
            (Some((before, since)), Decision::Refuse(again)) if discriminant(before) == discriminant(again) => *since,
            _ => now,
        };
        self.refused = match decision {
            Decision::Refuse(refusal) => Some((refusal.clone(), since)),
            _ => None,
        };
        (self.phase, self.next) = match decision {
            Decision::Converged(_) => (Phase::Over, now),
            Decision::Refuse(refusal) if now - since >= refusal.patience() => (Phase::Over, now),
            Decision::Refuse(_) | Decision::Wait(_) => (Phase::Look, rest),
            Decision::Act(stage) => {
                let mut actions = stage.actions.clone();
                self.random.shuffle(&mut actions);
                (Phase::Act(stage.kind, actions), now + self.up_to(self.pace.act))
            }
        };
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.random.f64())
    }
}
