//! Talking to servers. The only module that knows redis-rs.

mod access;
mod certificates;
mod connection;
mod deeds;
mod door;
mod error;
mod lifeline;
mod mover;
mod ping;
mod report;
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;

use crate::config::Credentials;
use crate::tls;
use crate::topology::decision::{Action, Stage};
use crate::topology::identity::PodName;
use crate::topology::observation::Peer;

pub use access::{Access, AccessChange};
pub use certificates::CertificateSettings;
use connection::{Connection, PATIENCE};
pub use door::{Door, Lost};
pub use lifeline::Lifeline;
pub use mover::{Claim, Marks, Migration, MoveError, Mover, SlotState};
pub use server::Server;

/// An address to ask, and the pod that DNS says is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The pod, where DNS names one.
    pub pod: Option<PodName>,
    /// The address.
    pub address: SocketAddr,
}

/// Connections to servers, one an address, kept while they work.
///
/// A connection leads to one process for all its life: what is done over the connection that a report came from is done
/// on the node of that report, whoever may answer at the address by now.
#[derive(Debug)]
pub struct Fleet {
    credentials: Credentials,
    connections: BTreeMap<SocketAddr, Connection>,
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server did it.
    Done,
    /// It need not be done any more, or not yet again: somebody else was quicker, or the state has moved on.
    Moot(String),
    /// The server refused, or could not be reached.
    Failed(String),
    /// The server was told to and gave no answer: it may have done it.
    Unanswered(String),
    /// The user we log in as may not do it.
    Forbidden(String),
}

impl Candidate {
    fn whom(&self) -> (SocketAddr, Option<&PodName>) {
        (self.address, self.pod.as_ref())
    }
}

impl Fleet {
    /// No connection yet.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, connections: BTreeMap::new() }
    }

    /// Asks every candidate for its report, all at once; each has two seconds to accept, to log us in and to answer,
    /// or is silent.
    pub async fn observe(&mut self, candidates: &[Candidate]) -> Vec<Peer> {
        let credentials = &self.credentials;
        let asked = candidates.iter().map(|candidate| {
            let open = self.connections.get(&candidate.address).cloned();
            async move {
                let opened = match open {
                    Some(connection) => Ok(connection),
                    None => Connection::open(candidate.whom(), credentials, PATIENCE).await,
                };
                let (answer, connection) = match opened {
                    Ok(mut connection) => (report::ask(&mut connection).await, Some(connection)),
                    Err(silence) => (Err(silence), None),
                };
                (candidate, answer, connection)
            }
        });
        let answers = join_all(asked).await;
        self.connections.clear();
        let mut peers = Vec::with_capacity(answers.len());
        for (candidate, answer, connection) in answers {
            if let (Ok(_), Some(connection)) = (&answer, connection) {
                self.connections.insert(candidate.address, connection);
            }
            peers.push(Peer { pod: candidate.pod.clone(), address: candidate.address, answer: answer.map(Box::new) });
        }
        peers
    }

    /// For how long the certificates of those that answered last are still valid, where they have any.
    pub fn certificates(&self) -> BTreeMap<SocketAddr, Duration> {
        let connections = self.connections.iter();
        connections.filter_map(|(address, connection)| Some((*address, tls::left(connection.expires()?)))).collect()
    }

    /// Closes the connections.
    pub fn hang_up(&mut self) {
        self.connections.clear();
    }

    /// Does what a stage says, on all nodes at once; the actions of one node go over in one piece. Outcomes come in the
    /// order of the nodes' addresses.
    pub async fn execute<'s>(&mut self, stage: &'s Stage) -> Vec<(&'s Action, Outcome)> {
        let mut by_node: BTreeMap<SocketAddr, Vec<&'s Action>> = BTreeMap::new();
        for action in &stage.actions {
            by_node.entry(action.address).or_default().push(action);
        }
        let done = by_node.into_iter().map(|(address, actions)| {
            let connection = self.connections.get(&address).cloned();
            async move {
                match connection {
                    Some(mut connection) => deeds::execute(&mut connection, actions).await,
                    None => actions
                        .into_iter()
                        .map(|action| (action, Outcome::Failed("the connection is gone".to_owned())))
                        .collect(),
                }
            }
        });
        join_all(done).await.into_iter().flatten().collect()
    }
}
