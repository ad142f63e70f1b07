//! One shard, small enough to be looked through: node 0 leaves, the others are its replicas.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use valkeeper::topology::budget::Budget;
use valkeeper::topology::drain::{Drain, DrainPolicy, DrainReport, Peer, SavePolicy, Seen, Step, Verdict};
use valkeeper::topology::order::Order;
use valkeeper::topology::parse::{self, ReplicaLink, Replication};
use valkeeper::topology::server::{ClusterView, Persistence, Saving, ServerReport};
use valkeeper::topology::{Label, NodeId, Silence, View};

/// Nobody needs so many; more is a machine that runs hot.
const MOST_STEPS: usize = 20_000;

pub(crate) struct World {
    pub(crate) drain: Drain,
    pub(crate) budget: Budget,
    pub(crate) now: Duration,
    /// What is seen of the node itself, and of each of its peers, from node 1 on.
    pub(crate) own: Result<ServerReport, Silence>,
    pub(crate) peers: Vec<Result<ServerReport, Silence>>,
    /// Who owns the shard's slots.
    pub(crate) primary: usize,
    /// How long a replica takes to take over; none for one that never does.
    pub(crate) handover_takes: Option<Duration>,
    pub(crate) save_takes: Duration,
    pub(crate) failing_saves: u32,
    /// Orders that are not taken, and why.
    pub(crate) refuses: fn(Order) -> Option<&'static str>,
    pub(crate) paused_until: Option<Duration>,
    pub(crate) steps: Vec<(Duration, Step)>,
    /// How long after a handover its former primary follows, and the heir knows.
    pub(crate) link_takes: Duration,
    pub(crate) word_takes: Duration,
    taking_over: Option<(usize, Duration)>,
    promoted: Duration,
    /// When the child ends, and the writes it saves, if it saves any.
    child: Option<(Duration, Option<u64>)>,
}

