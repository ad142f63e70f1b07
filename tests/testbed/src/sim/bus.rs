//! The cluster bus: cron ticks, connections, pings and what failure detection makes of them.
//!
//! Mirrors `clusterCron`, `clusterProcessPacket` and their helpers in the server's `cluster_legacy.c`.

use std::time::Duration;

use super::message::{Content, Message};
use super::node::{Id, Known, Link, Part};
use super::roll::Place;
use super::{Due, Sim};

/// How often a server's cron runs.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// What the cron does about one other node.
enum Care {
    Nothing,
    /// The handshake has taken too long.
    Remove,
    Connect,
    Disconnect,
    Ping,
    Suspect,
}

impl Sim {
    /// `clusterCron` of one server, if the process still runs.
    pub(super) fn tick(&mut self, at: usize, generation: u32) {
        if !self.hosts[at].is_up || self.hosts[at].generation != generation {
            return;
        }
        self.schedule(self.now + TICK, Due::Tick(at, generation));
        let server = &mut self.hosts[at].server;
        server.ticks += 1;
        let is_turn = server.ticks.is_multiple_of(10);
        for place in 0..server.known.places() {
            self.look_after(at, place);
        }
        if is_turn {
            self.ping_somebody(at);
            self.hosts[at].server.banned.retain(|(_, until)| *until > self.now);
        }
        self.follow(at);
        self.stand_for_election(at);
        if !self.hosts[at].server.is_ok {
            self.update_state(at);
        }
    }

    fn look_after(&mut self, at: usize, place: Place) {
        let Some(known) = self.hosts[at].server.known.at(place) else { return };
        match self.care(at, known) {
            Care::Nothing => {}
            Care::Remove => {
                self.hosts[at].server.known.remove(place);
                self.hosts[at].server.touch();
            }
            Care::Connect => self.connect(at, place),
            Care::Disconnect => self.with(at, place, |known| known.link = None),
            Care::Ping => self.ping(at, place, Content::Ping),
            Care::Suspect => {
                let id = known.id;
                self.with(at, place, |known| known.is_suspected = true);
                if let Some(id) = id.filter(|_| self.hosts[at].server.is_voter()) {
                    self.mark_failing(at, id);
                }
                self.update_state(at);
            }
        }
    }

    fn care(&self, at: usize, known: &Known) -> Care {
        let now = self.now;
        let timeout = self.hosts[at].server.settings.node_timeout;
        let waited = |since: Duration| now.saturating_sub(since);
        if known.id.is_none() && waited(known.born) > timeout.max(Duration::from_secs(1)) {
            return Care::Remove;
        }
        let is_alive = known.link.is_some_and(|link| self.is_alive(link));
        if known.address.is_some() && !is_alive {
            let is_overdue = known.ping_sent.is_some_and(|sent| waited(sent).min(waited(known.heard)) > timeout);
            let is_there = known.address.and_then(|address| self.answering(address));
            return match is_there.is_some_and(|host| self.can_talk(at, host)) {
                true => Care::Connect,
                false if known.link.is_some() || known.ping_sent.is_none() => Care::Connect,
                false if is_overdue && known.id.is_some() && !known.is_lost() => Care::Suspect,
                false => Care::Nothing,
            };
        }
        if known.id.is_none() || known.address.is_none() {
            return Care::Nothing;
        }
        let is_open = known.link.is_some_and(|link| self.can_talk(at, link.host));
        match (known.ping_sent, known.link) {
            (Some(sent), Some(link))
                if waited(link.made) > timeout && waited(sent) > timeout / 2 && waited(known.heard) > timeout / 2 =>
            {
                Care::Disconnect
            }
            (None, Some(_)) if waited(known.pong) > timeout / 2 => Care::Ping,
            (Some(_), Some(_)) if is_open && known.is_swallowed => Care::Ping,
            (Some(sent), _) if waited(sent).min(waited(known.heard)) > timeout && !known.is_lost() => Care::Suspect,
            _ => Care::Nothing,
        }
    }

    /// Changes what others see of an entry.
    fn with(&mut self, at: usize, place: Place, change: impl FnOnce(&mut Known)) {
        let server = &mut self.hosts[at].server;
        server.touch();
        if let Some(known) = server.known.at_mut(place) {
            change(known);
        }
    }

    fn connect(&mut self, at: usize, place: Place) {
        let now = self.now;
        let Some(known) = self.hosts[at].server.known.at(place) else { return };
        let reached = known.address.and_then(|address| self.answering(address));
        let reached = reached.filter(|host| self.can_talk(at, *host));
        self.next_link += 1;
        let serial = self.next_link;
        let link = reached.map(|host| Link { host, generation: self.hosts[host].generation, made: now, serial });
        let (is_meet, before) = (known.is_meet, known.ping_sent);
        self.with(at, place, |known| {
            (known.link, known.is_swallowed) = (link, false);
            known.is_meet &= link.is_none();
            if link.is_none() {
                known.ping_sent.get_or_insert(now);
            }
        });
        if link.is_some() {
            self.ping(at, place, if is_meet { Content::Meet } else { Content::Ping });
            if let (Some(known), Some(before)) = (self.hosts[at].server.known.at_mut(place), before) {
                known.ping_sent = known.ping_sent.map(|_| before);
            }
        }
    }

