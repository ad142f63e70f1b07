//! Other nodes that are asked about themselves again and again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::config::Credentials;
use crate::topology::drain::Peer;
use crate::topology::membership::Label;
use crate::topology::node::{NodeEntry, NodeId};
use crate::topology::observation::Silence;
use crate::topology::order::Order;
use crate::valkey::{Outcome, Server};

/// Connections to other nodes of the cluster, kept from one look to the next.
#[derive(Debug)]
pub(super) struct Peers {
    credentials: Credentials,
    servers: BTreeMap<SocketAddr, Server>,
}

impl Peers {
    /// No connection yet.
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, servers: BTreeMap::new() }
    }

    /// Asks these nodes, all at once; where a patience is given, whoever takes longer is silent. Those that are not asked
    /// this time are let go.
    pub(super) async fn ask<'n>(
        &mut self,
        nodes: impl IntoIterator<Item = &'n NodeEntry>,
        patience: Option<Duration>,
    ) -> Vec<Peer> {
        let asked: Vec<(NodeId, Label)> =
            nodes.into_iter().filter_map(|node| Some((node.id, Label::of(node)?))).collect();
        self.servers.retain(|address, _| asked.iter().any(|(_, label)| label.address == *address));
        for (_, label) in &asked {
            self.servers
                .entry(label.address)
                .or_insert_with(|| Server::at(label.address, self.credentials.clone(), true));
        }
        let answers = join_all(self.servers.iter_mut().map(|(address, server)| async {
            let answer = match patience {
                Some(patience) => timeout(patience, server.report())
                    .await
                    .unwrap_or_else(|_| Err(Silence::Unreachable("no answer in time".to_owned()))),
                None => server.report().await,
            };
            (*address, answer)
        }));
        let answers: BTreeMap<_, _> = answers.await.into_iter().collect();
        let peers = asked.into_iter().filter_map(|(id, label)| {
            let answer = answers.get(&label.address)?.clone();
            Some(Peer { id, label, answer })
        });
        peers.collect()
    }

    /// Tells a node to do something that was just asked.
    pub(super) async fn order(&mut self, peer: &Peer, order: Order) -> Outcome {
        match self.servers.get_mut(&peer.label.address) {
            Some(server) => server.order(order).await,
            None => Outcome::Failed("it was not asked".to_owned()),
        }
    }
}
