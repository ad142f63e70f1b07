//! What goes wrong in a history, and when.

use std::time::Duration;

use fastrand::Rng;

use super::judge::{Violation, name};
use super::setting::{Kind, Setting};
use super::{History, Pace};
use crate::sim::Shown;

/// The faults to come, the last one first.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    to_come: Vec<(Duration, Fault)>,
    /// How often and how badly answers are lost.
    loss: f64,
    /// The longest time a planner thinks.
    slowness: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Start(usize),
    Restart { pod: usize, moved: bool, disk_lost: bool },
    Up(usize),
    Dns(usize, Lie),
    Truth(usize),
    Part(usize),
    Rejoin,
    KillPlanner,
    Planner,
    Takeover,
    Write,
}

#[derive(Clone, Copy, Debug)]
enum Lie {
    Nothing,
    Stale,
    Foreign,
}

impl Faults {
    pub(super) fn draw(random: &mut Rng, setting: &Setting) -> Self {
        let length = random.u64(1_500..=12_000);
        let at = |random: &mut Rng, longest: u64| Duration::from_millis(random.u64(0..longest));
        let mut to_come: Vec<(Duration, Fault)> = Vec::new();
        let spread = random.choice([1, 500, length]).unwrap_or(1);
        for pod in setting.foreign.iter().chain(&setting.pods) {
            to_come.push((at(random, spread), Fault::Start(*pod)));
        }
        for _ in 0..random.usize(0..=6) {
            let pod = random.choice(&setting.pods).copied().unwrap_or(0);
            let fault = match random.u8(..16) {
                0..=5 => Fault::Restart { pod, moved: random.bool(), disk_lost: random.u8(..3) == 0 },
                6..=7 => Fault::Dns(pod, random.choice([Lie::Nothing, Lie::Stale, Lie::Foreign]).unwrap_or(Lie::Stale)),
                8..=10 => Fault::KillPlanner,
                11..=13 => Fault::Planner,
                14 => Fault::Part(pod),
                _ => Fault::Takeover,
            };
            to_come.push((at(random, length), fault));
        }
        if setting.kind == Kind::Formed && random.bool() {
            let when = at(random, length);
            for pod in &setting.pods {
                to_come.push((when, Fault::Restart { pod: *pod, moved: true, disk_lost: false }));
            }
        }
        for turn in 0..length / 400 {
            to_come.push((Duration::from_millis(turn * 400), Fault::Write));
        }
        let loss = random.choice([0.0, 0.0, 0.05, 0.3]).unwrap_or(0.0);
        let slowness = Duration::from_millis(random.choice([20, 20, 400, 4_000]).unwrap_or(20));
        to_come.sort_by_key(|(when, _)| std::cmp::Reverse(*when));
        Self { to_come, loss, slowness }
    }

    /// No answer is lost any more, and nothing is slow.
    pub(super) fn calm(&mut self) {
        (self.loss, self.slowness) = (0.0, Pace::BRISK.think);
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.to_come.last().map(|(when, _)| *when)
    }

    pub(super) fn pace(&self, random: &mut Rng) -> Pace {
        let act = Duration::from_millis(random.choice([2, 2, 100, 1_500]).unwrap_or(2));
        Pace { loss: self.loss, think: self.slowness, act, rest: Duration::from_millis(random.u64(100..=800)) }
    }

    fn later(&mut self, when: Duration, fault: Fault) {
        let place = self.to_come.partition_point(|(other, _)| *other > when);
        self.to_come.insert(place, (when, fault));
    }
}

impl History {
    pub(super) fn do_fault(&mut self) -> Result<(), Violation> {
        let Some((_, fault)) = self.faults.to_come.pop() else { return Ok(()) };
        let now = self.sim.now;
        let soon = now + Duration::from_millis(self.random.u64(20..=2_500));
        if !matches!(fault, Fault::Write) {
            self.tell(|history| history.describe(fault));
        }
        match fault {
            Fault::Start(pod) | Fault::Up(pod) => {
                if !self.sim.hosts[pod].is_up {
                    self.sim.start(pod);
                }
                self.show(pod, Shown::Nothing, Shown::Current);
            }
            Fault::Restart { pod, moved, disk_lost } => {
                if self.sim.hosts[pod].is_up {
                    let stale = self.random.bool().then_some(Shown::Other(self.sim.hosts[pod].address));
                    self.sim.stop(pod);
                    if disk_lost && self.may_lose(pod) {
                        self.sim.lose_disk(pod);
                        self.tell(|_| "its disk is lost".to_owned());
                    }
                    if moved {
                        self.sim.readdress(pod);
                        if let Some(stale) = stale {
                            self.show(pod, Shown::Current, stale);
                            let truth = now + Duration::from_millis(self.random.u64(500..=6_000));
                            self.faults.later(truth, Fault::Truth(pod));
                        }
                    }
                    self.faults.later(soon, Fault::Up(pod));
                }
            }
            Fault::Dns(pod, lie) => {
                let foreign = self.setting.foreign.first().map(|host| Shown::Other(self.sim.hosts[*host].address));
                let shown = match lie {
                    Lie::Foreign => foreign.unwrap_or(Shown::Nothing),
                    Lie::Stale => Shown::Other(self.sim.hosts[self.setting.pods[0]].address),
                    Lie::Nothing => Shown::Nothing,
                };
                self.set_zone(pod, shown);
                self.faults.later(soon, Fault::Truth(pod));
            }
            Fault::Truth(pod) => self.set_zone(pod, Shown::Current),
            Fault::Part(pod) => {
                self.sim.part(pod, 1);
                self.faults.later(soon, Fault::Rejoin);
            }
            Fault::Rejoin => self.heal(),
            Fault::KillPlanner => {
                if !self.planners.is_empty() {
                    let place = self.random.usize(..self.planners.len());
                    self.planners.remove(place);
                    self.faults.later(soon, Fault::Planner);
                }
            }
            Fault::Planner if self.planners.len() < 3 => self.start_planner(),
            Fault::Planner => {}
            Fault::Takeover => self.take_over(),
            Fault::Write => self.write()?,
        }
        Ok(())
    }

