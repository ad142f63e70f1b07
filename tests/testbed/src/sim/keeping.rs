//! Random histories of a cluster that stands, kept by a planner in every pod, each of which acts on its own node only.
//!
//! Pods restart, also all at once, move, change places, lose disks and stay away; addresses are used again, also by
//! somebody else's pods, while DNS is behind; a minority is cut off; shards come and go while pods disagree on the shape.
//! Then faults stop, and every keeper has to say that the cluster stands, or rightly refuse.
//!
//! A keeper sees whom DNS names at the moment; that a real one also remembers addresses is left out. Of what `run` does
//! beside it, a pod that has lost its disk waits for its heir before it starts; all elections are the server's own.

mod faults;
mod judge;
mod mover;
mod setting;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use valkeeper::topology::{Decision, DesiredTopology};

use super::Sim;
use super::bootstrap::{Pace, PlanFn};
use super::history::{Failure, Rule, Violation, broken, name};
use super::keeper::{Keeper, Step};
use super::lookout::Lookout;
use super::node::Known;

use faults::Faults;
pub use judge::Judge;
use mover::Moved;
pub use setting::{Kind, Setting, Size};

/// How long the keepers may take once faults have stopped: to be elected a replica may need a second attempt, which comes
/// four node timeouts after the first.
const BOUND: Duration = Duration::from_secs(150);
const TIMEOUTS: u32 = 12;
/// How long keepers may hope for data that is lost.
const HOPE: Duration = Duration::from_secs(60);
/// When faults stop at the latest.
const LONGEST: Duration = Duration::from_secs(120);
/// How long a piece takes to move.
const MOVING: Duration = Duration::from_millis(400);
/// How often everything is looked at, whatever happens.
const GLANCE: Duration = Duration::from_secs(1);

/// What a history came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What was to become of the cluster.
    pub kind: Kind,
    /// How many nodes it had in the end.
    pub nodes: usize,
    /// Whether it stands, rather than being rightly refused.
    pub stands: bool,
    /// How long it took once faults had stopped.
    pub settled: Duration,
    /// How many decisions were thought out.
    pub thoughts: u64,
    /// How many actions were done.
    pub actions: u64,
}

struct Keeping {
    sim: Sim,
    setting: Setting,
    judge: Judge,
    lookout: Lookout,
    keepers: Vec<Keeper>,
    faults: Faults,
    random: Rng,
    actions: u64,
    glanced: Duration,
    trace: Option<Vec<String>>,
    told: String,
}

/// Runs the history of a seed in that size; where it breaks a promise it is run again to be told.
pub fn run(seed: u64, size: Size, plan: PlanFn) -> Result<Summary, Box<Failure>> {
    Keeping::new(seed, size, plan, None).run().map_err(|_| {
        let (outcome, trace) = tell(seed, size, plan);
        let violation = outcome.err().unwrap_or_else(|| Violation {
            rule: Rule::Fickle,
            detail: "the history went otherwise the second time".to_owned(),
        });
        Box::new(Failure { seed, violation, trace })
    })
}

/// Runs the history of a seed and tells it, a line for each thing that happened.
pub fn tell(seed: u64, size: Size, plan: PlanFn) -> (Result<Summary, Violation>, Vec<String>) {
    let mut history = Keeping::new(seed, size, plan, Some(Vec::new()));
    let outcome = history.run();
    if outcome.is_err() {
        (0..history.sim.hosts.len()).for_each(|at| history.tell(|history| history.portrait(at)));
    }
    (outcome, history.trace.unwrap_or_default())
}

impl Keeping {
    fn new(seed: u64, size: Size, plan: PlanFn, trace: Option<Vec<String>>) -> Self {
        let mut random = Rng::with_seed(seed);
        let (setting, mut sim) = Setting::draw(&mut random, size);
        let first = setting.before.shape.members();
        let judge = Judge::new(&sim, &setting.pods[..first]);
        let faults = Faults::draw(&mut random, &setting);
        // In a large cluster somebody always looks: one glance serves many.
        let glance = Duration::from_millis(if first <= 12 { 0 } else { 8 * first as u64 });
        let hosts: Vec<usize> = setting.foreign.iter().chain(&setting.pods[..first]).copied().collect();
        hosts.iter().for_each(|host| sim.start(*host));
        let mut history = Self {
            sim,
            judge,
            lookout: Lookout::new(plan, glance),
            keepers: Vec::new(),
            faults,
            random,
            actions: 0,
            glanced: Duration::ZERO,
            trace,
            told: String::new(),
            setting,
        };
        history.tell(|history| history.setting.to_string());
        for pod in hosts.into_iter().filter(|host| !history.setting.foreign.contains(host)).collect::<Vec<_>>() {
            history.start_keeper(pod, history.setting.before.clone());
        }
        history
    }

