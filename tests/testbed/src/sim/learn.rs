//! What a server makes of another's message: roles, epochs, slots and hearsay.
//!
//! Mirrors `clusterProcessPacket`, `clusterUpdateSlotsConfigWith`, `clusterHandleConfigEpochCollision`,
//! `clusterProcessGossipSection`, `clusterProcessPingExtensions` and `clusterUpdateState` in the server's
//! `cluster_legacy.c`.

use std::time::Duration;

use super::Sim;
use super::message::{Content, Header, Message};
use super::node::{Id, Part};
use super::pieces::PieceSet;

const WRITABLE_DELAY: Duration = Duration::from_secs(2);
const SHORTEST_REJOIN: Duration = Duration::from_millis(500);
const LONGEST_REJOIN: Duration = Duration::from_secs(5);

impl Sim {
    /// A ping or pong from a node that the receiver knows.
    pub(super) fn learn(&mut self, at: usize, message: &Message) {
        let said = &message.header;
        let server = &mut self.hosts[at].server;
        if said.id == server.id {
            return;
        }
        if server.current_epoch < said.current_epoch {
            server.current_epoch = said.current_epoch;
            server.touch();
        }
        let me = server.id;
        let is_primary = said.follows.is_none();
        let role = match said.follows {
            None => Part::Primary,
            Some(id) => Part::Replica(Some(id).filter(|id| *id == me || server.get(*id).is_some())),
        };
        let Some(known) = server.known.get_mut(said.id) else { return };
        let (was, epoch) = (known.role, known.config_epoch);
        if is_primary {
            known.config_epoch = epoch.max(said.config_epoch);
        }
        if !matches!((was, role), (Part::Replica(Some(_)), Part::Replica(None))) {
            known.role = role;
        }
        let is_new = known.role != was || known.config_epoch != epoch;
        let is_level = is_primary && known.config_epoch == said.config_epoch;
        if is_new {
            server.touch();
        }
        if was == Part::Primary && !is_primary {
            server.take_all_from(said.id);
            self.update_state(at);
        }
        if is_primary && (was != Part::Primary || self.hosts[at].server.slots_of(said.id) != said.slots) {
            self.adopt_slots(at, said.id, said.config_epoch, said.slots);
            self.correct(at, message);
        }
        self.settle_collision(at, said.id, said.config_epoch, is_level);
        self.listen(at, said);
        self.obey(at, said);
    }

    /// A message that is neither ping nor pong.
    pub(super) fn receive_notice(&mut self, message: &Message) {
        let now = self.now;
        let (at, said) = (message.to, &message.header);
        let server = &mut self.hosts[at].server;
        let Some(known) = server.known.get_mut(said.id) else { return };
        known.heard = now;
        if server.current_epoch < said.current_epoch {
            server.current_epoch = said.current_epoch;
            server.touch();
        }
        match message.content {
            Content::News => self.learn(at, message),
            Content::Fail(id) => {
                if let Some(known) = server.known.get_mut(id).filter(|known| known.failed.is_none()) {
                    (known.is_suspected, known.failed) = (false, Some(now));
                    server.touch();
                    self.update_state(at);
                }
            }
            Content::Update(owner, epoch, slots) => {
                let Some(known) = server.known.get_mut(owner).filter(|known| known.config_epoch < epoch) else {
                    return;
                };
                (known.config_epoch, known.role) = (epoch, Part::Primary);
                server.touch();
                self.adopt_slots(at, owner, epoch, slots);
            }
            Content::Ask => self.vote(message),
            Content::Vote(epoch) => self.count_vote(at, said.id, epoch),
            Content::Ping | Content::Meet | Content::Pong => {}
        }
    }

    /// `clusterHandleConfigEpochCollision`: the smaller id moves on.
    fn settle_collision(&mut self, at: usize, with: Id, epoch: u64, applies: bool) {
        let smaller = self.ids[self.hosts[at].server.id] < self.ids[with];
        let server = &mut self.hosts[at].server;
        if applies && smaller && server.follows.is_none() && server.config_epoch == epoch {
            server.current_epoch += 1;
            server.config_epoch = server.current_epoch;
            server.touch();
        }
    }

