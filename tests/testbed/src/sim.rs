//! A deterministic model of valkey-servers on a cluster bus: virtual time, a seed, no threads, no clock, no hash order.
//!
//! What a server does is modelled after its `cluster_legacy.c`, as far as forming a cluster can tell: handshakes, gossip,
//! epochs and their collisions, slot conflicts, failure detection, the delays before a primary says ok, replicas that
//! copy. Left out are automatic failover and moving slots. Every process remembers what a nodes.conf holds.

pub mod bootstrap;
mod bus;
mod command;
mod form;
pub mod history;
mod learn;
mod node;
mod observe;
mod pieces;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fastrand::Rng;
use valkeeper::topology::{NodeId, PodName, Settings};

pub use node::{Host, Id, Known, Part, Server};
pub use pieces::{PieceSet, Pieces};

use node::Link;

const PORT: u16 = 6379;
const BUS_PORT: u16 = 16379;

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
    random: Rng,
    ids: Vec<NodeId>,
    next_address: u32,
    /// From 9.1 on a node behind whose address another answers is failed at once.
    noaddr_is_fail: bool,
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
            random,
            ids: Vec::new(),
            next_address: 0,
            noaddr_is_fail,
        }
    }

    /// Adds a pod whose server is not started yet, and has DNS show it or not; gives its place in `hosts`.
    pub fn add(&mut self, pod: Option<PodName>, file: Settings, is_foreign: bool) -> usize {
        let address = self.new_address();
        let server = Server::blank(self.new_id(), self.pieces.count(), file);
        let next_tick = Duration::ZERO;
        let (is_up, generation, side) = (false, 0, 0);
        self.hosts.push(Host {
            pod,
            address,
            is_foreign,
            is_up,
            file,
            mark: None,
            server,
            generation,
            side,
            next_tick,
        });
        self.hosts.len() - 1
    }

    /// Starts the server of a pod; it remembers what is on its disk.
    pub fn start(&mut self, at: usize) {
        self.hosts[at].is_up = true;
        self.hosts[at].server.name = self.hosts[at].mark.take().unwrap_or_default();
        self.hosts[at].generation += 1;
        self.hosts[at].next_tick = self.now + Duration::from_millis(self.random.u64(1..=100));
    }

    /// Ends the server of a pod. Its data and its nodes.conf stay, its settings and its name do not.
    pub fn stop(&mut self, at: usize) {
        let now = self.now;
        let host = &mut self.hosts[at];
        host.is_up = false;
        host.server.forget(host.file, now);
    }

    /// Gives a pod whose server is down an address nobody had before.
    pub fn readdress(&mut self, at: usize) {
        self.hosts[at].address = self.new_address();
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
        while let Some((due, at)) = self.next_tick().filter(|(due, _)| *due <= then) {
            self.now = due;
            self.hosts[at].next_tick = due + bus::TICK;
            self.tick(at);
        }
        self.now = then;
    }

    /// The digits of an id.
    pub fn node_id(&self, id: Id) -> NodeId {
        self.ids[id]
    }

    /// The server that answers at an address.
    pub fn answering(&self, address: IpAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.is_up && host.address == address)
    }

    fn next_tick(&self) -> Option<(Duration, usize)> {
        let up = self.hosts.iter().enumerate().filter(|(_, host)| host.is_up);
        up.map(|(at, host)| (host.next_tick, at)).min()
    }

    fn can_talk(&self, one: usize, other: usize) -> bool {
        self.hosts[one].side == self.hosts[other].side
    }

    fn is_alive(&self, link: Link) -> bool {
        let host = &self.hosts[link.host];
        host.is_up && host.generation == link.generation
    }

    fn new_address(&mut self) -> IpAddr {
        self.next_address += 1;
        IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + self.next_address))
    }

    fn new_id(&mut self) -> Id {
        let digits = format!("{:016x}{:016x}{:08x}", self.random.u64(..), self.random.u64(..), self.random.u32(..));
        self.ids.push(NodeId::parse(&digits).expect("forty digits"));
        self.ids.len() - 1
    }
}
