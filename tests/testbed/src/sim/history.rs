//! Random histories: pods that come late, restart, move and lose disks, planners that die and overlap, answers that are
//! lost, DNS that lies, somebody else's cluster; then faults stop, and the cluster must stand, or the refusal be right.

mod faults;
mod judge;
mod setting;

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use valkeeper::topology::{Decision, DesiredTopology, Policy};

use super::Sim;
use super::bootstrap::{Bootstrap, End, Event, Pace, PlanFn};

pub use judge::{Judge, Rule, Violation};
pub(super) use judge::{broken, host_of, name};
pub use setting::{Kind, Setting};

/// How long a planner may take once faults have stopped: a refusal's patience, or a failed primary's way back.
const BOUND: Duration = Duration::from_secs(150);

/// A history that breaks a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the history is made from.
    pub seed: u64,
    /// The promise.
    pub violation: Violation,
    /// What happened, a line each.
    pub trace: Vec<String>,
}

/// What a history came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What stood at the beginning.
    pub kind: Kind,
    /// How it ended.
    pub end: End,
    /// How many rounds were planned.
    pub rounds: u32,
    /// How long the cluster took once faults had stopped.
    pub settled: Duration,
    /// How many keys were written while another node's settings were lowered.
    pub exposed: u64,
}

/// A history under way.
struct History {
    sim: Sim,
    judge: Judge,
    setting: Setting,
    desired: DesiredTopology,
    policy: Policy,
    plan: PlanFn,
    random: Rng,
    planners: Vec<Bootstrap>,
    faults: faults::Faults,
    rounds: u32,
    exposed: u64,
    trace: Option<Vec<String>>,
}

/// Runs the history of a seed; where it breaks a promise it is run again to be told.
pub fn run(seed: u64, plan: PlanFn) -> Result<Summary, Box<Failure>> {
    History::new(seed, plan, None).run().map_err(|_| {
        let (outcome, trace) = tell(seed, plan);
        let violation = outcome.err().unwrap_or_else(|| Violation {
            rule: Rule::Fickle,
            detail: "the history went otherwise the second time".to_owned(),
        });
        Box::new(Failure { seed, violation, trace })
    })
}

/// Runs the history of a seed and tells it, a line for each thing that happened.
pub fn tell(seed: u64, plan: PlanFn) -> (Result<Summary, Violation>, Vec<String>) {
    let mut history = History::new(seed, plan, Some(Vec::new()));
    (history.run(), history.trace.unwrap_or_default())
}

impl History {
    fn new(seed: u64, plan: PlanFn, trace: Option<Vec<String>>) -> Self {
        let mut random = Rng::with_seed(seed);
        let (setting, sim) = Setting::draw(&mut random);
        let (desired, policy) = (setting.desired.clone(), setting.policy);
        let judge = Judge::new(&sim, desired.clone(), setting.islands.clone());
        let faults = faults::Faults::draw(&mut random, &setting);
        let (planners, rounds, exposed) = (Vec::new(), 0, 0);
        let mut history =
            Self { sim, judge, setting, desired, policy, plan, random, planners, faults, rounds, exposed, trace };
        history.tell(|history| history.setting.to_string());
        history
    }

    fn run(&mut self) -> Result<Summary, Violation> {
        self.start_planner();
        while let Some(due) = self.faults.next() {
            if self.advance(due)? {
                self.do_fault()?;
            }
        }
        self.stop_faults();
        let stopped = self.sim.now;
        if self.planners.is_empty() {
            self.start_planner();
        }
        self.faults.calm();
        for planner in &mut self.planners {
            planner.pace = Pace::BRISK;
            planner.next = planner.next.min(stopped + Duration::from_secs(2));
        }
        let mut end = None;
        while end.is_none() || !self.planners.is_empty() {
            let Some(due) = self.planners.iter().map(|planner| planner.next).min() else { break };
            let late = due > stopped + BOUND;
            judge::broken(late, Rule::Unfinished, || self.stuck())?;
            self.sim.run_until(due.max(self.sim.now));
            // Who looked before faults stopped does not know how they left the world.
            if let Some((seen, last)) = self.step_planner()? {
                end = Some(last).filter(|_| seen >= stopped).or(end);
            }
            if self.planners.is_empty() && end.is_none() {
                self.start_planner();
            }
        }
        let settled = self.sim.now - stopped;
        let end = end.ok_or_else(|| Violation { rule: Rule::Unfinished, detail: "no planner".to_owned() })?;
        self.conclude(&end)?;
        Ok(Summary { kind: self.setting.kind, end, rounds: self.rounds, settled, exposed: self.exposed })
    }

