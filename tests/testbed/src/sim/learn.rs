//! What a server makes of another's message: roles, epochs, slots and hearsay.
//!
//! Mirrors `clusterProcessPacket`, `clusterUpdateSlotsConfigWith`, `clusterHandleConfigEpochCollision`,
//! `clusterProcessGossipSection` and `clusterUpdateState` in the server's `cluster_legacy.c`.

use std::time::Duration;

use super::Sim;
use super::node::{Header, Id, Part};
use super::pieces::PieceSet;

const WRITABLE_DELAY: Duration = Duration::from_secs(2);
const SHORTEST_REJOIN: Duration = Duration::from_millis(500);
const LONGEST_REJOIN: Duration = Duration::from_secs(5);

impl Sim {
    /// A message from a node that the receiver knows.
    pub(super) fn learn(&mut self, at: usize, message: &Header) {
        let server = &mut self.hosts[at].server;
        if message.id == server.id {
            return;
        }
        server.current_epoch = server.current_epoch.max(message.current_epoch);
        let me = server.id;
        let role = match message.follows {
            None => Part::Primary,
            Some(id) => Part::Replica(Some(id).filter(|id| *id == me || server.get(*id).is_some())),
        };
        let Some(known) = server.get_mut(message.id) else { return };
        if message.follows.is_none() {
            known.config_epoch = known.config_epoch.max(message.config_epoch);
        }
        let was_primary = known.role == Part::Primary;
        match (known.role, role) {
            (Part::Replica(Some(_)), Part::Replica(None)) => {}
            _ => known.role = role,
        }
        let known_epoch = known.config_epoch;
        let is_primary = message.follows.is_none();
        if was_primary && !is_primary {
            for owner in server.owners.iter_mut().filter(|owner| **owner == Some(message.id)) {
                *owner = None;
            }
            self.update_state(at);
        }
        if is_primary && (!was_primary || self.hosts[at].server.slots_of(message.id) != message.slots) {
            self.adopt_slots(at, message.id, message.config_epoch, message.slots);
            self.correct(at, message);
        }
        self.settle_collision(at, message, is_primary && known_epoch == message.config_epoch);
        self.listen(at, message);
    }

    /// `clusterHandleConfigEpochCollision`: the smaller id moves on.
    fn settle_collision(&mut self, at: usize, message: &Header, applies: bool) {
        let smaller = self.ids[self.hosts[at].server.id] < self.ids[message.id];
        let server = &mut self.hosts[at].server;
        if applies && smaller && server.follows.is_none() && server.config_epoch == message.config_epoch {
            server.current_epoch += 1;
            server.config_epoch = server.current_epoch;
        }
    }

    /// `clusterUpdateSlotsConfigWith`: the higher epoch owns.
    fn adopt_slots(&mut self, at: usize, of: Id, epoch: u64, slots: PieceSet) {
        let server = &mut self.hosts[at].server;
        let mine = server.follows.unwrap_or(server.id);
        let (mut lost, mut changed) = (Vec::new(), false);
        for piece in (0..server.owners.len()).filter(|piece| slots & 1 << piece != 0) {
            let owner = server.owners[piece];
            if owner == Some(of) || owner.is_some_and(|owner| server.epoch_of(owner) >= epoch) {
                continue;
            }
            if owner == Some(mine) {
                lost.push(piece);
            }
            server.owners[piece] = Some(of);
            changed = true;
        }
        if !lost.is_empty() {
            match server.slots_of(mine) {
                // cluster-allow-replica-migration is on unless configured otherwise.
                0 => (server.follows, server.synced, server.sync_began) = (Some(of), None, None),
                _ if server.follows.is_none() => lost.iter().for_each(|piece| server.keys[*piece] = 0),
                _ => {}
            }
        }
        if changed {
            self.update_state(at);
        }
    }

