//! What goes wrong, and what people do, and when.

use std::time::Duration;

use fastrand::Rng;
use valkeeper::topology::Decision;

use super::judge::ours;
use super::mover::{self, Moved};
use super::setting::{Kind, Setting};
use super::{Keeping, Pace, name};
use crate::sim::{PieceSet, Shown};

/// What is to come, the last one first.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    to_come: Vec<(Duration, Fault)>,
    loss: f64,
    slowness: Duration,
    /// Whether pods that start are told of the new shape.
    reshaped: bool,
    /// Whether the slots of new shards are on their way.
    moving: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Restart(Restart),
    RestartAll {
        moved: bool,
    },
    /// Two pods change places.
    Swap(usize, usize),
    /// Somebody else's pod gets the address of one of ours.
    Hijack(usize),
    Up(usize),
    Truth(usize),
    Hide(usize),
    Part,
    Heal,
    Bereave,
    /// From now on pods are started with the new shape.
    Template,
    Come(usize),
    Reshape(usize),
    Move,
}

/// How a pod restarts.
#[derive(Clone, Copy, Debug)]
struct Restart {
    pod: usize,
    moved: bool,
    disk_lost: bool,
    graceful: bool,
    down: Duration,
}

impl Faults {
    pub(super) fn draw(random: &mut Rng, setting: &Setting) -> Self {
        let length = random.u64(8_000..=50_000);
        let millis = Duration::from_millis;
        let mut to_come: Vec<(Duration, Fault)> = Vec::new();
        let first = setting.before.shape.members();
        let old = &setting.pods[..first];
        let any = |random: &mut Rng| random.choice(old).copied().unwrap_or(0);
        for _ in 0..random.usize(1..=5 + first / 8) {
            let pod = any(random);
            let fault = match random.u8(..20) {
                0..=11 => Fault::Restart(Restart {
                    pod,
                    moved: random.bool(),
                    disk_lost: random.u8(..2) == 0,
                    graceful: random.bool(),
                    down: millis(random.choice([300, 2_000, 10_000, 40_000]).unwrap_or(300)),
                }),
                12 => Fault::Swap(pod, any(random)),
                13..=14 => Fault::Hijack(pod),
                15 => Fault::Hide(pod),
                _ => Fault::Part,
            };
            to_come.push((millis(random.u64(..length)), fault));
        }
        if random.u8(..4) == 0 {
            to_come.push((millis(random.u64(..length)), Fault::RestartAll { moved: random.u8(..4) > 0 }));
        }
        let start = random.u64(..length / 2);
        match setting.kind {
            Kind::Steady => {}
            Kind::Bereaved => to_come.push((millis(start), Fault::Bereave)),
            Kind::Grows | Kind::Shrinks => {
                to_come.push((millis(start), Fault::Template));
                to_come.extend(setting.pods[first..].iter().map(|pod| {
                    let when = start + random.u64(1..10_000);
                    (millis(when), Fault::Come(*pod))
                }));
                let reshaped = old.iter().map(|pod| (millis(start + random.u64(1..20_000)), Fault::Reshape(*pod)));
                to_come.extend(reshaped.collect::<Vec<_>>());
                to_come.extend((1..80).map(|turn| (millis(start + turn * 400), Fault::Move)));
            }
        }
        let loss = random.choice([0.0, 0.0, 0.05, 0.3]).unwrap_or(0.0);
        let slowness = millis(random.choice([20, 20, 400, 4_000, 9_000]).unwrap_or(20));
        to_come.sort_by_key(|(when, _)| std::cmp::Reverse(*when));
        Self { to_come, loss, slowness, reshaped: false, moving: false }
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.to_come.last().map(|(when, _)| *when)
    }

    pub(super) fn pace(&self, random: &mut Rng) -> Pace {
        let act = Duration::from_millis(random.choice([5, 5, 100, 1_500]).unwrap_or(5));
        let rest = Duration::from_millis(random.u64(800..=2_500));
        Pace { loss: self.loss, think: self.slowness, act, rest }
    }

    fn later(&mut self, when: Duration, fault: Fault) {
        let place = self.to_come.partition_point(|(other, _)| *other > when);
        self.to_come.insert(place, (when, fault));
    }
}

