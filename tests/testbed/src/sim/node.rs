//! What a simulated server is made of.

use std::net::IpAddr;
use std::time::Duration;

use valkeeper::topology::{PodName, Settings};

use super::elect::Campaign;
use super::pieces::PieceSet;
use super::roll::{Place, Roll};

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
    /// The name a process is found with, as if somebody had set it before it answered.
    pub mark: Option<Naming>,
    /// The server, or what its disk holds of it.
    pub server: Server,
    /// Counts the processes: a link ends with the process at its other end.
    pub(super) generation: u32,
    /// Which side of the partition it is on.
    pub(super) side: u8,
}

/// Who names a server before it answers.
#[derive(Clone, Debug)]
pub enum Naming {
    /// Somebody did so before the story began, and its next process comes up without a name.
    Once(String),
    /// Its `run` does so in every process.
    Always(String),
}

/// A server: what nodes.conf and the data files keep, and what only the process knows.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its id.
    pub id: Id,
    /// What it believes its own address to be.
    pub ip: Option<IpAddr>,
    /// Everybody else it knows of.
    pub known: Roll,
    /// The owner of each piece of the key space in its view.
    owners: Vec<Option<Id>>,
    /// The same by owner.
    holdings: Vec<PieceSet>,
    /// What its owner has said not to own any more, before anybody else was heard to (`owner_not_claiming_slot`).
    disclaimed: PieceSet,
    /// Its own epoch.
    pub config_epoch: u64,
    /// The highest epoch it has seen.
    pub current_epoch: u64,
    /// The epoch it voted in last.
    pub(super) voted: u64,
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
    /// When its link to a primary was last up, in this process.
    pub(super) linked: Option<Duration>,
    /// Its attempt to be elected.
    pub(super) campaign: Option<Campaign>,
    /// Whom it has been told to forget, and until when it hears nothing of him.
    pub(super) banned: Vec<(Id, Duration)>,
    pub(super) first_look: Option<Duration>,
    pub(super) among_minority: Option<Duration>,
    pub(super) ticks: u64,
    /// Counts what others could see a difference by.
    pub(super) changes: u64,
}

/// What a server knows of another.
#[derive(Clone, Debug)]
pub struct Known {
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
    /// A partition has swallowed a ping or its answer; TCP sends it again.
    pub(super) is_swallowed: bool,
    pub(super) born: Duration,
    pub(super) ping_sent: Option<Duration>,
    pub(super) pong: Duration,
    pub(super) heard: Duration,
    /// Until when no replica of it gets our vote again.
    pub(super) vote_given: Option<Duration>,
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
    /// Tells it from the link before it.
    pub(super) serial: u64,
}

impl Server {
    /// A server on an empty disk.
    pub(super) fn blank(id: Id, pieces: usize, settings: Settings) -> Self {
        Self {
            id,
            ip: None,
            known: Roll::default(),
            owners: vec![None; pieces],
            holdings: Vec::new(),
            disclaimed: 0,
            config_epoch: 0,
            current_epoch: 0,
            voted: 0,
            follows: None,
            keys: vec![0; pieces],
            name: String::new(),
            settings,
            is_ok: false,
            synced: None,
            sync_began: None,
            linked: None,
            campaign: None,
            banned: Vec::new(),
            first_look: None,
            among_minority: None,
            ticks: 0,
            changes: 0,
        }
    }

    /// The process ends: what only it knew is gone.
    pub(super) fn forget(&mut self, file: Settings, now: Duration) {
        self.known.restart(now);
        self.name.clear();
        self.settings = file;
        (self.is_ok, self.ticks) = (false, 0);
        (self.synced, self.sync_began, self.first_look, self.among_minority) = (None, None, None, None);
        (self.linked, self.campaign) = (None, None);
        self.banned.clear();
        self.disclaimed = 0;
        self.touch();
    }

    /// Somebody who looks would see a difference.
    pub(super) fn touch(&mut self) {
        self.changes += 1;
    }

    /// The owner of a piece in this server's view.
    pub fn owner(&self, piece: usize) -> Option<Id> {
        self.owners.get(piece).copied().flatten()
    }