pub(crate) fn id(node: usize) -> NodeId {
    NodeId::parse(&format!("{node:040x}")).unwrap()
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What node `me` says where `primary` is primary.
fn report(me: usize, primary: usize, members: usize) -> ServerReport {
    let link = ReplicaLink { up: true, syncing: false, last_heard: Some(secs(0)), down_for: None };
    ServerReport {
        version: None,
        run_id: "1".to_owned(),
        uptime: secs(100),
        loading: None,
        replication: Replication { link: (me != primary).then_some(link), offset: 1000 },
        persistence: Persistence { changes: 7, last_save_ok: true, last_save: secs(1_000), ..Persistence::default() },
        keys: 42,
        cluster: Some(view(me, primary, members)),
        leaving: false,
        guards_writes: true,
        migrations: 0,
    }
}

fn view(me: usize, primary: usize, members: usize) -> ClusterView {
    let text = lines(me, primary, members);
    ClusterView { view: View::new(parse::nodes(&text).unwrap()).unwrap(), ok: true }
}

/// CLUSTER NODES of node `me`.
fn lines(me: usize, primary: usize, members: usize) -> String {
    let line = |node: usize| {
        let myself = if node == me { "myself," } else { "" };
        let (role, slots) = match node == primary {
            true => ("master -".to_owned(), "0-16383"),
            false => (format!("slave {}", id(primary)), ""),
        };
        let address = format!("10.0.0.{}:6379@16379,valkey-{node}.svc", node + 1);
        format!("{} {address} {myself}{role} 0 0 1 connected {slots}\n", id(node))
    };
    (0..members).map(line).collect()
}

impl World {
    /// Node 0 is primary, and has so many replicas.
    pub(crate) fn new(replicas: usize, save: SavePolicy, grace: u64) -> Self {
        let budget = Budget::split(secs(grace), Duration::ZERO).unwrap();
        let policy = DrainPolicy { cluster: true, save, budget, stop: true };
        Self {
            drain: Drain::new(policy),
            budget,
            now: Duration::ZERO,
            own: Ok(report(0, 0, replicas + 1)),
            peers: (1..=replicas).map(|node| Ok(report(node, 0, replicas + 1))).collect(),
            primary: 0,
            handover_takes: Some(ms(50)),
            save_takes: secs(1),
            failing_saves: 0,
            refuses: |_| None,
            paused_until: None,
            steps: Vec::new(),
            link_takes: Duration::ZERO,
            word_takes: Duration::ZERO,
            taking_over: None,
            promoted: Duration::ZERO,
            child: None,
        }
    }

    /// A server on its own.
    pub(crate) fn standalone(save: SavePolicy) -> Self {
        let mut world = Self::new(0, save, 30);
        world.own().cluster = None;
        world.drain = Drain::new(DrainPolicy { cluster: false, save, budget: world.budget, stop: true });
        world
    }

    pub(crate) fn own(&mut self) -> &mut ServerReport {
        self.own.as_mut().unwrap()
    }

    pub(crate) fn disk(&mut self) -> &mut Persistence {
        &mut self.own().persistence
    }

    pub(crate) fn peer(&mut self, node: usize) -> &mut ServerReport {
        self.peers[node - 1].as_mut().unwrap()
    }

    /// The node's own bus link to another one is up, or not.
    pub(crate) fn link(&mut self, node: usize, up: bool) {
        let text = lines(0, 0, self.peers.len() + 1);
        let cut = |line: &str| {
            if !up && line.starts_with(&id(node).to_string()) {
                line.replace(" connected ", " disconnected ")
            } else {
                line.to_owned()
            }
        };
        let text: String = text.lines().map(|line| cut(line) + "\n").collect();
        self.own().cluster = Some(ClusterView { view: View::new(parse::nodes(&text).unwrap()).unwrap(), ok: true });
    }

    /// Makes a node the primary, in everybody's eyes once the word has spread.
    pub(crate) fn promote(&mut self, primary: usize) {
        (self.primary, self.promoted) = (primary, self.now);
        self.spread();
    }

    fn spread(&mut self) {
        let (primary, members, since) = (self.primary, self.peers.len() + 1, self.now - self.promoted);
        for (node, report) in [&mut self.own].into_iter().chain(&mut self.peers).enumerate() {
            let Ok(report) = report else { continue };
            if report.cluster.is_none() || (node > 0 && since < self.word_takes) {
                continue;
            }
            let link =
                ReplicaLink { up: since >= self.link_takes, syncing: false, last_heard: Some(secs(0)), down_for: None };
            report.replication.link = (node != primary).then_some(link);
            report.cluster = Some(view(node, primary, members));
        }
    }

    /// Drains to the end, and tells `meddle` of every step before it is done.
    pub(crate) fn play(&mut self, mut meddle: impl FnMut(&mut Self, &Step)) -> DrainReport {
        loop {
            let seen = self.seen();
            let step = self.drain.next(self.now, &seen);
            self.steps.push((self.now, step.clone()));
            assert!(self.steps.len() < MOST_STEPS, "it runs hot: {:#?}", &self.steps[MOST_STEPS - 20..]);
            meddle(self, &step);
            match step {
                Step::Own(order) => self.told(0, order),
                Step::Peer(node, order) => {
                    let node = (0..=self.peers.len()).find(|number| id(*number) == node).unwrap();
                    self.told(node, order);
                }
                Step::Wait(_, time) => self.pass(time),
                Step::Done => return self.drain.report(self.now),
            }
        }
    }

    pub(crate) fn end(&mut self) -> DrainReport {
        self.play(|_, _| {})
    }

    /// When each order was given, in order.
    pub(crate) fn orders(&self) -> Vec<(Duration, Order)> {
        let order = |step: &Step| match step {
            Step::Own(order) | Step::Peer(_, order) => Some(*order),
            _ => None,
        };
        self.steps.iter().filter_map(|(at, step)| Some((*at, order(step)?))).collect()
    }

    pub(crate) fn count(&self, wanted: Order) -> usize {
        self.orders().iter().filter(|(_, order)| *order == wanted).count()
    }

    /// When an order was first given.
    pub(crate) fn first(&self, wanted: Order) -> Duration {
        self.orders().into_iter().find(|(_, order)| *order == wanted).expect("the order").0
    }

    /// Whom the drain asked to take over, and when.
    pub(crate) fn asked(&self) -> Vec<(Duration, NodeId)> {
        let asked = self.steps.iter().filter_map(|(at, step)| match step {
            Step::Peer(node, Order::TakeOver) => Some((*at, *node)),
            _ => None,
        });
        asked.collect()
    }

    /// Whether it waited with a sentence that holds this text.
    pub(crate) fn said(&self, text: &str) -> bool {
        self.steps.iter().any(|(_, step)| matches!(step, Step::Wait(waiting, _) if waiting.to_string().contains(text)))
    }

    pub(crate) fn is_clean(&self) -> bool {
        *self.drain.verdict() == Verdict::Clean
    }

    /// A save, or a copy to a replica, that somebody else begins.
    pub(crate) fn begin_child(&mut self, takes: Duration, to_disk: bool) {
        let (now, changes) = (self.now, self.disk().changes);
        self.disk().saving = Some(Saving { keys: 0, total: 100, elapsed: Duration::ZERO });
        self.disk().saves += u64::from(to_disk);
        self.child = Some((now + takes, to_disk.then_some(changes)));
    }

    /// As BGSAVE CANCEL and a full sync do: it was counted, and the last status stays.
    pub(crate) fn cut_off(&mut self) {
        self.disk().saving = None;
        self.child = None;
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        if let Some((heir, _)) = self.taking_over.filter(|(_, at)| now >= *at) {
            self.taking_over = None;
            self.promote(heir);
        }
        if self.link_takes + self.word_takes > Duration::ZERO && self.promoted > Duration::ZERO {
            self.spread();
        }
        let (Ok(own), Some((until, saves))) = (&mut self.own, self.child) else { return };
        let disk = &mut own.persistence;
        if now < until {
            if let Some(saving) = &mut disk.saving {
                let left = (until - now).as_secs_f64() / self.save_takes.as_secs_f64().max(0.001);
                saving.keys = 100 - (100.0 * left.min(1.0)) as u64;
                saving.elapsed += time;
            }
            return;
        }
        (self.child, disk.saving) = (None, None);
        match saves {
            Some(_) if self.failing_saves > 0 => {
                self.failing_saves -= 1;
                disk.last_save_ok = false;
            }
            Some(changes) => {
                disk.changes -= changes.min(disk.changes);
                (disk.last_save_ok, disk.last_save) = (true, secs(1_001 + now.as_secs()));
            }
            None => {}
        }
    }

    fn seen(&self) -> Seen {
        let asks: Vec<NodeId> = match &self.own {
            Ok(own) => self.drain.asks(own).into_iter().map(|entry| entry.id).collect(),
            Err(_) => Vec::new(),
        };
        let peers = self.peers.iter().enumerate().map(|(index, answer)| {
            let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(index + 2).unwrap()));
            let label = Label { pod: None, address: SocketAddr::new(address, 6379) };
            Peer { id: id(index + 1), label, answer: answer.clone() }
        });
        Seen { own: self.own.clone(), peers: peers.filter(|peer| asks.contains(&peer.id)).collect() }
    }

    fn told(&mut self, node: usize, order: Order) {
        let answer = match ((self.refuses)(order), &self.own) {
            (Some(why), _) => Err(why.to_owned()),
            (None, Err(silence)) if node == 0 => Err(silence.to_string()),
            (None, _) => self.obey(node, order),
        };
        self.drain.answered(self.now, order, answer);
        self.pass(ms(1));
    }

    fn obey(&mut self, node: usize, order: Order) -> Result<(), String> {
        let now = self.now;
        match order {
            Order::TakeOver => self.taking_over = self.handover_takes.map(|takes| (node, now + takes)),
            Order::MarkLeaving => self.own().leaving = true,
            Order::CancelMigrations => self.own().migrations = 0,
            Order::PauseWrites(time) => self.paused_until = Some(now + time),
            Order::ResumeWrites => self.paused_until = None,
            Order::GuardWrites(guard) => self.own().guards_writes = guard,
            Order::Save if self.disk().saving.is_some() => return Err("Background save already in progress".to_owned()),
            Order::Save if self.disk().other_child => return Err("Another child process is active".to_owned()),
            Order::Save => self.begin_child(self.save_takes, true),
            Order::Shutdown { .. } => self.own = Err(Silence::Refused),
            _ => {}
        }
        Ok(())
    }
}