    /// `clusterUpdateSlotsConfigWith`: the higher epoch owns.
    fn adopt_slots(&mut self, at: usize, of: Id, epoch: u64, slots: PieceSet) {
        let server = &mut self.hosts[at].server;
        let mine = server.follows.unwrap_or(server.id);
        let (mut lost, mut changed) = (Vec::new(), false);
        server.hear_claim(of, slots);
        for piece in (0..server.keys.len()).filter(|piece| slots & 1 << piece != 0) {
            let owner = server.owner(piece);
            let is_below = |owner| !server.is_unclaimed(piece) && server.epoch_of(owner) >= epoch;
            if owner == Some(of) || owner.is_some_and(is_below) {
                continue;
            }
            if owner == Some(mine) {
                lost.push(piece);
            }
            server.give(piece, Some(of));
            changed = true;
        }
        if !lost.is_empty() {
            match server.slots_of(mine) {
                // cluster-allow-replica-migration is on unless configured otherwise.
                0 => server.turn_to(of),
                _ if server.follows.is_none() => lost.iter().for_each(|piece| server.keys[*piece] = 0),
                _ => {}
            }
        }
        if changed {
            self.update_state(at);
        }
    }

    /// Tells the sender of somebody who owns slots it claims under a higher epoch (an UPDATE message).
    fn correct(&mut self, at: usize, message: &Message) {
        let said = &message.header;
        let server = &self.hosts[at].server;
        let newer = (0..server.keys.len())
            .filter(|piece| said.slots & 1 << piece != 0)
            .filter_map(|piece| server.owner(piece))
            .find(|owner| *owner != said.id && server.epoch_of(*owner) > said.config_epoch);
        let Some(owner) = newer else { return };
        let (epoch, slots) = (server.epoch_of(owner), server.slots_of(owner));
        let link = server.get(said.id).and_then(|known| known.link);
        if link.is_some_and(|link| self.is_alive(link)) {
            self.post(at, message.from, Content::Update(owner, epoch, slots), None);
        }
    }

    /// `clusterProcessGossipSection`.
    pub(super) fn listen(&mut self, at: usize, said: &Header) {
        let now = self.now;
        let server = &self.hosts[at].server;
        let sender = server.get(said.id).map(|known| known.role);
        let votes = sender == Some(Part::Primary) && server.slots_of(said.id) != 0;
        for about in &said.gossip {
            let server = &mut self.hosts[at].server;
            if about.id == server.id {
                continue;
            }
            let is_lost = about.is_suspected || about.is_failed;
            let Some(known) = server.known.get_mut(about.id) else {
                if sender.is_some() && !server.has_banned(about.id, now) {
                    let place = server.note(Some(about.id), about.address, about.role, now);
                    if let Some(known) = server.known.at_mut(place).filter(|_| about.is_failed) {
                        known.failed = Some(now);
                    }
                }
                continue;
            };
            let reported = known.reports.iter().position(|(who, _)| *who == said.id);
            match (is_lost, reported) {
                (true, Some(place)) if votes => known.reports[place].1 = now,
                (true, None) if votes => known.reports.push((said.id, now)),
                (false, Some(place)) => {
                    known.reports.swap_remove(place);
                }
                _ => {}
            }
            if !is_lost && known.is_lost() && known.move_to(about.address) {
                server.touch();
            } else if is_lost && known.is_suspected {
                self.mark_failing(at, about.id);
            }
        }
    }

    /// Whom the sender was told to forget, the receiver forgets too, for as long as the ban still stands: but for itself,
    /// its own primary and the sender.
    fn obey(&mut self, at: usize, said: &Header) {
        for (id, time) in &said.forgotten {
            let server = &mut self.hosts[at].server;
            let is_spared = *id == server.id || server.follows == Some(*id) || *id == said.id;
            if !time.is_zero() && !is_spared && server.get(*id).is_some() {
                self.remove(at, *id, *time);
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
        let has_failed = |id: Id| server.get(id).is_some_and(|known| known.failed.is_some());
        let mut ok = (0..server.keys.len()).all(|piece| server.owner(piece).is_some_and(|owner| !has_failed(owner)));
        let (size, reachable) = server.voters();
        if reachable < size / 2 + 1 {
            ok = false;
            server.among_minority = Some(now);
        }
        let delay = server.settings.node_timeout.clamp(SHORTEST_REJOIN, LONGEST_REJOIN);
        let too_early = server.among_minority.is_some_and(|then| now - then < delay);
        if !(ok && !server.is_ok && is_primary && too_early) {
            if server.is_ok != ok {
                server.touch();
            }
            server.is_ok = ok;
        }
    }
}