    fn run(&mut self) -> Result<Summary, Violation> {
        while let Some(due) = self.faults.next().filter(|due| *due < LONGEST) {
            self.advance(due)?;
            self.do_fault();
        }
        self.let_elect()?;
        self.stop_faults();
        self.let_leave()?;
        let stopped = self.sim.now;
        let timeout = self.sim.hosts[0].file.node_timeout;
        let bound = stopped + BOUND + timeout * TIMEOUTS;
        let stands = self.settle(stopped, bound)?;
        let settled = self.sim.now - stopped;
        if stands {
            if self.move_the_rest()? {
                let moved = self.sim.now;
                let stands = self.settle(moved, moved + BOUND)?;
                broken(!stands, Rule::Unfinished, || "refused after slots had moved".to_owned())?;
            }
            self.rest()?;
        }
        let nodes = self.setting.wanted().len();
        let (kind, thoughts, actions) = (self.setting.kind, self.lookout.thoughts, self.actions);
        Ok(Summary { kind, nodes, stands, settled, thoughts, actions })
    }

    /// Primaries that have lost their disks get their heirs.
    fn let_elect(&mut self) -> Result<(), Violation> {
        self.heal();
        let timeout = self.sim.hosts[0].file.node_timeout;
        let bound = self.sim.now + BOUND + timeout * TIMEOUTS;
        while self.has_orphans() && self.sim.now < bound {
            self.setting.pods.clone().into_iter().for_each(|pod| self.up(pod));
            self.advance(self.sim.now + MOVING)?;
        }
        Ok(())
    }

    /// What is to shrink and has not yet does so now.
    fn let_leave(&mut self) -> Result<(), Violation> {
        let bound = self.sim.now + BOUND;
        while !self.all_have_left() {
            broken(self.sim.now > bound, Rule::Unfinished, || format!("nobody can leave: {}", self.stuck()))?;
            self.move_slots();
            self.advance(self.sim.now + MOVING)?;
        }
        Ok(())
    }

    /// New shards get their slots; whether any had to move.
    fn move_the_rest(&mut self) -> Result<bool, Violation> {
        let mut any = false;
        while self.setting.kind == Kind::Grows && self.move_slots() == Moved::Something {
            any = true;
            self.advance(self.sim.now + MOVING)?;
        }
        Ok(any)
    }

    /// Goes on until every keeper, having looked since then, says that the cluster stands, or rightly refuses.
    fn settle(&mut self, since: Duration, bound: Duration) -> Result<bool, Violation> {
        loop {
            let step = self.sim.now + GLANCE / 2;
            self.advance(step)?;
            let all = |is: fn(&Decision) -> bool| {
                self.keepers
                    .iter()
                    .all(|keeper| keeper.last.as_ref().is_some_and(|sight| sight.seen >= since && is(&sight.decision)))
            };
            if all(|decision| matches!(decision, Decision::Converged(_))) {
                self.judge.finished(&self.sim, &self.setting)?;
                return Ok(true);
            }
            let is_late = self.sim.now > bound;
            let is_hopeless = self.judge.bereft != 0 && self.sim.now > since + HOPE;
            if (is_late || is_hopeless) && all(|decision| matches!(decision, Decision::Refuse(_))) {
                let has_reason = self.judge.has_reason(&self.sim, &self.setting);
                broken(!has_reason, Rule::Unfinished, || self.stuck())?;
                return Ok(false);
            }
            broken(is_late, Rule::Unfinished, || self.stuck())?;
        }
    }

    /// Nothing disturbs the cluster any more: it stays as it is, in some histories beyond the ban of the forgotten.
    fn rest(&mut self) -> Result<(), Violation> {
        let time = if self.random.u8(..5) == 0 { 75 } else { 6 };
        let actions = self.actions;
        self.advance(self.sim.now + Duration::from_secs(time))?;
        let decision = |keeper: &Keeper| keeper.last.as_ref().map(|sight| Arc::clone(&sight.decision));
        for decision in self.keepers.iter().filter_map(decision) {
            let left = !matches!(*decision, Decision::Converged(_));
            broken(left, Rule::LeftConverged, || decision.to_string())?;
        }
        broken(self.actions > actions, Rule::LeftConverged, || "something was done".to_owned())?;
        self.judge.finished(&self.sim, &self.setting)
    }

