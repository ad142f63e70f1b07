//! The door of a server: whether it lets clients in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::connection::Connection;
use super::error::silence;
use super::report::{next, view};
use crate::config::Credentials;
use crate::topology::node::NodeEntry;
use crate::topology::observation::Silence;

const LIMIT: &str = "maxclients";

/// A server that lets nobody in but us, over a connection that must therefore last: there would be no other.
///
/// `maxclients` counts the cluster's links as well, so where it is 1 every new connection is refused. The bus, and what the
/// server itself opens to its primary, are not held up by it. CLIENT PAUSE would not do: it ends by itself, and whoever
/// asks first then is answered.
#[derive(Debug)]
pub struct Door {
    connection: Connection,
    /// How many it let in before.
    limit: String,
}

impl Door {
    /// Shuts it, and throws out who is in. The server may take `patience` for each answer.
    pub async fn shut(address: SocketAddr, credentials: &Credentials, patience: Duration) -> Result<Self, Silence> {
        let mut connection = Connection::open((address, None), credentials, patience).await?;
        let mut ask = redis::pipe();
        ask.cmd("CONFIG").arg("GET").arg(LIMIT);
        let mut answers = connection.send(ask).await.map_err(|error| silence(&error))?.into_iter();
        let mut settings: BTreeMap<String, String> = next(&mut answers)?;
        let limit =
            settings.remove(LIMIT).ok_or_else(|| Silence::Unusable(format!("CONFIG GET does not show {LIMIT}")))?;
        let mut shut = redis::pipe();
        shut.cmd("CONFIG").arg("SET").arg(LIMIT).arg(1);
        for kind in ["normal", "pubsub"] {
            shut.cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes");
        }
        let mut door = Self { connection, limit };
        let done = match door.connection.send(shut).await {
            Ok(answers) => answers.into_iter().try_for_each(|answer| answer.map(drop)),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => Ok(door),
            Err(error) => {
                // What was done of it is of no use.
                door.open().await?;
                Err(silence(&error))
            }
        }
    }

    /// How the server sees itself in the cluster.
    pub async fn myself(&mut self) -> Result<NodeEntry, Silence> {
        let mut commands = redis::pipe();
        commands.cmd("CLUSTER").arg("NODES");
        let mut answers = self.connection.send(commands).await.map_err(|error| silence(&error))?.into_iter();
        Ok(view(&next::<String>(&mut answers)?)?.myself().clone())
    }

    /// Opens it.
    pub async fn open(&mut self) -> Result<(), Silence> {
        let mut commands = redis::pipe();
        commands.cmd("CONFIG").arg("SET").arg(LIMIT).arg(&self.limit);
        let mut answers = self.connection.send(commands).await.map_err(|error| silence(&error))?.into_iter();
        next(&mut answers)
    }
}