    /// Says who owns a piece.
    pub(super) fn give(&mut self, piece: usize, to: Option<Id>) {
        let bit: PieceSet = 1 << piece;
        self.disclaimed &= !bit;
        if let Some(before) = std::mem::replace(&mut self.owners[piece], to) {
            self.holdings[before] &= !bit;
        }
        if let Some(id) = to {
            if self.holdings.len() <= id {
                self.holdings.resize(id + 1, 0);
            }
            self.holdings[id] |= bit;
        }
        self.touch();
    }

    /// Its owner claims these pieces, and none of the others that it owned.
    pub(super) fn hear_claim(&mut self, of: Id, claimed: PieceSet) {
        let held = self.slots_of(of);
        self.disclaimed = (self.disclaimed | held) & !(held & claimed);
    }

    /// Whether anybody may have a piece who claims it, whatever the epoch.
    pub(super) fn is_unclaimed(&self, piece: usize) -> bool {
        self.disclaimed & (1 << piece) != 0
    }

    /// Nobody owns what this node owned.
    pub(super) fn take_all_from(&mut self, id: Id) {
        let set = self.slots_of(id);
        (0..self.owners.len()).filter(|piece| set & 1 << piece != 0).for_each(|piece| self.give(piece, None));
    }

    /// The pieces that a node owns in this server's view.
    pub fn slots_of(&self, id: Id) -> PieceSet {
        self.holdings.get(id).copied().unwrap_or(0)
    }

    /// The pieces that it owns itself, by its own word.
    pub fn own_slots(&self) -> PieceSet {
        self.slots_of(self.id)
    }

    /// The pieces that have an owner.
    pub fn assigned(&self) -> PieceSet {
        self.holdings.iter().fold(0, |set, more| set | more)
    }

    /// How many keys it holds.
    pub fn key_count(&self) -> u64 {
        self.keys.iter().sum()
    }

    /// What it knows of a node.
    pub fn get(&self, id: Id) -> Option<&Known> {
        self.known.get(id)
    }

    /// Notes somebody new: by hearsay with the id, or to shake hands with.
    pub(super) fn note(&mut self, id: Option<Id>, address: IpAddr, role: Part, now: Duration) -> Place {
        self.touch();
        self.known.add(Known {
            id,
            address: Some(address),
            role,
            config_epoch: 0,
            is_suspected: false,
            failed: None,
            link: None,
            is_meet: false,
            is_swallowed: false,
            born: now,
            ping_sent: None,
            pong: now,
            heard: now,
            vote_given: None,
            reports: Vec::new(),
        })
    }

    /// Follows another primary, whose data it has not yet.
    pub(super) fn turn_to(&mut self, primary: Id) {
        self.follows = Some(primary);
        (self.synced, self.sync_began, self.linked, self.campaign) = (None, None, None, None);
        self.touch();
    }

    /// The epoch a node's slots stand under.
    pub(super) fn epoch_of(&self, id: Id) -> u64 {
        if id == self.id { self.config_epoch } else { self.get(id).map_or(0, |known| known.config_epoch) }
    }

    /// How many primaries own slots in this view, and how many of them are thought reachable.
    pub(super) fn voters(&self) -> (usize, usize) {
        let own = usize::from(self.is_voter());
        let (mut size, mut reachable) = (own, own);
        for known in self.known.iter() {
            if known.role == Part::Primary && known.id.is_some_and(|id| self.slots_of(id) != 0) {
                size += 1;
                reachable += usize::from(!known.is_lost());
            }
        }
        (size, reachable)
    }

    pub(super) fn is_voter(&self) -> bool {
        self.follows.is_none() && self.own_slots() != 0
    }

    /// Whether gossip about this node is to be passed over.
    pub(super) fn has_banned(&self, id: Id, now: Duration) -> bool {
        self.banned.iter().any(|(other, until)| *other == id && now < *until)
    }
}

impl Known {
    /// Whether it is flagged in any degree.
    pub fn is_lost(&self) -> bool {
        self.is_suspected || self.failed.is_some()
    }

    /// Gives it another address; the link to the old one ends.
    pub(super) fn move_to(&mut self, address: IpAddr) -> bool {
        let moves = self.address != Some(address);
        if moves {
            self.address = Some(address);
            self.link = None;
        }
        moves
    }

    /// The process that knew it is another now.
    pub(super) fn restart(&mut self, now: Duration) {
        (self.link, self.ping_sent, self.vote_given) = (None, None, None);
        (self.is_meet, self.is_swallowed) = (false, false);
        self.reports.clear();
        (self.pong, self.heard) = (now, now);
    }
}
