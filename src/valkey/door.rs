//! The door of a server: whether it lets clients in.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::connection::Connection;
use super::error::silence;
use super::report::{next, view};
use crate::config::Credentials;
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

/// The connection is gone: nobody can open the door any more.
#[derive(Debug)]
pub struct Lost(Silence);

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
        let answers = door.connection.send(shut).await;
        match answers.and_then(|answers| answers.into_iter().try_for_each(|answer| answer.map(drop))) {
            Ok(()) => Ok(door),
            Err(error) => {
                // What was done of it is of no use.
                door.open().await.map_err(|Lost(silence)| silence)?;
                Err(silence(&error))
            }
        }
    }

    /// Whether it owns slots, as it sees itself; none where it gives no answer to that.
    pub async fn owns_slots(&mut self) -> Result<Option<bool>, Lost> {
        let mut commands = redis::pipe();
        commands.cmd("CLUSTER").arg("NODES");
        let nodes = self.ask(commands).await?.and_then(|nodes| redis::from_redis_value::<String>(nodes).ok());
        Ok(nodes.and_then(|nodes| view(&nodes).ok()).map(|view| view.myself().owns_slots()))
    }

    /// Opens it; whether the server has.
    pub async fn open(&mut self) -> Result<bool, Lost> {
        let mut commands = redis::pipe();
        commands.cmd("CONFIG").arg("SET").arg(LIMIT).arg(&self.limit);
        Ok(self.ask(commands).await?.is_some())
    }

    /// Ends the server, which saves nothing.
    pub async fn end(mut self) {
        let mut commands = redis::pipe();
        commands.cmd("SHUTDOWN").arg("NOSAVE").arg("NOW");
        // It says nothing more.
        drop(self.ask(commands).await);
    }

    /// The answer, if there is one.
    async fn ask(&mut self, command: Pipeline) -> Result<Option<Value>, Lost> {
        match self.connection.send(command).await {
            Ok(answers) => Ok(answers.into_iter().next().and_then(Result::ok)),
            Err(error) if error.is_timeout() => Ok(None),
            Err(error) => Err(Lost(silence(&error))),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