    /// Lets keepers work until then.
    fn advance(&mut self, due: Duration) -> Result<(), Violation> {
        loop {
            let next = self.keepers.iter().enumerate().min_by_key(|(_, keeper)| keeper.next);
            let next = next.map(|(place, keeper)| (place, keeper.next)).filter(|(_, next)| *next <= due);
            let glance = self.glanced + GLANCE;
            let then = next.map_or(due, |(_, next)| next).max(self.sim.now);
            if glance <= then {
                self.sim.run_until(glance.max(self.sim.now));
                self.glanced = self.sim.now;
                self.judge.glance(&self.sim)?;
                continue;
            }
            self.sim.run_until(then);
            let Some((place, _)) = next else { return Ok(()) };
            self.step(place)?;
        }
    }

    fn step(&mut self, place: usize) -> Result<(), Violation> {
        let keeper = &mut self.keepers[place];
        let host = keeper.host;
        match keeper.step(&mut self.sim, &mut self.lookout) {
            Step::Idle => Ok(()),
            Step::Decided(sight) => {
                self.tell_news(host, &sight.decision);
                Ok(())
            }
            Step::Acts(seen, kind, action) => {
                self.judge.acts(&self.sim, seen, kind, &action)?;
                let result = self.sim.execute(&action);
                self.actions += u64::from(result.is_ok());
                let result = result.err().map_or_else(String::new, |error| format!(": {error}"));
                self.tell(|history| format!("{} does {kind}: {action}{result}", name(&history.sim, host)));
                Ok(())
            }
        }
    }

    fn start_keeper(&mut self, pod: usize, desired: DesiredTopology) {
        let pace = self.faults.pace(&mut self.random);
        let seed = self.random.u64(..);
        self.keepers.push(Keeper::new(pod, desired, pace, seed, self.sim.now));
    }

    /// What the world looks like to somebody who waits in vain.
    fn stuck(&self) -> String {
        let decisions = self.keepers.iter().filter_map(|keeper| {
            let sight = keeper.last.as_ref()?;
            let (name, shape) = (name(&self.sim, keeper.host), keeper.desired.shape);
            Some(format!("{name} ({shape}, {:.1} s): {}", sight.seen.as_secs_f64(), sight.decision))
        });
        let is_open = |line: &String| !line.contains("the cluster stands");
        decisions.filter(is_open).take(3).collect::<Vec<_>>().join("; ")
    }

    /// A server as it sees itself.
    fn portrait(&self, at: usize) -> String {
        let (host, server) = (&self.sim.hosts[at], &self.sim.hosts[at].server);
        let role = match server.follows {
            Some(primary) => format!("follows {}", self.sim.node_id(primary).short()),
            None => format!("owns {:x}", server.own_slots()),
        };
        let id = self.sim.node_id(server.id);
        let known = server.known.iter().map(|known| {
            let id = known.id.map_or("?".to_owned(), |id| self.sim.node_id(id).short().to_owned());
            let flags = [(known.is_suspected, "?"), (known.failed.is_some(), "!"), (known.address.is_none(), "@")];
            flags.iter().filter(|(is, _)| *is).fold(id, |text, (_, flag)| text + flag)
        });
        let known: Vec<String> = known.collect();
        let (up, ok) = (if host.is_up { "up" } else { "down" }, if server.is_ok { "ok" } else { "not ok" });
        let (name, epoch) = (name(&self.sim, at), server.config_epoch);
        let held = (0..server.keys.len()).filter(|piece| server.keys[*piece] > 0);
        let held = held.fold(0u128, |set, piece| set | 1 << piece);
        let (id, address, known) = (id.short(), host.address, known.join(" "));
        format!("{name} is {id} at {address}, {up}, {ok}, {role}, holds {held:x}, epoch {epoch}; knows {known}")
    }

    /// Tells a decision unless it is what was told last.
    fn tell_news(&mut self, host: usize, decision: &Decision) {
        if self.trace.is_some() {
            let text = decision.to_string();
            if text != self.told {
                self.tell(|history| format!("{} decides: {text}", name(&history.sim, host)));
                self.told = text;
            }
        }
    }

    fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>9.3} s  {}", self.sim.now.as_secs_f64(), line(self));
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }
}
