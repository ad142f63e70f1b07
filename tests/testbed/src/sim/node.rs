//! What a simulated server is made of.

use std::net::IpAddr;
use std::time::Duration;

use valkeeper::topology::{PodName, Settings};

use super::pieces::PieceSet;

/// A node id, as a number that [`super::Sim`] turns into forty digits.
pub type Id = usize;

/// A pod: a disk, an address and a server that is up or not.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, where DNS gives pods one.
    pub pod: Option<PodName>,
    /// Where it answers while it is up.
    pub address: IpAddr,
    /// Whether it belongs to somebody else's cluster.
    pub is_foreign: bool,
    /// Whether the process runs.
    pub is_up: bool,
    /// What the configuration file says.
    pub file: Settings,
    /// The name its first process is found with, as if somebody had set it before the story began.
    pub(super) mark: Option<String>,
    /// The server, or what its disk holds of it.
    pub server: Server,
    /// Counts the processes: a link ends with the process at its other end.
    pub(super) generation: u32,
    /// Which side of the partition it is on.
    pub(super) side: u8,
    /// When its next cron tick is due.
    pub(super) next_tick: Duration,
}

/// A server: what nodes.conf and the data files keep, and what only the process knows.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its id.
    pub id: Id,
    /// What it believes its own address to be.
    pub ip: Option<IpAddr>,
    /// Everybody else it knows of.
    pub known: Vec<Known>,
    /// The owner of each piece of the key space in its view.
    pub owners: Vec<Option<Id>>,
    /// Its own epoch.
    pub config_epoch: u64,
    /// The highest epoch it has seen.
    pub current_epoch: u64,
    /// Its primary, where it is a replica.
    pub follows: Option<Id>,
    /// How many keys it holds in each piece.
    pub keys: Vec<u64>,
    /// Its human node name.
    pub name: String,
    /// Its settings as they are now.
    pub settings: Settings,
    /// `cluster_state:ok`.
    pub is_ok: bool,
    /// Its link to its primary: up since then.
    pub synced: Option<Duration>,
    pub(super) sync_began: Option<Duration>,
    pub(super) first_look: Option<Duration>,
    pub(super) among_minority: Option<Duration>,
    pub(super) ticks: u64,
    pub(super) next_key: u32,
}

/// What a server knows of another.
#[derive(Clone, Debug)]
pub struct Known {
    /// Names the entry while it has no id.
    pub(super) key: u32,
    /// Who it is; none while the handshake lasts.
    pub id: Option<Id>,
    /// Where it is thought to answer; none after somebody else answered there.
    pub address: Option<IpAddr>,
    /// Its role.
    pub role: Part,
    /// Its epoch.
    pub config_epoch: u64,
    /// `fail?`.
    pub is_suspected: bool,
    /// `fail`, since then.
    pub failed: Option<Duration>,
    /// The bus link to it.
    pub(super) link: Option<Link>,
    pub(super) is_meet: bool,
    pub(super) born: Duration,
    pub(super) ping_sent: Option<Duration>,
    pub(super) pong: Duration,
    pub(super) heard: Duration,
    pub(super) reports: Vec<(Id, Duration)>,
}

/// A role as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A primary.
    Primary,
    /// A replica of that node, where the observer knows of whom.
    Replica(Option<Id>),
}

/// One end of a connection to a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) host: usize,
    pub(super) generation: u32,
    pub(super) made: Duration,
}

/// A bus message without its type.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) id: Id,
    pub(super) address: IpAddr,
    pub(super) follows: Option<Id>,
    pub(super) config_epoch: u64,
    pub(super) current_epoch: u64,
    pub(super) slots: PieceSet,
    pub(super) gossip: Vec<Gossip>,
}

/// What a message says of a third node.
#[derive(Clone, Debug)]
pub(super) struct Gossip {
    pub(super) id: Id,
    pub(super) address: IpAddr,
    pub(super) is_lost: bool,
    pub(super) role: Part,
}

