//! The planner that every pod runs beside its server: it looks at everybody, decides as all others do, and does what is
//! to be done on its own node; at its own pace, perhaps long after it looked.

use std::time::Duration;

use fastrand::Rng;
use valkeeper::topology::{Action, Decision, DesiredTopology, StageKind};

use super::Sim;
use super::bootstrap::Pace;
use super::lookout::{Lookout, Sight, Viewer};

/// What was seen longer ago is looked at again instead.
const FRESH: Duration = Duration::from_secs(10);
/// How much longer a keeper rests when nothing is to be done.
const AT_REST: u32 = 3;

/// A planner in a pod.
pub struct Keeper {
    /// Its pod.
    pub host: usize,
    /// The shape that its pod was started with.
    pub desired: DesiredTopology,
    /// When it does its next step.
    pub next: Duration,
    /// How fast it is.
    pub pace: Pace,
    /// What it decided last.
    pub last: Option<Sight>,
    phase: Phase,
    random: Rng,
}

enum Phase {
    Look,
    /// On what was seen then, this is to be done.
    Act(Duration, StageKind, Vec<Action>),
}

/// What one step of a keeper came to.
pub enum Step {
    /// It has decided.
    Decided(Sight),
    /// It is about to do this, on what it saw then.
    Acts(Duration, StageKind, Box<Action>),
    /// It has seen that what it saw is too old.
    Idle,
}

impl Keeper {
    /// A keeper that starts with its pod's server.
    pub fn new(host: usize, desired: DesiredTopology, pace: Pace, seed: u64, now: Duration) -> Self {
        let mut random = Rng::with_seed(seed);
        let next = now + pace.rest.mul_f64(random.f64());
        Self { host, desired, next, pace, last: None, phase: Phase::Look, random }
    }

    /// Does the step that is due, at the simulator's time.
    pub fn step(&mut self, sim: &mut Sim, lookout: &mut Lookout) -> Step {
        let now = sim.now;
        match std::mem::replace(&mut self.phase, Phase::Look) {
            Phase::Look => {
                let group = if self.pace.loss == 0.0 { 0 } else { self.random.u8(1..4) };
                let viewer = Viewer { host: self.host, loss: self.pace.loss, group };
                let sight = lookout.look(sim, viewer, &self.desired);
                self.take(sim, &sight);
                self.last = Some(sight.clone());
                Step::Decided(sight)
            }
            Phase::Act(seen, kind, mut actions) => {
                let action = actions.pop().filter(|_| now.saturating_sub(seen) <= FRESH);
                self.next = now + self.up_to(self.pace.act);
                if action.is_some() && !actions.is_empty() {
                    self.phase = Phase::Act(seen, kind, actions);
                }
                action.map_or(Step::Idle, |action| Step::Acts(seen, kind, Box::new(action)))
            }
        }
    }

    fn take(&mut self, sim: &Sim, sight: &Sight) {
        let own = sim.node_id(sim.hosts[self.host].server.id);
        let mut rest = self.pace.rest;
        match &*sight.decision {
            Decision::Act(stage) => {
                let mut actions: Vec<_> = stage.actions.iter().filter(|action| action.on == own).cloned().collect();
                if !actions.is_empty() {
                    self.random.shuffle(&mut actions);
                    self.next = sim.now + self.up_to(self.pace.think);
                    self.phase = Phase::Act(sight.seen, stage.kind, actions);
                    return;
                }
            }
            Decision::Converged(_) => rest *= AT_REST,
            Decision::Wait(_) | Decision::Refuse(_) => {}
        }
        self.next = sim.now + rest / 2 + self.up_to(rest / 2);
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.random.f64())
    }
}
