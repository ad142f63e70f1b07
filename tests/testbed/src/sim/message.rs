//! Messages of the cluster bus, and the way they take.
//!
//! Each pair of servers has a distance of its own, so that what is sent over one link arrives in its order. A partition
//! swallows what crosses it.

use std::net::IpAddr;
use std::time::Duration;

use super::node::{Id, Part};
use super::pieces::PieceSet;
use super::roll::Place;
use super::{Due, Sim};

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Ping,
    Meet,
    /// The answer to either.
    Pong,
    /// A pong that nobody asked for: roles have changed.
    News,
    /// This node is down, says a majority.
    Fail(Id),
    /// These pieces belong to that node, under that epoch.
    Update(Id, u64, PieceSet),
    /// Votes are asked for.
    Ask,
    /// One is given, in that epoch.
    Vote(u64),
}

/// A message under way.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The process it is for.
    pub(super) generation: u32,
    /// The link that a ping goes out on and that its answer comes back on: the place and the serial of who asks.
    pub(super) link: Option<(Place, u64)>,
    pub(super) content: Content,
    pub(super) header: Header,
}

/// What every message says of its sender.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) id: Id,
    pub(super) address: IpAddr,
    pub(super) follows: Option<Id>,
    pub(super) config_epoch: u64,
    pub(super) current_epoch: u64,
    pub(super) slots: PieceSet,
    pub(super) gossip: Vec<Gossip>,
    /// Whom the sender was told to forget, and for how long the ban still stands.
    pub(super) forgotten: Vec<(Id, Duration)>,
}

/// What a message says of a third node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gossip {
    pub(super) id: Id,
    pub(super) address: IpAddr,
    pub(super) is_suspected: bool,
    pub(super) is_failed: bool,
    pub(super) role: Part,
}

impl Sim {
    /// Sends a message; over the link of that place where it is a ping or an answer to one.
    pub(super) fn post(&mut self, from: usize, to: usize, content: Content, link: Option<(Place, u64)>) {
        let has_gossip = matches!(content, Content::Ping | Content::Meet | Content::Pong | Content::News);
        let header = self.header(from, has_gossip);
        let message = Message { from, to, generation: self.hosts[to].generation, link, content, header };
        let due = self.now + self.distance(from, to);
        let letter = match self.free_mail.pop() {
            Some(place) => {
                self.mail[place] = Some(message);
                place
            }
            None => {
                self.mail.push(Some(message));
                self.mail.len() - 1
            }
        };
        self.schedule(due, Due::Mail(letter));
    }

    /// Sends a message to everybody that a server has a link to.
    pub(super) fn broadcast(&mut self, from: usize, content: Content) {
        for place in 0..self.hosts[from].server.known.places() {
            let link = self.hosts[from].server.known.at(place).and_then(|known| known.link);
            if let Some(link) = link.filter(|link| self.is_alive(*link)) {
                self.post(from, link.host, content, None);
            }
        }
    }

    /// A message arrives, unless its way or its receiver is gone.
    pub(super) fn deliver(&mut self, letter: usize) {
        let Some(message) = self.mail[letter].take() else { return };
        self.free_mail.push(letter);
        let receiver = &self.hosts[message.to];
        if !receiver.is_up || receiver.generation != message.generation {
            return;
        }
        if !self.can_talk(message.from, message.to) {
            self.swallow(&message);
            return;
        }
        match message.content {
            Content::Ping | Content::Meet => self.receive(&message),
            Content::Pong => self.receive_pong(&message),
            _ => self.receive_notice(&message),
        }
    }

    /// A partition has swallowed a ping or its answer: who asked will send it again.
    fn swallow(&mut self, message: &Message) {
        let asks = if message.content == Content::Pong { message.to } else { message.from };
        if let Some((place, serial)) = message.link
            && let Some(known) = self.hosts[asks].server.known.at_mut(place)
            && known.link.is_some_and(|link| link.serial == serial)
        {
            known.is_swallowed = true;
        }
    }

    /// How long a message takes from one server to another.
    fn distance(&self, from: usize, to: usize) -> Duration {
        let spread = (from * 7_919 + to * 104_729) % 16;
        self.latency * u32::try_from(spread + 1).unwrap_or(1) / 16
    }

    /// `clusterBuildMessageHdr` and the gossip of `clusterSendPing`: a tenth of all nodes and everybody suspected. Nobody
    /// is talked of who has neither a link nor slots.
    fn header(&mut self, from: usize, has_gossip: bool) -> Header {
        let now = self.now;
        let host = &self.hosts[from];
        let server = &host.server;
        let about = server.follows.unwrap_or(server.id);
        let mut gossip = Vec::new();
        let places = server.known.places();
        if has_gossip && places > 0 {
            let wanted = (places / 10).max(3).min(places);
            gossip.reserve(wanted + 2);
            for _ in 0..wanted * 3 {
                let Some(known) = server.known.at(self.random.usize(..places)) else { continue };
                let Some((id, address)) = known.id.zip(known.address) else { continue };
                let is_silent = known.link.is_none() && server.slots_of(id) == 0;
                if known.is_suspected || is_silent || gossip.iter().any(|about: &Gossip| about.id == id) {
                    continue;
                }
                gossip.push(Gossip {
                    id,
                    address,
                    is_suspected: false,
                    is_failed: known.failed.is_some(),
                    role: known.role,
                });
                if gossip.len() == wanted {
                    break;
                }
            }
            for known in server.known.iter().filter(|known| known.is_suspected) {
                if let Some((id, address)) = known.id.zip(known.address) {
                    gossip.push(Gossip { id, address, is_suspected: true, is_failed: false, role: known.role });
                }
            }
        }
        Header {
            id: server.id,
            address: host.address,
            follows: server.follows,
            config_epoch: server.epoch_of(about),
            current_epoch: server.current_epoch,
            slots: server.slots_of(about),
            gossip,
            forgotten: server.banned.iter().map(|(id, until)| (*id, until.saturating_sub(now))).collect(),
        }
    }
}
