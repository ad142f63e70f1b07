//! The world of the simulator.

use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use valkeeper::topology::{
    Action, Blocker, ClusterId, Decision, Deed, DesiredTopology, PodName, Policy, Settings, Shape, SlotRange,
    StageKind, restore,
};

use super::{Outcome, Place, Scenario, World};
use crate::sim::bootstrap::{Bootstrap, End, Event, Pace, PlanFn};
use crate::sim::history::Judge;
use crate::sim::{Pieces, Shown, Sim};

/// A world in which a scenario takes no time.
#[derive(Clone, Debug)]
pub struct Simulated {
    sim: Sim,
    plan: PlanFn,
    shape: (u16, u16),
    pods: Vec<usize>,
    seed: u64,
    put: u64,
    /// The rounds of the bootstraps so far, a line each.
    pub log: Vec<String>,
}

/// A bootstrap that was begun, and what its last round came to.
struct Running {
    process: Bootstrap,
    last: Option<Decision>,
}

impl Simulated {
    /// The world of a scenario; another seed is another order of everything that has none.
    pub fn new(scenario: &Scenario, plan: PlanFn, seed: u64) -> Self {
        let shards = scenario.shape.0;
        let mut sim = Sim::new(seed, Pieces::of(&[shards, 3, 2, 1]));
        let file = Settings {
            node_timeout: Duration::from_secs(15),
            min_replicas_to_write: 0,
            replicas_max_lag: Duration::from_secs(10),
            sync_delay: Duration::from_secs(5),
        };
        let name = |ordinal: usize| PodName::new(&format!("valkey-{ordinal}"));
        let pods: Vec<usize> = (0..scenario.pods).map(|ordinal| sim.add(name(ordinal), file, false)).collect();
        sim.zone = pods.iter().map(|pod| (*pod, Shown::Nothing)).collect();
        Self { sim, plan, shape: scenario.shape, pods, seed, put: 0, log: Vec::new() }
    }

    fn desired(&self, shape: Option<(u16, u16)>) -> Result<DesiredTopology> {
        let (shards, replicas) = shape.unwrap_or(self.shape);
        let shards = NonZeroU16::new(shards).context("a shape without shards")?;
        let cluster = ClusterId::new("valkey.test").context("not a cluster id")?;
        Ok(DesiredTopology { cluster, shape: Shape { shards, replicas } })
    }

    fn begin(&mut self, shape: Option<(u16, u16)>) -> Result<Running> {
        self.seed += 1;
        let (desired, policy, now) = (self.desired(shape)?, Policy::FORM, self.sim.now);
        self.log.push(format!("{:.1} s  a bootstrap starts", now.as_secs_f64()));
        Ok(Running { process: Bootstrap::new(self.plan, desired, policy, Pace::BRISK, self.seed, now), last: None })
    }

    /// Does one step of a bootstrap at its time.
    fn step(&mut self, running: &mut Running) -> Event {
        self.sim.run_until(running.process.next.max(self.sim.now));
        let event = running.process.step(&mut self.sim);
        if let Event::Planned(_, decision) = &event {
            self.log.push(format!("{:.1} s  {decision}", self.sim.now.as_secs_f64()));
            running.last = Some((**decision).clone());
        }
        event
    }

    /// The deadline came: what was lowered is put back, and the exit code tells why it took so long.
    fn give_up(&mut self, running: &Running, shape: Option<(u16, u16)>) -> Result<Outcome> {
        let desired = self.desired(shape)?;
        while let Some(stage) = restore(&self.sim.observe(0.0), &desired) {
            stage.actions.iter().try_for_each(|action| self.sim.execute(action)).map_err(|error| anyhow!(error))?;
        }
        Ok(match &running.last {
            Some(Decision::Refuse(_)) => Outcome::Refused,
            Some(Decision::Wait(blockers)) if blockers.iter().any(Blocker::is_absence) => Outcome::Missing,
            _ => Outcome::Waiting,
        })
    }

    fn judge(&self) -> Result<Judge> {
        Ok(Judge::new(&self.sim, self.desired(None)?, vec![0; self.pods.len()]))
    }

    fn settle(&mut self) {
        let then = self.sim.now + Duration::from_millis(50);
        self.sim.run_until(then);
    }
}

impl World for Simulated {
    fn start(&mut self, pods: &[usize]) -> Result<()> {
        for pod in pods {
            ensure!(!self.sim.hosts[*pod].is_up, "pod {pod} runs already");
            self.sim.start(*pod);
            self.settle();
        }
        Ok(())
    }

    fn stop(&mut self, pod: usize) -> Result<()> {
        self.sim.stop(pod);
        Ok(())
    }

    fn restart(&mut self, pod: usize, place: Place) -> Result<()> {
        self.sim.stop(pod);
        self.settle();
        if place == Place::Other {
            self.sim.readdress(pod);
        }
        self.start(&[pod])
    }