impl Server {
    /// A server on an empty disk.
    pub(super) fn blank(id: Id, pieces: usize, settings: Settings) -> Self {
        Self {
            id,
            ip: None,
            known: Vec::new(),
            owners: vec![None; pieces],
            config_epoch: 0,
            current_epoch: 0,
            follows: None,
            keys: vec![0; pieces],
            name: String::new(),
            settings,
            is_ok: false,
            synced: None,
            sync_began: None,
            first_look: None,
            among_minority: None,
            ticks: 0,
            next_key: 0,
        }
    }

    /// The process ends: what only it knew is gone.
    pub(super) fn forget(&mut self, file: Settings, now: Duration) {
        self.known.retain(|known| known.id.is_some());
        for known in &mut self.known {
            known.link = None;
            known.is_meet = false;
            known.ping_sent = None;
            known.reports.clear();
            (known.pong, known.heard) = (now, now);
        }
        self.name.clear();
        self.settings = file;
        (self.is_ok, self.ticks) = (false, 0);
        (self.synced, self.sync_began, self.first_look, self.among_minority) = (None, None, None, None);
    }

    /// The pieces that a node owns in this server's view.
    pub fn slots_of(&self, id: Id) -> PieceSet {
        let mine = |owner: &Option<Id>| *owner == Some(id);
        self.owners.iter().enumerate().filter(|(_, owner)| mine(owner)).fold(0, |set, (piece, _)| set | 1 << piece)
    }

    /// The pieces that it owns itself, by its own word.
    pub fn own_slots(&self) -> PieceSet {
        self.slots_of(self.id)
    }

    /// How many keys it holds.
    pub fn key_count(&self) -> u64 {
        self.keys.iter().sum()
    }

    /// What it knows of a node.
    pub fn get(&self, id: Id) -> Option<&Known> {
        self.known.iter().find(|known| known.id == Some(id))
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.id == Some(id))
    }

    pub(super) fn by_key(&mut self, key: u32) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.key == key)
    }

    /// Notes somebody new: by hearsay with the id, or to shake hands with.
    pub(super) fn note(&mut self, id: Option<Id>, address: IpAddr, role: Part, now: Duration) -> &mut Known {
        self.next_key += 1;
        self.known.push(Known {
            key: self.next_key,
            id,
            address: Some(address),
            role,
            config_epoch: 0,
            is_suspected: false,
            failed: None,
            link: None,
            is_meet: false,
            born: now,
            ping_sent: None,
            pong: now,
            heard: now,
            reports: Vec::new(),
        });
        let last = self.known.len() - 1;
        &mut self.known[last]
    }

    /// The epoch a node's slots stand under.
    pub(super) fn epoch_of(&self, id: Id) -> u64 {
        if id == self.id { self.config_epoch } else { self.get(id).map_or(0, |known| known.config_epoch) }
    }

    /// How many primaries own slots in this view, and how many of them are thought reachable.
    pub(super) fn voters(&self) -> (usize, usize) {
        let voting =
            |known: &&Known| known.role == Part::Primary && known.id.is_some_and(|id| self.owners.contains(&Some(id)));
        let own = usize::from(self.is_voter());
        let others = self.known.iter().filter(voting).count();
        let reachable = self.known.iter().filter(voting).filter(|known| !known.is_lost()).count();
        (own + others, own + reachable)
    }

    pub(super) fn is_voter(&self) -> bool {
        self.follows.is_none() && self.owners.contains(&Some(self.id))
    }
}

impl Known {
    /// Whether it is flagged in any degree.
    pub fn is_lost(&self) -> bool {
        self.is_suspected || self.failed.is_some()
    }

    /// Gives it another address; the link to the old one ends.
    pub(super) fn move_to(&mut self, address: IpAddr) {
        if self.address != Some(address) {
            self.address = Some(address);
            self.link = None;
        }
    }
}