    fn ping_somebody(&mut self, at: usize) {
        let places = self.hosts[at].server.known.places();
        let mut oldest: Option<(Duration, Place)> = None;
        for _ in 0..5.min(places) {
            let place = self.random.usize(..places);
            let Some(known) = self.hosts[at].server.known.at(place) else { continue };
            let is_idle = known.id.is_some() && known.link.is_some() && known.ping_sent.is_none();
            if is_idle && oldest.is_none_or(|(pong, _)| known.pong < pong) {
                oldest = Some((known.pong, place));
            }
        }
        if let Some((_, place)) = oldest {
            self.ping(at, place, Content::Ping);
        }
    }

    fn ping(&mut self, from: usize, place: Place, content: Content) {
        let now = self.now;
        let Some(known) = self.hosts[from].server.known.at_mut(place) else { return };
        let Some(link) = known.link else { return };
        known.is_swallowed = false;
        if content == Content::Ping {
            known.ping_sent = Some(now);
        }
        if self.is_alive(link) {
            self.post(from, link.host, content, Some((place, link.serial)));
        }
    }

    /// A ping or a greeting arrives.
    pub(super) fn receive(&mut self, message: &Message) {
        let now = self.now;
        let (at, from) = (message.to, &message.header);
        let address = self.hosts[at].address;
        let server = &mut self.hosts[at].server;
        let is_meet = message.content == Content::Meet;
        if (is_meet || server.ip.is_none()) && server.ip != Some(address) {
            server.ip = Some(address);
            server.touch();
        }
        match server.known.get_mut(from.id) {
            Some(known) => {
                known.heard = now;
                if !is_meet && known.move_to(from.address) {
                    server.touch();
                }
                self.learn(at, message);
            }
            None if is_meet && from.id != server.id => {
                if !server.known.is_greeting(from.address) {
                    server.note(None, from.address, Part::Primary, now);
                }
                self.listen(at, from);
            }
            None => {}
        }
        self.post(at, message.from, Content::Pong, message.link);
    }

    /// An answer arrives, unless the link it came over is gone.
    pub(super) fn receive_pong(&mut self, message: &Message) {
        let now = self.now;
        let noaddr_is_fail = self.noaddr_is_fail;
        let (at, answer) = (message.to, &message.header);
        let Some((place, serial)) = message.link else { return };
        let server = &mut self.hosts[at].server;
        let is_known = server.id == answer.id || server.get(answer.id).is_some();
        let Some(known) = server.known.at_mut(place) else { return };
        if known.link.is_none_or(|link| link.serial != serial) {
            return;
        }
        match known.id {
            None if is_known => {
                server.known.remove(place);
                if let Some(known) = server.known.get_mut(answer.id) {
                    known.move_to(answer.address);
                }
                server.touch();
            }
            None => {
                known.role = if answer.follows.is_some() { Part::Replica(None) } else { Part::Primary };
                (known.pong, known.heard, known.ping_sent) = (now, now, None);
                server.known.name(place, answer.id);
                server.touch();
            }
            Some(id) if id != answer.id => {
                (known.address, known.link) = (None, None);
                if noaddr_is_fail && known.failed.is_none() {
                    known.failed = Some(now);
                }
                server.touch();
                self.update_state(at);
            }
            Some(id) => {
                (known.pong, known.heard, known.ping_sent) = (now, now, None);
                if known.is_lost() {
                    known.is_suspected = false;
                    self.forgive(at, id);
                    self.update_state(at);
                }
                self.learn(at, message);
            }
        }
    }

    /// `clearNodeFailureIfNeeded`.
    fn forgive(&mut self, at: usize, id: Id) {
        let now = self.now;
        let server = &mut self.hosts[at].server;
        server.touch();
        let patience = server.settings.node_timeout * 2;
        let has_slots = server.slots_of(id) != 0;
        let Some(known) = server.known.get_mut(id) else { return };
        let votes = has_slots && known.role == Part::Primary;
        if known.failed.is_some_and(|since| !votes || now - since > patience) {
            known.failed = None;
        }
    }

    /// `markNodeAsFailingIfNeeded`.
    pub(super) fn mark_failing(&mut self, at: usize, id: Id) {
        let now = self.now;
        let server = &mut self.hosts[at].server;
        let fresh = server.settings.node_timeout * 2;
        if server.get(id).is_none_or(|known| !known.is_suspected || known.failed.is_some()) {
            return;
        }
        let (size, _) = server.voters();
        let own = usize::from(server.is_voter());
        let Some(known) = server.known.get_mut(id) else { return };
        known.reports.retain(|(_, when)| now - *when <= fresh);
        if known.reports.len() + own <= size / 2 {
            return;
        }
        (known.is_suspected, known.failed) = (false, Some(now));
        server.touch();
        self.broadcast(at, Content::Fail(id));
        self.update_state(at);
    }
}
