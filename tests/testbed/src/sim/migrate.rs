//! What people and other tools do to a cluster that stands: slots that move, primaries that hand over.

use super::Sim;
use super::message::Content;
use super::node::Id;

impl Sim {
    /// Whether somebody thinks that a node which is up has failed: an election may be under way, or come.
    pub fn is_shaken(&self) -> bool {
        let up = || self.hosts.iter().filter(|host| host.is_up);
        up().any(|host| up().any(|other| host.server.get(other.server.id).is_some_and(|known| known.is_lost())))
    }

    /// A piece moves with its keys from its owner to another primary, both of which are here and of one mind: CLUSTER
    /// SETSLOT NODE, first at the new owner, who takes an epoch of its own for it and tells
    /// everybody, then at the old one. A shard that has
    /// given its last slot away follows the new owner. False where that cannot be,
    /// or where the new owner has not heard of the old one's epoch: its own would not stand above that.
    pub fn move_piece(&mut self, piece: usize, from: usize, to: usize) -> bool {
        let (source, target) = (&self.hosts[from], &self.hosts[to]);
        let (giver, taker) = (source.server.id, target.server.id);
        let is_possible = source.is_up
            && target.is_up
            && from != to
            && self.can_talk(from, to)
            && source.server.is_ok
            && target.server.follows.is_none()
            && source.server.owner(piece) == Some(giver)
            && target.server.owner(piece) == Some(giver)
            && source.server.get(taker).is_some()
            && target.server.epoch_of(giver) == source.server.config_epoch
            && self.has_whole_copies(taker)
            && self.are_reached(from, &[giver, taker]);
        if !is_possible {
            return false;
        }
        let keys = std::mem::take(&mut self.hosts[from].server.keys[piece]);
        let server = &mut self.hosts[to].server;
        server.keys[piece] = keys;
        server.give(piece, Some(taker));
        self.bump_epoch(to);
        // A server has its replicas know of it before it does so itself.
        for at in (0..self.hosts.len()).filter(|at| *at != to) {
            let is_up = self.hosts[at].is_up;
            let server = &mut self.hosts[at].server;
            let shard = server.follows.unwrap_or(server.id);
            if is_up && (shard == giver || shard == taker) {
                server.give(piece, Some(taker));
                if shard == taker {
                    server.keys[piece] = keys;
                }
                if shard == giver && server.slots_of(giver) == 0 {
                    server.turn_to(taker);
                }
            }
        }
        self.update_state(from);
        self.update_state(to);
        self.broadcast(to, Content::News);
        true
    }

    /// Whether every replica of this primary that is up has what it has: `rebalance` gives slots to no other.
    fn has_whole_copies(&self, primary: Id) -> bool {
        let mut copies = self.hosts.iter().filter(|host| host.is_up && host.server.follows == Some(primary));
        copies.all(|host| host.server.synced.is_some())
    }

    /// Whether all copies of these primaries that are up are on one side: SETSLOT waits for the replicas, and else fails.
    fn are_reached(&self, from: usize, primaries: &[Id]) -> bool {
        let is_copy = |at: &usize| {
            let host = &self.hosts[*at];
            host.is_up && host.server.follows.is_some_and(|primary| primaries.contains(&primary))
        };
        (0..self.hosts.len()).filter(is_copy).all(|at| self.can_talk(from, at))
    }

    /// CLUSTER FAILOVER of a whole copy, to its end: the replica has everything, and takes over under an epoch above all others. False where it
    /// cannot be elected.
    pub fn take_over(&mut self, at: usize) -> bool {
        let server = &self.hosts[at].server;
        let Some(primary) = server.follows.filter(|_| server.synced.is_some() && self.hosts[at].is_up) else {
            return false;
        };
        let voters: Vec<usize> =
            (0..self.hosts.len()).filter(|voter| server.slots_of(self.hosts[*voter].server.id) != 0).collect();
        let present = voters.iter().filter(|voter| self.hosts[**voter].is_up && self.can_talk(at, **voter)).count();
        let is_outdated = self
            .hosts
            .iter()
            .any(|host| host.server.id == primary && host.is_up && host.server.own_slots() != server.slots_of(primary));
        if server.slots_of(primary) == 0 || is_outdated || present <= voters.len() / 2 {
            return false;
        }
        let source = (0..self.hosts.len()).find(|source| self.hosts[*source].server.id == primary);
        if let Some(source) = source.filter(|source| self.hosts[*source].is_up) {
            let keys = self.hosts[source].server.keys.clone();
            self.hosts[at].server.keys = keys;
        }
        let cluster = voters.iter().chain([&at]).map(|host| self.hosts[*host].server.current_epoch).max();
        let server = &mut self.hosts[at].server;
        server.current_epoch = cluster.unwrap_or(0) + 1;
        server.config_epoch = server.current_epoch;
        self.promote(at);
        true
    }
}