    /// Lets planners work until then; false where nothing is left to be done then.
    fn advance(&mut self, due: Duration) -> Result<bool, Violation> {
        while self.planners.iter().any(|planner| planner.next <= due) {
            let next = self.planners.iter().map(|planner| planner.next).min().unwrap_or(due);
            self.sim.run_until(next.max(self.sim.now));
            self.step_planner()?;
        }
        self.sim.run_until(due.max(self.sim.now));
        self.judge.glance(&self.sim)?;
        Ok(true)
    }

    /// Has the planner whose turn it is do its step; says how it ended, and when it last looked, where it did.
    fn step_planner(&mut self) -> Result<Option<(Duration, End)>, Violation> {
        let first = self.planners.iter().enumerate().min_by_key(|(_, planner)| planner.next).map(|(place, _)| place);
        let Some(place) = first else { return Ok(None) };
        let event = self.planners[place].step(&mut self.sim);
        match event {
            Event::Observed => Ok(None),
            Event::Planned(observation, decision) => {
                self.rounds += 1;
                self.tell(|_| format!("planner {place}: {decision}"));
                self.judge.planned(&self.sim, &observation, &decision)?;
                if self.rounds.is_multiple_of(8) {
                    let again = (self.plan)(&observation, &self.desired, &self.policy);
                    judge::broken(again != *decision, Rule::Fickle, || format!("{decision}, then {again}"))?;
                }
                Ok(None)
            }
            Event::Acted(kind, action, result) => {
                self.tell(|_| match &result {
                    Ok(()) => format!("planner {place}: {kind}: {action}"),
                    Err(error) => format!("planner {place}: {kind}: {action}: {error}"),
                });
                if result.is_ok() {
                    self.judge.acted(&self.sim, &action)?;
                }
                self.judge.glance(&self.sim)?;
                Ok(None)
            }
            Event::Ended(end) => {
                self.tell(|_| format!("planner {place} is over: {end:?}"));
                Ok(Some((self.planners.remove(place).seen, end)))
            }
        }
    }

    /// The end is right, and stays.
    fn conclude(&mut self, end: &End) -> Result<(), Violation> {
        let reason = self.setting.reason_to_refuse(&self.sim);
        match end {
            End::Refused(refusal) => judge::broken(!reason, Rule::Unfinished, || format!("refused: {refusal}")),
            End::Converged => {
                judge::broken(reason, Rule::Unfinished, || "converged where it had to refuse".to_owned())?;
                self.judge.finished(&self.sim)?;
                for wait in [100, 3_000, 20_000].map(Duration::from_millis) {
                    self.sim.run_until(self.sim.now + wait);
                    let observation = self.sim.observe(0.0);
                    let decision = (self.plan)(&observation, &self.desired, &self.policy);
                    // A link that broke in the last moment of the faults may be noticed only now.
                    let is_fresh = wait < Duration::from_secs(1) && matches!(decision, Decision::Wait(_));
                    let left = !is_fresh && !matches!(decision, Decision::Converged(_));
                    judge::broken(left, Rule::LeftConverged, || decision.to_string())?;
                    self.judge.glance(&self.sim)?;
                }
                self.judge.finished(&self.sim)
            }
        }
    }

    fn start_planner(&mut self) {
        let pace = self.faults.pace(&mut self.random);
        let (seed, now) = (self.random.u64(..), self.sim.now);
        self.planners.push(Bootstrap::new(self.plan, self.desired.clone(), self.policy, pace, seed, now));
        self.tell(|_| "a planner starts".to_owned());
    }

    /// What the world looks like to somebody who waits in vain.
    fn stuck(&mut self) -> String {
        let observation = self.sim.observe(0.0);
        let decision = (self.plan)(&observation, &self.desired, &self.policy);
        for (peer, report) in observation.reports() {
            let view: Vec<String> = report.view.entries().iter().map(|entry| format!("{entry:?}")).collect();
            let text = format!("{} says: {}", peer.label(), view.join("\n    "));
            self.tell(|_| text);
        }
        decision.to_string()
    }

    fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>9.3} s  {}", self.sim.now.as_secs_f64(), line(self));
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the history of seed {} breaks a promise: {}", self.seed, self.violation)?;
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(f, "run it alone with VALKEEPER_SIM_SEED={}", self.seed)
    }
}
