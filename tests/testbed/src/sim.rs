//! A deterministic model of valkey-servers on a cluster bus: virtual time, a seed, no threads, no clock, no hash order.
//!
//! What a server does is modelled after its `cluster_legacy.c`, as far as forming and keeping a cluster can tell:
//! handshakes, gossip, epochs and their collisions, slot conflicts, failure detection, elections, FORGET and its ban, the
//! delays before a primary says ok, replicas that copy. Messages take their time. Every process remembers what a
//! nodes.conf holds.
//!
//! Left out: ranks among the replicas of one primary, replicas that move to orphaned primaries by themselves, offsets and
//! partial copies (a copy is whole or none), half-open connections (a dead process is noticed at the next tick, and a link
//! to an address where nobody answers does not come up), and everything about slots that are under way.

pub mod bootstrap;
mod bus;
mod command;
mod copy;
mod elect;
mod form;
pub mod history;
pub mod keeper;
pub mod keeping;
mod learn;
pub mod lookout;
mod message;
mod migrate;
mod node;
mod observe;
mod pieces;
mod roll;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fastrand::Rng;
use valkeeper::topology::{NodeId, PodName, Settings};

pub use node::{Host, Id, Known, Naming, Part, Server};
pub use pieces::{PieceSet, Pieces};
pub use roll::Roll;

use message::Message;
use node::Link;

const PORT: u16 = 6379;
const BUS_PORT: u16 = 16379;
const FIRST_ADDRESS: u32 = 0x0a00_0000;

/// Every server there is, and what DNS says of them.
#[derive(Clone, Debug)]
pub struct Sim {
    /// The time since the beginning.
    pub now: Duration,
    /// The pods, our own and others'.
    pub hosts: Vec<Host>,
    /// How the key space is cut.
    pub pieces: Pieces,
    /// What DNS says: of which pod, and where it is.
    pub zone: Vec<(usize, Shown)>,
    /// How long a message takes between the two servers that are furthest apart.
    pub latency: Duration,
    random: Rng,
    ids: Vec<NodeId>,
    /// Who answers at each address that was ever given.
    residents: Vec<Option<usize>>,
    next_link: u64,
    /// From 9.1 on a node behind whose address another answers is failed at once.
    noaddr_is_fail: bool,
    mail: Vec<Option<Message>>,
    free_mail: Vec<usize>,
    due: BinaryHeap<Reverse<(Duration, u64, Due)>>,
    scheduled: u64,
}

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The cron of a process.
    Tick(usize, u32),
    /// A message arrives.
    Mail(usize),
}

/// What DNS says of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Where it is.
    Current,
    /// Where it was, or where somebody else is.
    Other(IpAddr),
    /// That there is no such name.
    Nothing,
}

impl Sim {
    /// A world without anybody in it.
    pub fn new(seed: u64, pieces: Pieces) -> Self {
        let mut random = Rng::with_seed(seed);
        let noaddr_is_fail = random.bool();
        Self {
            now: Duration::ZERO,
            hosts: Vec::new(),
            pieces,
            zone: Vec::new(),
            latency: Duration::from_millis(random.u64(1..=12)),
            random,
            ids: Vec::new(),
            residents: Vec::new(),
            next_link: 0,
            noaddr_is_fail,
            mail: Vec::new(),
            free_mail: Vec::new(),
            due: BinaryHeap::new(),
            scheduled: 0,
        }
    }

    /// Adds a pod whose server is not started yet, and has DNS show it or not; gives its place in `hosts`.
    pub fn add(&mut self, pod: Option<PodName>, file: Settings, is_foreign: bool) -> usize {
        let address = self.new_address();
        let server = Server::blank(self.new_id(), self.pieces.count(), file);
        let (is_up, generation, side) = (false, 0, 0);
        self.hosts.push(Host { pod, address, is_foreign, is_up, file, mark: None, server, generation, side });
        self.hosts.len() - 1
    }

