//! The cluster bus: cron ticks, connections, pings and what failure detection makes of them.
//!
//! Mirrors `clusterCron`, `clusterProcessPacket` and their helpers in the server's `cluster_legacy.c`. A ping and its
//! pong happen at one moment; what orders the world is that each server acts at its own ticks.

use std::time::Duration;

use super::Sim;
use super::node::{Gossip, Header, Id, Link, Part};
use super::pieces::PieceSet;

/// How often a server's cron runs.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// What a message asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ping,
    Meet,
}

impl Sim {
    /// `clusterCron` of one server.
    pub(super) fn tick(&mut self, at: usize) {
        let now = self.now;
        let server = &mut self.hosts[at].server;
        server.ticks += 1;
        let timeout = server.settings.node_timeout;
        let handshake = timeout.max(Duration::from_secs(1));
        server.known.retain(|known| known.id.is_some() || now - known.born <= handshake);
        let keys: Vec<u32> = server.known.iter().map(|known| known.key).collect();
        for key in &keys {
            self.reconnect(at, *key);
        }
        if self.hosts[at].server.ticks.is_multiple_of(10) {
            self.ping_somebody(at);
        }
        for key in keys {
            self.look_after(at, key, timeout);
        }
        self.follow(at);
        if !self.hosts[at].server.is_ok {
            self.update_state(at);
        }
    }

    fn reconnect(&mut self, at: usize, key: u32) {
        let now = self.now;
        let Some(known) = self.hosts[at].server.by_key(key) else { return };
        let (link, address) = (known.link, known.address);
        let Some(address) = address else { return };
        if link.is_some_and(|link| self.is_alive(link)) {
            return;
        }
        let reached = self.answering(address).filter(|host| self.can_talk(at, *host));
        let link = reached.map(|host| Link { host, generation: self.hosts[host].generation, made: now });
        let Some(known) = self.hosts[at].server.by_key(key) else { return };
        known.link = link;
        match link {
            Some(_) => {
                let kind = if known.is_meet { Kind::Meet } else { Kind::Ping };
                let before = known.ping_sent;
                known.is_meet = false;
                self.send(at, key, kind);
                if let (Some(known), Some(before)) = (self.hosts[at].server.by_key(key), before) {
                    known.ping_sent = known.ping_sent.map(|_| before);
                }
            }
            None => {
                known.ping_sent.get_or_insert(now);
            }
        }
    }

    fn ping_somebody(&mut self, at: usize) {
        let count = self.hosts[at].server.known.len();
        let mut oldest: Option<(Duration, u32)> = None;
        for _ in 0..5.min(count) {
            let known = &self.hosts[at].server.known[self.random.usize(0..count)];
            let idle = known.id.is_some() && known.link.is_some() && known.ping_sent.is_none();
            if idle && oldest.is_none_or(|(pong, _)| known.pong < pong) {
                oldest = Some((known.pong, known.key));
            }
        }
        if let Some((_, key)) = oldest {
            self.send(at, key, Kind::Ping);
        }
    }

    fn look_after(&mut self, at: usize, key: u32, timeout: Duration) {
        let now = self.now;
        let is_voter = self.hosts[at].server.is_voter();
        let link = self.hosts[at].server.by_key(key).and_then(|known| known.link);
        let is_open = link.is_some_and(|link| self.is_alive(link) && self.can_talk(at, link.host));
        let Some(known) = self.hosts[at].server.by_key(key) else { return };
        if known.id.is_none() || known.address.is_none() {
            return;
        }
        let waited = |since: Duration| now.saturating_sub(since);
        if let (Some(link), Some(sent)) = (known.link, known.ping_sent)
            && waited(link.made) > timeout
            && waited(sent) > timeout / 2
            && waited(known.heard) > timeout / 2
        {
            known.link = None;
        }
        match known.ping_sent {
            None if known.link.is_some() && waited(known.pong) > timeout / 2 => self.send(at, key, Kind::Ping),
            // What a partition swallowed TCP sends again.
            Some(_) if is_open => self.send(at, key, Kind::Ping),
            Some(sent) if waited(sent).min(waited(known.heard)) > timeout && !known.is_lost() => {
                known.is_suspected = true;
                let id = known.id;
                if let (true, Some(id)) = (is_voter, id) {
                    self.mark_failing(at, id);
                }
                self.update_state(at);
            }
            _ => {}
        }
    }

    fn send(&mut self, from: usize, key: u32, kind: Kind) {
        let now = self.now;
        let Some(known) = self.hosts[from].server.by_key(key) else { return };
        let Some(link) = known.link else { return };
        if kind == Kind::Ping {
            known.ping_sent = Some(now);
        }
        if !self.is_alive(link) || !self.can_talk(from, link.host) {
            return;
        }
        let message = self.header(from);
        self.receive(link.host, &message, kind);
        let answer = self.header(link.host);
        self.receive_pong(from, key, &answer);
    }

