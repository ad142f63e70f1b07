//! The commands that a server takes, with its own objections.

use std::time::Duration;

use valkeeper::topology::{Action, Deed, NodeId, SlotRange};

use super::Sim;
use super::node::{Id, Part};

/// For how long gossip about a forgotten node is passed over (`CLUSTER_BLACKLIST_TTL`).
const BAN: Duration = Duration::from_secs(60);

impl Sim {
    /// Does what a planner asked for, as the server at that address would; an error is the server's, or nobody's.
    ///
    /// What is done looks once more before it acts, as every executor has to: whether the node is still the one that was
    /// seen, whether the one to be met still answers where it was seen, whether what is to be lowered is still empty.
    pub fn execute(&mut self, action: &Action) -> Result<(), String> {
        let at = self.answering(action.address.ip()).ok_or("connection refused")?;
        if self.node_id(self.hosts[at].server.id) != action.on {
            return Err("another node answers here".to_owned());
        }
        if action.deed.must_be_checked() && !action.deed.still_fits(&self.report(at)) {
            return Err("the node has changed meanwhile".to_owned());
        }
        let server = &mut self.hosts[at].server;
        server.touch();
        match &action.deed {
            Deed::Announce(mark) => server.name = mark.to_string(),
            Deed::Lower(mark, settings) | Deed::Restore(mark, settings) => {
                (server.name, server.settings) = (mark.to_string(), *settings);
            }
            Deed::RestoreTimeout(timeout) => server.settings.node_timeout = *timeout,
            Deed::SetEpoch(epoch) => self.set_epoch(at, *epoch)?,
            Deed::Meet(id, endpoint) => {
                let there = self.answering(endpoint.ip).filter(|to| self.can_talk(at, *to));
                let there = there.map(|to| self.node_id(self.hosts[to].server.id));
                if there != Some(*id) {
                    return Err("the one to be met does not answer there any more".to_owned());
                }
                self.meet(at, endpoint.ip);
            }
            Deed::AddSlots(ranges) => self.add_slots(at, ranges)?,
            Deed::Replicate(primary) => self.replicate(at, *primary)?,
            Deed::BumpEpoch => self.bump_epoch(at),
            Deed::Forget(id) => self.forget(at, *id)?,
        }
        Ok(())
    }

    fn set_epoch(&mut self, at: usize, epoch: u64) -> Result<(), String> {
        let server = &mut self.hosts[at].server;
        if !server.known.is_empty() {
            return Err("The user can assign a config epoch only when the node does not know any other node.".into());
        }
        if server.config_epoch != 0 {
            return Err("Node config epoch is already non-zero".into());
        }
        server.config_epoch = epoch;
        server.current_epoch = server.current_epoch.max(epoch);
        Ok(())
    }

    /// CLUSTER MEET: done at the next tick; a handshake with the address that is under way already is enough.
    pub fn meet(&mut self, at: usize, address: std::net::IpAddr) {
        let now = self.now;
        let server = &mut self.hosts[at].server;
        if !server.known.is_greeting(address) {
            let place = server.note(None, address, Part::Primary, now);
            server.known.at_mut(place).into_iter().for_each(|known| known.is_meet = true);
        }
    }

    fn add_slots(&mut self, at: usize, ranges: &[SlotRange]) -> Result<(), String> {
        let set = self.pieces.set(ranges).ok_or("the simulator does not cut the key space there")?;
        let server = &mut self.hosts[at].server;
        let chosen = |piece: &usize| set & 1 << piece != 0;
        if let Some(piece) = (0..server.keys.len()).filter(chosen).find(|piece| server.owner(*piece).is_some()) {
            return Err(format!("a slot in piece {piece} is already busy"));
        }
        let id = server.id;
        (0..server.keys.len()).filter(chosen).for_each(|piece| server.give(piece, Some(id)));
        self.update_state(at);
        Ok(())
    }

    fn replicate(&mut self, at: usize, primary: NodeId) -> Result<(), String> {
        let id = self.ids.iter().position(|id| *id == primary).ok_or("Unknown node")?;
        let server = &mut self.hosts[at].server;
        let is_primary = server.get(id).ok_or("Unknown node")?.role == Part::Primary;
        if !is_primary {
            return Err("You can only replicate a primary, not a replica.".into());
        }
        if server.follows.is_none() && (server.own_slots() != 0 || server.key_count() > 0) {
            return Err("To set a primary the node must be empty and without assigned slots.".into());
        }
        if server.follows != Some(id) {
            server.turn_to(id);
        }
        self.update_state(at);
        Ok(())
    }

    /// CLUSTER BUMPEPOCH.
    pub(super) fn bump_epoch(&mut self, at: usize) {
        let server = &mut self.hosts[at].server;
        let highest = server.known.iter().map(|known| known.config_epoch).max().unwrap_or(0);
        let highest = highest.max(server.current_epoch);
        if server.config_epoch == 0 || server.config_epoch != highest {
            server.current_epoch = highest + 1;
            server.config_epoch = server.current_epoch;
        }
    }

    /// CLUSTER FORGET.
    fn forget(&mut self, at: usize, whom: NodeId) -> Result<(), String> {
        let id = self.ids.iter().position(|id| *id == whom).ok_or("Unknown node")?;
        let server = &self.hosts[at].server;
        if id == server.id {
            return Err("I tried hard but I can't forget myself...".to_owned());
        }
        if server.get(id).is_none() {
            return Err("Unknown node".to_owned());
        }
        if server.follows == Some(id) {
            return Err("Can't forget my primary!".to_owned());
        }
        self.remove(at, id, BAN);
        Ok(())
    }

    /// `clusterDelNode`, and the ban that keeps gossip from bringing it back.
    pub(super) fn remove(&mut self, at: usize, id: Id, ban: Duration) {
        let until = self.now + ban;
        let server = &mut self.hosts[at].server;
        server.known.forget(id);
        server.take_all_from(id);
        server.banned.retain(|(other, _)| *other != id);
        server.banned.push((id, until));
        for known in server.known.iter_mut() {
            known.reports.retain(|(who, _)| *who != id);
            if known.role == Part::Replica(Some(id)) {
                known.role = Part::Replica(None);
            }
        }
        server.touch();
        self.update_state(at);
    }

    /// A client writes one key into a piece, wherever this server owns one; false where the server does not let it. What
    /// a failover loses because replication is asynchronous is not ours to judge: the client waits for every copy.
    pub fn write(&mut self, at: usize, piece: usize) -> bool {
        let host = &self.hosts[at];
        let server = &host.server;
        let copies: Vec<usize> =
            (0..self.hosts.len()).filter(|other| self.hosts[*other].server.follows == Some(server.id)).collect();
        let is_good = |copy: &usize| {
            let other = &self.hosts[*copy];
            other.is_up && other.server.synced.is_some() && self.can_talk(at, *copy)
        };
        let good = copies.iter().filter(|copy| is_good(copy)).count();
        let settings = &server.settings;
        let is_open = settings.replicas_max_lag.is_zero()
            || good >= usize::try_from(settings.min_replicas_to_write).unwrap_or(usize::MAX);
        let owns = server.follows.is_none() && server.owner(piece) == Some(server.id);
        if !(host.is_up && server.is_ok && owns && is_open) || good < copies.len() {
            return false;
        }
        for writer in copies.into_iter().chain([at]) {
            self.hosts[writer].server.keys[piece] += 1;
            self.hosts[writer].server.touch();
        }
        true
    }
}