    /// Tells the sender of somebody who owns slots it claims under a higher epoch (an UPDATE message).
    fn correct(&mut self, at: usize, message: &Header) {
        let server = &self.hosts[at].server;
        let newer = (0..server.owners.len())
            .filter(|piece| message.slots & 1 << piece != 0)
            .filter_map(|piece| server.owners[piece])
            .find(|owner| *owner != message.id && server.epoch_of(*owner) > message.config_epoch);
        let Some(owner) = newer else { return };
        let (epoch, slots) = (server.epoch_of(owner), server.slots_of(owner));
        let link = server.get(message.id).and_then(|known| known.link);
        let Some(link) = link.filter(|link| self.is_alive(*link) && self.can_talk(at, link.host)) else { return };
        let me = server.id;
        let peer = &mut self.hosts[link.host].server;
        if peer.get(me).is_none() {
            return;
        }
        let Some(known) = peer.get_mut(owner).filter(|known| known.config_epoch < epoch) else { return };
        (known.config_epoch, known.role) = (epoch, Part::Primary);
        self.adopt_slots(link.host, owner, epoch, slots);
    }

    /// `clusterProcessGossipSection`.
    pub(super) fn listen(&mut self, at: usize, message: &Header) {
        let now = self.now;
        for about in &message.gossip {
            let server = &mut self.hosts[at].server;
            if about.id == server.id {
                continue;
            }
            let sender_votes = server.get(message.id).is_some_and(|known| known.role == Part::Primary)
                && server.owners.contains(&Some(message.id));
            let Some(known) = server.get_mut(about.id) else {
                server.note(Some(about.id), about.address, about.role, now);
                continue;
            };
            let reported = known.reports.iter().position(|(who, _)| *who == message.id);
            match (about.is_lost, reported) {
                (true, Some(place)) if sender_votes => known.reports[place].1 = now,
                (true, None) if sender_votes => known.reports.push((message.id, now)),
                (false, Some(place)) => {
                    known.reports.swap_remove(place);
                }
                _ => {}
            }
            if !about.is_lost && known.is_lost() && known.address != Some(about.address) {
                known.move_to(about.address);
            }
            if about.is_lost && known.is_suspected {
                self.mark_failing(at, about.id);
            }
        }
    }

    /// `clusterUpdateState`.
    pub(super) fn update_state(&mut self, at: usize) {
        let now = self.now;
        let server = &mut self.hosts[at].server;
        let first = *server.first_look.get_or_insert(now);
        let is_primary = server.follows.is_none();
        if is_primary && !server.is_ok && now - first < WRITABLE_DELAY {
            return;
        }
        let served = |owner: &Option<Id>| owner.is_some_and(|id| server.get(id).is_none_or(|k| k.failed.is_none()));
        let mut ok = server.owners.iter().all(served);
        let (size, reachable) = server.voters();
        if reachable < size / 2 + 1 {
            ok = false;
            server.among_minority = Some(now);
        }
        let delay = server.settings.node_timeout.clamp(SHORTEST_REJOIN, LONGEST_REJOIN);
        let too_early = server.among_minority.is_some_and(|then| now - then < delay);
        if !(ok && !server.is_ok && is_primary && too_early) {
            server.is_ok = ok;
        }
    }

    /// A replica follows its primary, from nothing with a first copy.
    pub(super) fn follow(&mut self, at: usize) {
        const COPYING: Duration = Duration::from_millis(150);
        let now = self.now;
        let Some(primary) = self.hosts[at].server.follows else { return };
        let address = self.hosts[at].server.get(primary).and_then(|known| known.address);
        let source = address
            .and_then(|address| self.answering(address))
            .filter(|source| self.hosts[*source].server.id == primary && self.can_talk(at, *source));
        let Some(source) = source else {
            (self.hosts[at].server.synced, self.hosts[at].server.sync_began) = (None, None);
            return;
        };
        let (keys, delay) = (self.hosts[source].server.keys.clone(), self.hosts[source].server.settings.sync_delay);
        let server = &mut self.hosts[at].server;
        let began = *server.sync_began.get_or_insert(now);
        if now - began >= delay + COPYING {
            server.synced.get_or_insert(now);
            server.keys = keys;
        }
    }
}