    fn receive(&mut self, at: usize, message: &Header, kind: Kind) {
        let now = self.now;
        let address = self.hosts[at].address;
        let server = &mut self.hosts[at].server;
        let me = server.id;
        if kind == Kind::Meet || server.ip.is_none() {
            server.ip = Some(address);
        }
        match server.get_mut(message.id) {
            Some(known) => {
                known.heard = now;
                if kind == Kind::Ping {
                    known.move_to(message.address);
                }
                self.learn(at, message);
            }
            None if kind == Kind::Meet && message.id != me => {
                let under_way = |id: Option<Id>, there| id.is_none() && there == Some(message.address);
                if !server.known.iter().any(|known| under_way(known.id, known.address)) {
                    server.note(None, message.address, Part::Primary, now);
                }
                self.listen(at, message);
            }
            None => {}
        }
    }

    fn receive_pong(&mut self, at: usize, key: u32, answer: &Header) {
        let now = self.now;
        let noaddr_is_fail = self.noaddr_is_fail;
        let server = &mut self.hosts[at].server;
        let is_known = server.id == answer.id || server.get(answer.id).is_some();
        let Some(known) = server.by_key(key) else { return };
        match known.id {
            None if is_known => {
                server.known.retain(|known| known.key != key);
                if let Some(known) = server.get_mut(answer.id) {
                    known.move_to(answer.address);
                }
            }
            None => {
                known.id = Some(answer.id);
                known.role = if answer.follows.is_some() { Part::Replica(None) } else { Part::Primary };
                (known.pong, known.heard, known.ping_sent) = (now, now, None);
            }
            Some(id) if id != answer.id => {
                (known.address, known.link) = (None, None);
                if noaddr_is_fail && known.failed.is_none() {
                    known.failed = Some(now);
                }
                self.update_state(at);
            }
            Some(id) => {
                (known.pong, known.heard, known.ping_sent) = (now, now, None);
                if known.is_lost() {
                    known.is_suspected = false;
                    self.forgive(at, id);
                    self.update_state(at);
                }
                self.learn(at, answer);
            }
        }
    }

    /// `clearNodeFailureIfNeeded`.
    fn forgive(&mut self, at: usize, id: Id) {
        let now = self.now;
        let server = &mut self.hosts[at].server;
        let patience = server.settings.node_timeout * 2;
        let votes = server.owners.contains(&Some(id));
        let Some(known) = server.get_mut(id) else { return };
        let votes = votes && known.role == Part::Primary;
        if known.failed.is_some_and(|since| !votes || now - since > patience) {
            known.failed = None;
        }
    }

    /// `markNodeAsFailingIfNeeded`.
    pub(super) fn mark_failing(&mut self, at: usize, id: Id) {
        let now = self.now;
        let server = &mut self.hosts[at].server;
        let fresh = server.settings.node_timeout * 2;
        let (size, _) = server.voters();
        let own = usize::from(server.is_voter());
        let Some(known) = server.get_mut(id) else { return };
        if !known.is_suspected || known.failed.is_some() {
            return;
        }
        known.reports.retain(|(_, when)| now - *when <= fresh);
        if known.reports.len() + own <= size / 2 {
            return;
        }
        (known.is_suspected, known.failed) = (false, Some(now));
        let (me, links) = (server.id, server.known.iter().filter_map(|known| known.link).collect::<Vec<_>>());
        self.update_state(at);
        for link in links {
            if !self.is_alive(link) || !self.can_talk(at, link.host) {
                continue;
            }
            let peer = &mut self.hosts[link.host].server;
            if peer.get(me).is_some()
                && let Some(known) = peer.get_mut(id)
                && known.failed.is_none()
            {
                (known.is_suspected, known.failed) = (false, Some(now));
                self.update_state(link.host);
            }
        }
    }

    fn header(&mut self, from: usize) -> Header {
        const FEW: usize = 3;
        let host = &self.hosts[from];
        let server = &host.server;
        let about = server.follows.unwrap_or(server.id);
        let slots: PieceSet = server.slots_of(about);
        let tell = |known: &super::node::Known| {
            let id = known.id?;
            let is_quiet = known.link.is_none() && !server.owners.contains(&Some(id));
            let address = known.address.filter(|_| !is_quiet || known.is_lost())?;
            Some(Gossip { id, address, is_lost: known.is_lost(), role: known.role })
        };
        let mut gossip: Vec<Gossip> = server.known.iter().filter_map(tell).collect();
        let (epoch, current) = (server.epoch_of(about), server.current_epoch);
        let (id, address, follows) = (server.id, host.address, server.follows);
        while gossip.iter().filter(|about| !about.is_lost).count() > FEW {
            let place = self.random.usize(0..gossip.len());
            if !gossip[place].is_lost {
                gossip.swap_remove(place);
            }
        }
        Header { id, address, follows, config_epoch: epoch, current_epoch: current, slots, gossip }
    }
}