impl Keeping {
    pub(super) fn do_fault(&mut self) {
        let Some((_, fault)) = self.faults.to_come.pop() else { return };
        match fault {
            Fault::Restart(how) => self.restart(how),
            Fault::RestartAll { moved } => self.restart_all(moved),
            Fault::Swap(one, other) => self.swap(one, other),
            Fault::Hijack(pod) => self.hijack(pod),
            Fault::Up(pod) => self.up(pod),
            Fault::Truth(pod) => self.show(pod, Shown::Current),
            Fault::Hide(pod) => {
                self.tell(|history| format!("DNS denies {}", history.name(pod)));
                self.show(pod, Shown::Nothing);
                self.tell_truth_later(pod);
            }
            Fault::Part => self.cut_off(),
            Fault::Heal => self.heal(),
            Fault::Bereave => self.bereave(),
            Fault::Template => {
                self.tell(|_| "the wanted shape changes".to_owned());
                self.faults.reshaped = true;
            }
            Fault::Come(pod) => self.come(pod),
            Fault::Reshape(pod) => self.reshape(pod),
            Fault::Move => {
                self.move_slots();
            }
        }
    }

    /// Everybody is up, all can talk, DNS says the truth, and all are told of the shape that is wanted.
    pub(super) fn stop_faults(&mut self) {
        self.tell(|_| "faults stop".to_owned());
        self.faults.to_come.clear();
        self.heal();
        (self.faults.loss, self.faults.slowness) = (0.0, Duration::from_millis(20));
        self.faults.reshaped = true;
        for pod in self.setting.pods.clone() {
            self.come(pod);
            self.up(pod);
            self.reshape(pod);
            self.show(pod, Shown::Current);
        }
        let now = self.sim.now;
        for keeper in &mut self.keepers {
            keeper.pace = Pace { loss: 0.0, rest: keeper.pace.rest, ..Pace::BRISK };
            keeper.next = keeper.next.min(now + keeper.pace.rest);
        }
    }

    /// Moves a piece where that is the order of the day; a cluster that is to shrink lets its last pods go in the end.
    pub(super) fn move_slots(&mut self) -> Moved {
        let stands = |decision: &Decision| matches!(decision, Decision::Converged(_));
        let moved = match self.setting.kind {
            Kind::Grows => {
                let after = &self.setting.after;
                self.faults.moving |= self.keepers.iter().any(|keeper| {
                    keeper.desired == *after && keeper.last.as_ref().is_some_and(|sight| stands(&sight.decision))
                });
                if !self.faults.moving {
                    return Moved::Nothing;
                }
                mover::grow(&mut self.sim, &self.setting)
            }
            Kind::Shrinks => mover::shrink(&mut self.sim, &self.setting),
            Kind::Steady | Kind::Bereaved => Moved::Done,
        };
        match moved {
            Moved::Something => self.tell(|_| "slots move".to_owned()),
            Moved::Done if self.setting.kind == Kind::Shrinks => self.leave(),
            _ => {}
        }
        moved
    }

    fn restart(&mut self, how: Restart) {
        if !self.may_stop(how.pod) {
            return;
        }
        let now = self.sim.now;
        let id = self.sim.hosts[how.pod].server.id;
        let is_heir = |at: &usize| self.sim.hosts[*at].server.follows == Some(id);
        let heir = ours(&self.sim).filter(is_heir).find(|at| self.sim.hosts[*at].server.synced.is_some());
        if let Some(heir) = heir.filter(|_| how.graceful)
            && self.sim.take_over(heir)
        {
            self.tell(|history| format!("{} hands over to {}", history.name(how.pod), history.name(heir)));
            let soon = now + Duration::from_millis(400);
            self.faults.later(soon, Fault::Restart(Restart { graceful: false, ..how }));
            return;
        }
        let disk_lost = how.disk_lost && self.may_lose(how.pod);
        self.down(how.pod);
        if disk_lost {
            self.sim.lose_disk(how.pod);
        }
        if how.moved {
            self.move_away(how.pod);
        }
        let how_text = [("elsewhere", how.moved), ("without its disk", disk_lost)];
        let how_text: Vec<_> = how_text.iter().filter(|(_, is)| *is).map(|(text, _)| *text).collect();
        self.tell(|history| format!("{} stops, to come back {}", history.name(how.pod), how_text.join(" ")));
        self.faults.later(now + how.down, Fault::Up(how.pod));
    }

