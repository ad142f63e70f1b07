//! Clusters that stand from the beginning.

use valkeeper::topology::SlotRange;

use super::Sim;
use super::node::{Naming, Part};

impl Sim {
    /// Makes a cluster out of blank servers that are down: the first ones are its primaries, the others follow them in
    /// turn, each primary has some keys. Marks are what processes carry, so they are given when a server starts.
    pub fn form(&mut self, hosts: &[usize], shards: u16, cluster: &str, marks: bool) {
        let owners = self.owners_by_share(shards);
        let shards = usize::from(shards);
        let now = self.now;
        let ids: Vec<_> = hosts.iter().map(|host| self.hosts[*host].server.id).collect();
        let addresses: Vec<_> = hosts.iter().map(|host| self.hosts[*host].address).collect();
        for (place, host) in hosts.iter().enumerate() {
            let host = &mut self.hosts[*host];
            let mark = || format!("{cluster}/{}", host.pod.as_ref().map_or("", |pod| pod.as_str()));
            host.mark = host.mark.take().or_else(|| marks.then(|| Naming::Once(mark())));
            let server = &mut host.server;
            let epoch = |place: usize| u64::try_from(place).unwrap_or(0) + 1;
            server.ip = Some(addresses[place]);
            (server.config_epoch, server.current_epoch) = (epoch(place), epoch(ids.len()));
            server.follows = (place >= shards).then(|| ids[place % shards]);
            for (piece, owner) in owners.iter().enumerate() {
                server.give(piece, Some(ids[*owner]));
                server.keys[piece] = u64::from(*owner == place % shards) * 3;
            }
            for (other, (id, address)) in ids.iter().zip(&addresses).enumerate().filter(|(other, _)| *other != place) {
                let role = if other < shards { Part::Primary } else { Part::Replica(Some(ids[other % shards])) };
                let place = server.note(Some(*id), *address, role, now);
                server.known.at_mut(place).into_iter().for_each(|known| known.config_epoch = epoch(other));
            }
        }
    }

    /// The server of a pod that is down loses its nodes.conf and keeps its data: it claims the slots of its keys
    /// (`verifyClusterConfigWithData`).
    pub fn lose_nodes_conf(&mut self, at: usize) {
        let keys = std::mem::take(&mut self.hosts[at].server.keys);
        self.lose_disk(at);
        let server = &mut self.hosts[at].server;
        let id = server.id;
        let claimed = keys.iter().enumerate().filter(|(_, keys)| **keys > 0);
        claimed.for_each(|(piece, _)| server.give(piece, Some(id)));
        server.keys = keys;
    }

    /// Puts so many keys on a server: into the slots it owns, or, where it owns none, beside all slots.
    pub fn put_keys(&mut self, at: usize, keys: u64) {
        let server = &mut self.hosts[at].server;
        let own = server.own_slots();
        let homes: Vec<usize> = (0..server.keys.len()).filter(|piece| own == 0 || own & 1 << piece != 0).collect();
        homes.iter().cycle().zip(0..keys).for_each(|(home, _)| server.keys[*home] += 1);
    }

    /// Which of so many shards each piece belongs to: where it begins in that shard's share.
    fn owners_by_share(&self, shards: u16) -> Vec<usize> {
        let shares: Vec<_> = (0..shards).filter_map(|index| SlotRange::share(index, shards)).collect();
        let owner = |first| shares.iter().rposition(|share| share.first() <= first).unwrap_or(0);
        self.pieces.firsts().map(owner).collect()
    }
}