    fn lose_disk(&mut self, pod: usize) -> Result<()> {
        self.sim.stop(pod);
        self.settle();
        self.sim.lose_disk(pod);
        self.start(&[pod])
    }

    fn lose_nodes_conf(&mut self, pod: usize) -> Result<()> {
        self.sim.stop(pod);
        self.settle();
        self.sim.lose_nodes_conf(pod);
        self.start(&[pod])
    }

    fn show(&mut self, pods: &[usize]) -> Result<()> {
        for (host, shown) in &mut self.sim.zone {
            *shown = if pods.contains(host) { Shown::Current } else { Shown::Nothing };
        }
        Ok(())
    }

    fn show_stranger(&mut self, pod: usize) -> Result<()> {
        let file = self.sim.hosts[pod].file;
        let strangers: Vec<usize> = (0..2).map(|_| self.sim.add(None, file, true)).collect();
        self.sim.form(&strangers, 2, "", false);
        self.start(&strangers)?;
        let address = self.sim.hosts[strangers[0]].address;
        self.sim.zone.iter_mut().filter(|(host, _)| *host == pod).for_each(|entry| entry.1 = Shown::Other(address));
        Ok(())
    }

    fn bootstrap(&mut self, shape: Option<(u16, u16)>, deadline: Duration) -> Result<Outcome> {
        let end = self.sim.now + deadline;
        let mut running = self.begin(shape)?;
        while running.process.next <= end {
            match self.step(&mut running) {
                Event::Ended(End::Converged) => return Ok(Outcome::Converged),
                Event::Ended(End::Refused(_)) => return Ok(Outcome::Refused),
                _ => {}
            }
        }
        self.give_up(&running, shape)
    }

    fn bootstrap_until(&mut self, stage: StageKind) -> Result<bool> {
        let end = self.sim.now + super::LONG;
        let mut running = self.begin(None)?;
        while running.process.next <= end {
            match self.step(&mut running) {
                Event::Acted(kind, _, Ok(())) if kind == stage => return Ok(true),
                Event::Ended(End::Converged) => return Ok(false),
                Event::Ended(end) => bail!("the bootstrap ended before {stage}: {end:?}"),
                _ => {}
            }
        }
        bail!("the bootstrap did not come to {stage}")
    }

    fn bootstrap_twice(&mut self) -> Result<[Outcome; 2]> {
        let end = self.sim.now + super::LONG;
        let mut both = [self.begin(None)?, self.begin(None)?];
        let mut outcomes = [None; 2];
        while outcomes.contains(&None) {
            let waiting = (0..2).filter(|place| outcomes[*place].is_none());
            let Some(place) = waiting.min_by_key(|place| both[*place].process.next) else { break };
            ensure!(both[place].process.next <= end, "bootstrap {place} does not end");
            outcomes[place] = match self.step(&mut both[place]) {
                Event::Ended(End::Converged) => Some(Outcome::Converged),
                Event::Ended(End::Refused(_)) => Some(Outcome::Refused),
                _ => None,
            };
        }
        Ok(outcomes.map(|outcome| outcome.unwrap_or(Outcome::Waiting)))
    }

    fn claim(&mut self, pod: usize, index: u16, shards: u16) -> Result<()> {
        let share = SlotRange::share(index, shards).context("no such shard")?;
        let report = self.sim.report(pod);
        let address = std::net::SocketAddr::new(self.sim.hosts[pod].address, 6379);
        let label = valkeeper::topology::Label { pod: None, address };
        let action = Action { on: report.id(), label, address, deed: Deed::AddSlots(vec![share]) };
        self.sim.execute(&action).map_err(|error| anyhow!("claim: {error}"))
    }

    fn put_keys(&mut self, pod: usize, keys: u64) -> Result<()> {
        self.put += keys;
        self.sim.put_keys(pod, keys);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<String> {
        let mut text = String::new();
        for host in self.sim.hosts.iter().filter(|host| host.is_up) {
            let (server, pod) = (&host.server, host.pod.as_ref().map_or("a stranger", PodName::as_str));
            writeln!(
                text,
                "{pod} {} follows {:?}, owns {:b}, epoch {}, {:?} keys, {:?} {:?}",
                self.sim.node_id(server.id).short(),
                server.follows,
                server.own_slots(),
                server.config_epoch,
                server.follows.is_none().then(|| server.key_count()),
                server.name,
                server.settings
            )?;
        }
        Ok(text)
    }

    fn check(&mut self) -> Result<()> {
        self.judge()?.finished(&self.sim).map_err(|violation| anyhow!("{violation}"))?;
        let ours = || self.pods.iter().map(|pod| &self.sim.hosts[*pod]);
        ensure!(ours().all(|host| host.server.is_ok), "somebody does not say ok");
        let keys: u64 = ours().filter(|host| host.server.follows.is_none()).map(|host| host.server.key_count()).sum();
        ensure!(keys == self.put, "{} keys were put, {keys} are there", self.put);
        Ok(())
    }
}