    /// Starts the server of a pod; it remembers what is on its disk.
    pub fn start(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.is_up = true;
        host.generation += 1;
        host.server.touch();
        let name = match &host.mark {
            Some(Naming::Once(name) | Naming::Always(name)) => name.clone(),
            None => String::new(),
        };
        host.server.name = name;
        if matches!(host.mark, Some(Naming::Once(_))) {
            host.mark = None;
        }
        let (address, generation) = (host.address, host.generation);
        if let Some(resident) = self.residents.get_mut(number(address)) {
            *resident = Some(at);
        }
        let first = self.now + Duration::from_millis(self.random.u64(1..=100));
        self.schedule(first, Due::Tick(at, generation));
    }

    /// Ends the server of a pod. Its data and its nodes.conf stay, its settings and its name do not.
    pub fn stop(&mut self, at: usize) {
        let now = self.now;
        let host = &mut self.hosts[at];
        host.is_up = false;
        host.server.forget(host.file, now);
        let address = host.address;
        if let Some(resident) = self.residents.get_mut(number(address)).filter(|resident| **resident == Some(at)) {
            *resident = None;
        }
    }

    /// Gives a pod whose server is down an address nobody had before.
    pub fn readdress(&mut self, at: usize) {
        let address = self.new_address();
        self.settle(at, address);
    }

    /// Gives a pod whose server is down this address, where nobody else answers.
    pub fn settle(&mut self, at: usize, address: IpAddr) {
        self.hosts[at].address = address;
    }

    /// Empties the disk of a pod whose server is down.
    pub fn lose_disk(&mut self, at: usize) {
        self.hosts[at].server = Server::blank(self.new_id(), self.pieces.count(), self.hosts[at].file);
    }

    /// Who is on which side of the partition; all on one side is none.
    pub fn part(&mut self, at: usize, side: u8) {
        self.hosts[at].side = side;
    }

    /// Lets time pass.
    pub fn run_until(&mut self, then: Duration) {
        while let Some(Reverse((due, _, what))) = self.due.peek().copied().filter(|Reverse((due, ..))| *due <= then) {
            self.due.pop();
            self.now = due;
            match what {
                Due::Tick(at, generation) => self.tick(at, generation),
                Due::Mail(letter) => self.deliver(letter),
            }
        }
        self.now = then;
    }

    /// The digits of an id.
    pub fn node_id(&self, id: Id) -> NodeId {
        self.ids[id]
    }

    /// The server that answers at an address.
    pub fn answering(&self, address: IpAddr) -> Option<usize> {
        self.residents.get(number(address)).copied().flatten()
    }

    /// A number between 0 and 1.
    fn chance(&mut self) -> f64 {
        self.random.f64()
    }

    fn schedule(&mut self, when: Duration, what: Due) {
        self.scheduled += 1;
        self.due.push(Reverse((when, self.scheduled, what)));
    }

    fn can_talk(&self, one: usize, other: usize) -> bool {
        self.hosts[one].side == self.hosts[other].side
    }

    fn is_alive(&self, link: Link) -> bool {
        let host = &self.hosts[link.host];
        host.is_up && host.generation == link.generation
    }

    fn new_address(&mut self) -> IpAddr {
        self.residents.push(None);
        let number = u32::try_from(self.residents.len()).unwrap_or(u32::MAX);
        IpAddr::V4(Ipv4Addr::from_bits(FIRST_ADDRESS + number))
    }

    fn new_id(&mut self) -> Id {
        let digits = format!("{:016x}{:016x}{:08x}", self.random.u64(..), self.random.u64(..), self.random.u32(..));
        self.ids.push(NodeId::parse(&digits).expect("forty digits"));
        self.ids.len() - 1
    }
}

/// The place of an address among those that were ever given.
fn number(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => (address.to_bits().wrapping_sub(FIRST_ADDRESS + 1)) as usize,
        IpAddr::V6(_) => usize::MAX,
    }
}
