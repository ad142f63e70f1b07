//! What a planner gets to see: what DNS says, and what answers there.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use valkeeper::topology::node::Flags;
use valkeeper::topology::parse::{ClusterInfo, ReplicaLink, Replication};
use valkeeper::topology::{NodeEntry, NodeId, NodeReport, Observation, Peer, Role, Silence, Version, View};

use super::node::{Known, Part};
use super::roll::Place;
use super::{BUS_PORT, PORT, Shown, Sim};

impl Sim {
    /// One round of asking everybody that DNS names. Each answer is lost with the given probability.
    pub fn observe(&mut self, loss: f64) -> Observation {
        let mut observation = Observation::default();
        for index in 0..self.zone.len() {
            let (host, shown) = self.zone[index];
            let pod = self.hosts[host].pod.clone();
            let address = match shown {
                Shown::Current => Some(self.hosts[host].address),
                Shown::Other(address) => Some(address),
                Shown::Nothing => None,
            };
            let Some(ip) = address else {
                observation.unresolved.extend(pod);
                continue;
            };
            let answer = match self.answering(ip) {
                Some(at) if self.random.f64() >= loss => Ok(Box::new(self.report(at))),
                Some(_) => Err(Silence::Unreachable("timed out".to_owned())),
                None => Err(Silence::Refused),
            };
            let address = SocketAddr::new(ip, PORT);
            if !observation.peers.iter().any(|peer| peer.address == address && peer.pod == pod) {
                observation.peers.push(Peer { pod, address, answer });
            }
        }
        observation
    }

    /// What one server says of itself and of everybody.
    pub fn report(&self, at: usize) -> NodeReport {
        let server = &self.hosts[at].server;
        let places = (0..server.known.places()).filter_map(|place| Some((place, server.known.at(place)?)));
        let entries = places.map(|(place, known)| self.entry(at, place, known)).chain([self.own_entry(at)]);
        NodeReport {
            name: server.name.clone(),
            version: Some(Version::new(9, 1, 2)),
            view: View::new(entries.collect()).expect("a server knows itself"),
            cluster: ClusterInfo {
                ok: server.is_ok,
                slots_assigned: self.pieces.slots(server.assigned()),
                current_epoch: server.current_epoch,
            },
            keys: server.key_count(),
            used_memory: 0,
            save_failed: false,
            replication: Replication {
                link: server.follows.map(|_| ReplicaLink {
                    up: server.synced.is_some(),
                    syncing: server.synced.is_none() && server.sync_began.is_some(),
                    last_heard: server.synced.map(|_| Duration::ZERO),
                    down_for: None,
                }),
                offset: 0,
            },
            settings: server.settings,
        }
    }

    fn own_entry(&self, at: usize) -> NodeEntry {
        let server = &self.hosts[at].server;
        NodeEntry {
            id: self.node_id(server.id),
            ip: server.ip,
            port: PORT,
            tls_port: None,
            bus_port: BUS_PORT,
            hostname: None,
            role: server.follows.map_or(Role::Primary, |id| Role::Replica(Some(self.node_id(id)))),
            flags: Flags { myself: true, ..Flags::default() },
            config_epoch: server.epoch_of(server.follows.unwrap_or(server.id)),
            connected: true,
            slots: self.pieces.ranges(server.own_slots()),
            moving: Vec::new(),
        }
    }

    fn entry(&self, at: usize, place: Place, known: &Known) -> NodeEntry {
        let server = &self.hosts[at].server;
        let epoch_of = match known.role {
            Part::Replica(Some(primary)) => server.epoch_of(primary),
            _ => known.config_epoch,
        };
        let port = |port| if known.address.is_some() { port } else { 0 };
        NodeEntry {
            id: known.id.map_or_else(|| placeholder(at, place), |id| self.node_id(id)),
            ip: known.address,
            port: port(PORT),
            tls_port: None,
            bus_port: port(BUS_PORT),
            hostname: None,
            role: match known.role {
                Part::Primary => Role::Primary,
                Part::Replica(of) => Role::Replica(of.map(|id| self.node_id(id))),
            },
            flags: Flags {
                suspected: known.is_suspected,
                failed: known.failed.is_some(),
                handshake: known.id.is_none(),
                without_address: known.address.is_none(),
                ..Flags::default()
            },
            config_epoch: epoch_of,
            connected: known.link.is_some(),
            slots: self.pieces.ranges(known.id.map_or(0, |id| server.slots_of(id))),
            moving: Vec::new(),
        }
    }

    /// The addresses that DNS names at the moment.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let address = |(host, shown): &(usize, Shown)| match shown {
            Shown::Current => Some(self.hosts[*host].address),
            Shown::Other(address) => Some(*address),
            Shown::Nothing => None,
        };
        self.zone.iter().filter_map(address).collect()
    }
}

/// The id that a node has while it is not known, another one in each view.
fn placeholder(at: usize, place: Place) -> NodeId {
    NodeId::parse(&format!("ff{at:06x}{place:032x}")).expect("forty digits")
}