    fn restart_all(&mut self, moved: bool) {
        let pods: Vec<usize> = self.judge.wanted.iter().map(|(pod, _)| *pod).collect();
        if pods.iter().any(|pod| self.sim.hosts[*pod].is_up && !self.may_stop(*pod)) {
            return;
        }
        self.tell(|_| "all stop".to_owned());
        for pod in pods {
            self.down(pod);
            if moved {
                self.move_away(pod);
            }
            let soon = self.sim.now + Duration::from_millis(self.random.u64(100..=3_000));
            self.faults.later(soon, Fault::Up(pod));
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        if one == other || !self.may_stop(one) || !self.may_stop(other) {
            return;
        }
        self.tell(|history| format!("{} and {} change places", history.name(one), history.name(other)));
        let places = [one, other].map(|pod| self.sim.hosts[pod].address);
        for (pod, address) in [one, other].into_iter().zip([places[1], places[0]]) {
            self.down(pod);
            self.sim.settle(pod, address);
            self.be_stale(pod, places[usize::from(pod == other)]);
            let soon = self.sim.now + Duration::from_millis(self.random.u64(100..=3_000));
            self.faults.later(soon, Fault::Up(pod));
        }
    }

    /// Not while somebody greets that address: CLUSTER MEET names an address, and whoever answers there is met.
    fn hijack(&mut self, pod: usize) {
        let address = self.sim.hosts[pod].address;
        let stranger = self.setting.foreign[1];
        let is_greeted = ours(&self.sim).any(|at| self.sim.hosts[at].server.known.is_greeting(address));
        if is_greeted || !self.may_stop(pod) {
            return;
        }
        self.tell(|history| format!("somebody else's pod gets the address of {}", history.name(pod)));
        self.down(pod);
        self.sim.readdress(pod);
        self.be_stale(pod, address);
        self.sim.stop(stranger);
        self.sim.settle(stranger, address);
        self.sim.start(stranger);
        let soon = self.sim.now + Duration::from_millis(self.random.u64(300..=10_000));
        self.faults.later(soon, Fault::Up(pod));
    }

    /// Cuts off some pods that hold no majority of the votes.
    fn cut_off(&mut self) {
        if self.judge.parted.is_some() || self.has_orphans() {
            return;
        }
        let mut pods: Vec<usize> = self.judge.wanted.iter().map(|(pod, _)| *pod).collect();
        self.random.shuffle(&mut pods);
        pods.truncate((pods.len() * self.random.usize(5..=45)).div_ceil(100));
        let votes = |at: &usize| self.sim.hosts[*at].server.own_slots() != 0;
        let all = ours(&self.sim).filter(votes).count();
        let mut left = all;
        pods.retain(|pod| {
            let is_spared = votes(pod) && (left - 1) * 2 <= all;
            left -= usize::from(votes(pod) && !is_spared);
            !is_spared
        });
        self.tell(|history| {
            format!("cut off: {}", pods.iter().map(|pod| history.name(*pod)).collect::<Vec<_>>().join(" "))
        });
        pods.iter().for_each(|pod| self.sim.part(*pod, 1));
        self.judge.parted = Some(self.sim.now);
        let healed = self.sim.now + Duration::from_millis(self.random.u64(3_000..=45_000));
        self.faults.later(healed, Fault::Heal);
    }

    pub(super) fn heal(&mut self) {
        if self.judge.parted.take().is_some() {
            self.tell(|_| "nobody is cut off".to_owned());
            (0..self.sim.hosts.len()).for_each(|host| self.sim.part(host, 0));
        }
    }

    /// Whoever has the data of one shard loses his disk.
    fn bereave(&mut self) {
        let owners: Vec<usize> = ours(&self.sim).filter(|at| self.sim.hosts[*at].server.own_slots() != 0).collect();
        let Some(primary) = self.random.choice(&owners).copied().filter(|_| !self.has_orphans()) else { return };
        let set: PieceSet = self.sim.hosts[primary].server.own_slots();
        let pieces: Vec<usize> = (0..self.sim.pieces.count()).filter(|piece| set & 1 << piece != 0).collect();
        self.judge.bereft |= set;
        self.tell(|_| "all copies of a shard are lost".to_owned());
        let holds = |at: &usize| pieces.iter().any(|piece| self.sim.hosts[*at].server.keys[*piece] > 0);
        for pod in ours(&self.sim).filter(holds).collect::<Vec<_>>() {
            self.down(pod);
            self.sim.lose_disk(pod);
            self.faults.later(self.sim.now + Duration::from_secs(1), Fault::Up(pod));
        }
    }

    fn come(&mut self, pod: usize) {
        if !self.setting.wanted().contains(&pod) || self.sim.zone.iter().any(|(host, _)| *host == pod) {
            return;
        }
        self.sim.zone.push((pod, Shown::Current));
        self.judge.wanted.push((pod, self.sim.now));
        self.up(pod);
    }

    /// The pods that are too many go, where they own nothing any more.
    fn leave(&mut self) {
        let leaving = self.setting.pods[self.setting.wanted().len()..].to_vec();
        // As `evacuate` says: they own no slots, and are nobody's primary.
        let is_busy = |pod: &usize| {
            let server = &self.sim.hosts[*pod].server;
            server.own_slots() != 0 || ours(&self.sim).any(|at| self.sim.hosts[at].server.follows == Some(server.id))
        };
        if !self.faults.reshaped || leaving.iter().any(is_busy) || self.has_orphans() {
            return;
        }
        for pod in leaving {
            if !self.sim.zone.iter().any(|(host, _)| *host == pod) {
                continue;
            }
            self.down(pod);
            self.sim.lose_disk(pod);
            self.sim.zone.retain(|(host, _)| *host != pod);
            self.judge.wanted.retain(|(host, _)| *host != pod);
            self.tell(|history| format!("{} goes", history.name(pod)));
        }
    }

    /// Whether everybody who is to go has gone.
    pub(super) fn all_have_left(&self) -> bool {
        self.judge.wanted.len() == self.setting.wanted().len()
    }

    fn reshape(&mut self, pod: usize) {
        let after = self.setting.after.clone();
        let own = self.keepers.iter_mut().find(|keeper| keeper.host == pod && keeper.desired != after);
        if let Some(keeper) = own {
            keeper.desired = after;
        }
    }

    pub(super) fn up(&mut self, pod: usize) {
        let is_shown = self.sim.zone.iter().any(|(host, _)| *host == pod);
        if self.sim.hosts[pod].is_up || !is_shown {
            return;
        }
        // The guard of `run`: 8.x elects nobody for a primary behind whose address another answers.
        if self.sim.hosts[pod].server.known.is_empty() && self.has_orphans() {
            self.faults.later(self.sim.now + Duration::from_millis(500), Fault::Up(pod));
            return;
        }
        self.sim.start(pod);
        self.tell(|history| format!("{} is up", history.name(pod)));
        let desired = if self.faults.reshaped { self.setting.after.clone() } else { self.setting.before.clone() };
        self.start_keeper(pod, desired);
    }

    fn down(&mut self, pod: usize) {
        self.keepers.retain(|keeper| keeper.host != pod);
        if self.sim.hosts[pod].is_up {
            self.sim.stop(pod);
        }
    }

    fn move_away(&mut self, pod: usize) {
        let before = self.sim.hosts[pod].address;
        self.sim.readdress(pod);
        if self.random.bool() {
            self.be_stale(pod, before);
        }
    }

    fn be_stale(&mut self, pod: usize, address: std::net::IpAddr) {
        self.show(pod, Shown::Other(address));
        self.tell_truth_later(pod);
    }

    fn tell_truth_later(&mut self, pod: usize) {
        let truth = self.sim.now + Duration::from_millis(self.random.u64(500..=30_000));
        self.faults.later(truth, Fault::Truth(pod));
    }

    fn show(&mut self, pod: usize, shown: Shown) {
        self.sim.zone.iter_mut().filter(|(host, _)| *host == pod).for_each(|entry| entry.1 = shown);
    }

    /// Whether a replica is the only one left of a shard whose primary lost its disk: until it is elected, nothing more
    /// happens, or data would be out of reach by Valkey's own rules.
    pub(super) fn has_orphans(&self) -> bool {
        let hosts = &self.sim.hosts;
        ours(&self.sim).any(|at| {
            let server = &hosts[at].server;
            let primary = server.follows.filter(|primary| server.slots_of(*primary) != 0);
            primary.is_some_and(|primary| !hosts.iter().any(|host| host.server.id == primary))
        })
    }

    fn may_stop(&self, pod: usize) -> bool {
        self.sim.hosts[pod].is_up && !self.has_orphans()
    }

    /// Whether the pod's disk holds nothing that is nowhere else, and whoever has it can take its place.
    fn may_lose(&self, pod: usize) -> bool {
        let hosts = &self.sim.hosts;
        let server = &hosts[pod].server;
        let at = |id| hosts.iter().find(|host| host.server.id == id);
        let owns = |id| at(id).is_some_and(|host| host.is_up && host.server.own_slots() != 0);
        let is_parted = self.judge.parted.is_some();
        match server.follows {
            Some(primary) => server.key_count() == 0 || (owns(primary) && !is_parted && server.synced.is_some()),
            None if server.own_slots() == 0 => server.key_count() == 0,
            None => {
                let follows = |at: usize| hosts[at].server.follows == Some(server.id);
                let has_copy = ours(&self.sim).any(|at| follows(at) && hosts[at].server.synced.is_some());
                let voters: Vec<usize> = ours(&self.sim).filter(|at| hosts[*at].server.own_slots() != 0).collect();
                let all_vote = voters.iter().all(|at| hosts[*at].is_up && hosts[*at].server.is_ok);
                let claimed = voters.iter().fold(0, |set, at| set | hosts[*at].server.own_slots());
                let is_whole = claimed == self.sim.pieces.all();
                has_copy && all_vote && is_whole && voters.len() > 2 && !is_parted
            }
        }
    }

    fn name(&self, pod: usize) -> String {
        name(&self.sim, pod)
    }
}
