//! Replication: a replica copies what its primary holds, and loses nothing that the primary has.

use std::time::Duration;

use super::Sim;
use super::node::Part;

/// How long a first copy takes once it has begun.
const COPYING: Duration = Duration::from_millis(150);

impl Sim {
    /// A replica follows its primary, from nothing with a first copy.
    pub(super) fn follow(&mut self, at: usize) {
        let now = self.now;
        let Some(primary) = self.hosts[at].server.follows else { return };
        self.leave_chain(at, primary);
        let address = self.hosts[at].server.get(primary).and_then(|known| known.address);
        let source = address
            .and_then(|address| self.answering(address))
            .filter(|source| self.hosts[*source].server.id == primary && self.can_talk(at, *source));
        let server = &mut self.hosts[at].server;
        let Some(source) = source else {
            if server.synced.is_some() || server.sync_began.is_some() {
                (server.synced, server.sync_began) = (None, None);
                server.touch();
            }
            return;
        };
        if server.sync_began.is_none() {
            server.sync_began = Some(now);
            server.touch();
        }
        let began = server.sync_began.unwrap_or(now);
        if now - began < self.hosts[source].server.settings.sync_delay + COPYING {
            return;
        }
        let keys = std::mem::take(&mut self.hosts[source].server.keys);
        let server = &mut self.hosts[at].server;
        if server.synced.is_none() || server.keys != keys {
            server.synced.get_or_insert(now);
            server.keys.clone_from(&keys);
            server.touch();
        }
        server.linked = Some(now);
        self.hosts[source].server.keys = keys;
    }

    /// Nobody stays a replica of a replica: it follows that one's primary.
    fn leave_chain(&mut self, at: usize, primary: usize) {
        let server = &mut self.hosts[at].server;
        let next = server.get(primary).map(|known| known.role);
        if let Some(Part::Replica(Some(next))) = next
            && next != server.id
            && server.get(next).is_some()
        {
            server.turn_to(next);
        }
    }
}