    /// Everybody is up and can talk, DNS says the truth, unless it never does.
    pub(super) fn stop_faults(&mut self) {
        self.tell(|_| "faults stop".to_owned());
        self.heal();
        for pod in self.setting.pods.clone() {
            if !self.sim.hosts[pod].is_up {
                self.sim.start(pod);
            }
            self.set_zone(pod, Shown::Current);
        }
    }

    fn heal(&mut self) {
        (0..self.sim.hosts.len()).for_each(|host| self.sim.part(host, 0));
    }

    fn show(&mut self, pod: usize, from: Shown, to: Shown) {
        if self.sim.zone.contains(&(pod, from)) {
            self.set_zone(pod, to);
        }
    }

    fn set_zone(&mut self, pod: usize, to: Shown) {
        let is_free = |pod| self.setting.hijacked != Some(pod);
        self.sim.zone.iter_mut().filter(|(host, _)| *host == pod && is_free(pod)).for_each(|entry| entry.1 = to);
    }

    /// Whether the pod's disk holds nothing that is nowhere else.
    fn may_lose(&self, pod: usize) -> bool {
        let server = &self.sim.hosts[pod].server;
        let holds = server.key_count() > 0 && server.follows.is_none();
        let given = self.sim.hosts.iter().any(|host| host.server.slots_of(server.id) != 0);
        self.setting.kind != Kind::TwoIslands && !holds && !given
    }

    /// Somebody else's node gets an address that a pod of ours had, and that nobody is about to greet.
    fn take_over(&mut self) {
        let Some(host) = self.setting.foreign.get(1).copied() else { return };
        let ours: Vec<_> = self.setting.pods.iter().map(|pod| &self.sim.hosts[*pod]).collect();
        let known = ours.iter().flat_map(|host| host.server.known.iter());
        let used = |address| ours.iter().any(|host| host.address == address);
        let met: Vec<_> = known.clone().filter(|known| known.id.is_none()).filter_map(|known| known.address).collect();
        let left = known.filter(|known| known.id.is_some()).filter_map(|known| known.address);
        let Some(address) = left.into_iter().find(|address| !used(*address) && !met.contains(address)) else { return };
        if self.sim.hosts[host].is_up {
            self.sim.stop(host);
        }
        self.sim.settle(host, address);
        self.sim.start(host);
        self.tell(|_| format!("somebody else's node now answers at {address}"));
    }

    /// Clients try to write to everybody.
    fn write(&mut self) -> Result<(), Violation> {
        let written = if self.setting.kind == Kind::TwoIslands { Vec::new() } else { self.setting.pods.clone() };
        for at in written {
            let piece = self.random.usize(..self.sim.pieces.count());
            if self.sim.write(at, piece) {
                let is_lowered = |pod: &usize| {
                    self.sim.hosts[*pod].server.settings.node_timeout != self.sim.hosts[*pod].file.node_timeout
                };
                if let Some(lowered) = self.setting.pods.iter().copied().find(is_lowered) {
                    self.exposed += 1;
                    self.tell(|history| {
                        format!(
                            "{} takes a write while {} is lowered",
                            name(&history.sim, at),
                            name(&history.sim, lowered)
                        )
                    });
                }
                self.judge.wrote(&self.sim, at, piece)?;
            }
        }
        Ok(())
    }

    fn describe(&self, fault: Fault) -> String {
        let name = |pod| name(&self.sim, pod);
        match fault {
            Fault::Start(pod) | Fault::Up(pod) => format!("{} is up", name(pod)),
            Fault::Restart { pod, moved: true, .. } => format!("{} stops, to come back elsewhere", name(pod)),
            Fault::Restart { pod, .. } => format!("{} stops, to come back", name(pod)),
            Fault::Dns(pod, lie) => format!("DNS lies about {}: {lie:?}", name(pod)),
            Fault::Truth(pod) => format!("DNS tells the truth about {}", name(pod)),
            Fault::Part(pod) => format!("{} is cut off", name(pod)),
            Fault::Rejoin => "nobody is cut off".to_owned(),
            Fault::KillPlanner => "a planner is killed".to_owned(),
            Fault::Planner => "another planner".to_owned(),
            Fault::Takeover => "an address is used again".to_owned(),
            Fault::Write => "clients write".to_owned(),
        }
    }
}
