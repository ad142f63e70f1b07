//! What moving slots takes of one server.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Value};

use super::connection::Connection;
use super::error::{describe, is_forbidden, silence, with_remedy};
use super::report;
use crate::config::{Credentials, Secret};
use crate::topology::node::NodeId;
use crate::topology::observation::Silence;
use crate::topology::slot::{Slot, SlotSet};

/// A connection over which slots are moved. Every call is one round trip.
#[derive(Clone, Debug)]
pub struct Mover {
    connection: Connection,
    credentials: Credentials,
}

/// What the connections of a run that moves slots key by key are called, at their sources: other than those of any other
/// run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim(String);

/// What the connection of `run --auto-rebalance` to its own server is called.
const KEEPS_EVEN: &str = "valkeeper-keeps-even";

const FOLLOWS: &str = "cluster-allow-replica-migration";

/// Which slots a node sends, and to whom.
pub type Marks = BTreeMap<Slot, NodeId>;

/// CLUSTER SETSLOT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// This node receives the slot from the node of this id.
    Importing(NodeId),
    /// This node, its owner, sends it to the node of this id.
    Migrating(NodeId),
    /// The node of this id owns it from now on.
    Node(NodeId),
    /// It is not on its way.
    Stable,
}

/// An atomic migration that a server takes part in, or took part in lately: those that have ended stay in the list for a
/// while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its name: other than that of any before.
    pub name: String,
    /// Whether this server sends.
    pub is_export: bool,
    /// How far it is, in the server's words.
    pub state: String,
    /// What the server says about it.
    pub message: String,
}

/// Why a slot could not be moved now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// Things have changed: somebody else has moved it, or the servers have changed places. To look again tells.
    #[error("{0}")]
    Overtaken(String),
    /// It may work when tried again: no answer, a target that is busy.
    #[error("{0}")]
    Passing(String),
    /// Another run moves slots of the same source.
    #[error("{0}")]
    Busy(String),
    /// The user we log in as may not do it.
    #[error("{0}")]
    Forbidden(String),
}

/// Replies that say that somebody else was quicker or that a server has changed places. The next look tells.
const OVERTAKEN: [&str; 9] = [
    "I'm not the owner of hash slot",
    "I'm already the owner of hash slot",
    "I don't know about node",
    "Unknown node",
    "Please use SETSLOT only with",
    "Target node is not a",
    "while I still hold keys for this hash slot",
    "MOVED",
    // It waited for its replicas when it became one itself.
    "UNBLOCKED",
];

impl Claim {
    const PREFIX: &str = "valkeeper-moves-";

    /// Of a run that begins.
    pub fn random() -> Self {
        Self(format!("{}{:016x}", Self::PREFIX, RandomState::new().hash_one(())))
    }

    /// Where another run is connected from, as CLIENT LIST says.
    fn rival<'l>(&self, clients: &'l str) -> Option<&'l str> {
        clients.lines().find_map(|line| {
            let field = |name| line.split(' ').find_map(|field| field.strip_prefix(name));
            let name = field("name=").filter(|name| name.starts_with(Self::PREFIX) && *name != self.0);
            name.map(|_| field("addr=").unwrap_or("nobody knows where"))
        })
    }
}

impl Mover {
    /// Opens a connection to a server that may take this long to accept, and as long for each answer.
    pub async fn open(address: SocketAddr, credentials: &Credentials, patience: Duration) -> Result<Self, Silence> {
        let connection = Connection::open((address, None), credentials, patience).await?;
        Ok(Self { connection, credentials: credentials.clone() })
    }

    /// Who answers.
    pub async fn id(&mut self) -> Result<Option<NodeId>, MoveError> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("MYID");
        let ids: Vec<String> = self.ask([command]).await?;
        Ok(ids.first().and_then(|id| NodeId::parse(id)))
    }

    /// Whether what this connection leads to still answers.
    pub async fn ping(&mut self) -> Result<(), MoveError> {
        self.ask::<()>([redis::cmd("PING")]).await.map(drop)
    }

    /// Claims the server that all of these are connected to as a source: from now on as long as one of them stands, whoever
    /// asks for another claim is told that it is busy. Whoever is told so has to close them, as its own claim stands in
    /// the way, too: of two that ask at the same moment none may get it.
    pub async fn claim(connections: &mut [Self], claim: &Claim) -> Result<(), MoveError> {
        for connection in connections.iter_mut() {
            connection.ask::<()>([set_name(&claim.0)]).await?;
        }
        let Some(first) = connections.first_mut() else { return Ok(()) };
        match claim.rival(&first.clients().await?) {
            Some(rival) => Err(MoveError::Busy(format!("another run, at {rival}, moves slots of it"))),
            None => Ok(()),
        }
    }

    /// Whether `run` beside the server gives slots away by itself, now or later.
    pub async fn is_kept_even(&mut self) -> Result<bool, MoveError> {
        let clients = self.clients().await?;
        Ok(clients.split_whitespace().any(|field| field.strip_prefix("name=") == Some(KEEPS_EVEN)))
    }

    /// CLIENT LIST.
    async fn clients(&mut self) -> Result<String, MoveError> {
        let mut list = redis::cmd("CLIENT");
        list.arg("LIST").arg("TYPE").arg("normal");
        Ok(self.ask([list]).await?.pop().unwrap_or_default())
    }

    /// Sets each slot's state. On 8.0 and newer the answer comes when the replicas have it too, after two seconds at most.
    /// One result a slot.
    pub async fn set(&mut self, slots: &[Slot], state: SlotState) -> Result<Vec<Result<(), MoveError>>, MoveError> {
        let answers = self.send(slots.iter().map(|slot| set_slot(*slot, state))).await?;
        Ok(answers.into_iter().map(|answer| answer.map(drop).map_err(|error| failed(&error))).collect())
    }

    /// The slots that this node sends, and to whom, as it marks them now.
    pub async fn exports(&mut self) -> Result<Marks, MoveError> {
        let texts: Vec<String> = self.ask([nodes()]).await?;
        texts.first().map_or_else(|| Ok(Marks::new()), |text| marks(text))
    }

    /// Up to so many names of keys of each slot.
    pub async fn keys(&mut self, slots: &[Slot], most: usize) -> Result<Vec<Vec<Vec<u8>>>, MoveError> {
        let commands = slots.iter().map(|slot| {
            let mut command = redis::cmd("CLUSTER");
            command.arg("GETKEYSINSLOT").arg(slot.number()).arg(most);
            command
        });
        self.ask(commands).await
    }

    /// How many keys of each slot there are, in all databases.
    pub async fn count(&mut self, slots: &[Slot]) -> Result<Vec<u64>, MoveError> {
        let databases = self.databases().await?;
        let mut counts = vec![0_u64; slots.len()];
        for database in 0..databases {
            if databases > 1 {
                self.select(database).await?;
            }
            let commands = slots.iter().map(|slot| {
                let mut command = redis::cmd("CLUSTER");
                command.arg("COUNTKEYSINSLOT").arg(slot.number());
                command
            });
            let found: Vec<u64> = self.ask(commands).await?;
            counts.iter_mut().zip(found).for_each(|(count, found)| *count = count.saturating_add(found));
        }
        Ok(counts)
    }

    /// How many bytes each key takes in memory; none for one that is gone.
    pub async fn sizes(&mut self, keys: impl Iterator<Item = &Vec<u8>>) -> Result<Vec<Option<u64>>, MoveError> {
        let commands = keys.map(|key| {
            let mut command = Cmd::with_capacity(3, "MEMORYUSAGE".len() + key.len());
            command.arg("MEMORY").arg("USAGE").arg(key.as_slice());
            command
        });
        self.ask(commands).await
    }

    /// How many databases the cluster has: one, but for servers since 9.0 that were told otherwise.
    pub async fn databases(&mut self) -> Result<u32, MoveError> {
        Ok(self.setting("cluster-databases").await?.and_then(|number| number.parse().ok()).unwrap_or(1))
    }

    /// Whether the server follows whoever takes the last slot of its shard.
    pub async fn follows(&mut self) -> Result<bool, MoveError> {
        Ok(self.setting(FOLLOWS).await?.is_none_or(|is| is != "no"))
    }

    /// Whether it is to.
    pub async fn let_follow(&mut self, follows: bool) -> Result<(), MoveError> {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(FOLLOWS).arg(if follows { "yes" } else { "no" });
        self.ask::<()>([command]).await.map(drop)
    }

    /// What the server's configuration says, where it knows such a directive.
    async fn setting(&mut self, name: &str) -> Result<Option<String>, MoveError> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        let mut found: Vec<BTreeMap<String, String>> = self.ask([command]).await?;
        Ok(found.first_mut().and_then(|found| found.remove(name)))
    }

    /// From now on what is listed, measured and moved is of this database.
    pub async fn select(&mut self, database: u32) -> Result<(), MoveError> {
        let mut command = redis::cmd("SELECT");
        command.arg(database);
        self.send([command]).await?.into_iter().try_for_each(|answer| answer.map(drop).map_err(|error| failed(&error)))
    }

    /// Moves keys of one slot to the same database of another server; the server serves nobody meanwhile. A key that is
    /// there already is replaced: see `command::rebalance::keywise` for why that is right.
    pub async fn migrate(
        &mut self,
        (target, database): (SocketAddr, u32),
        keys: impl Iterator<Item = &[u8]>,
        timeout: Duration,
    ) -> Result<(), MoveError> {
        let mut command = redis::cmd("MIGRATE");
        command.arg(target.ip().to_string()).arg(target.port()).arg("").arg(database).arg(milliseconds(timeout));
        command.arg("REPLACE");
        let keys: Vec<_> = keys.collect();
        let mut done = Err(MoveError::Passing("the target does not let us in".to_owned()));
        for password in self.passwords() {
            let mut command = command.clone();
            match (&self.credentials.username, &password) {
                (Some(username), Some(password)) => {
                    command.arg("AUTH2").arg(username).arg(password.reveal());
                }
                (None, Some(password)) => {
                    command.arg("AUTH").arg(password.reveal());
                }
                (_, None) => {}
            }
            command.arg("KEYS").arg(&keys);
            let answers = self.send([command]).await?;
            let answered =
                |answer: RedisResult<Value>| answer.map(drop).map_err(|error| without_arguments(failed(&error)));
            done = answers.into_iter().try_for_each(answered);
            // Nothing has been moved then.
            if !matches!(&done, Err(MoveError::Passing(what)) if what.contains("WRONGPASS")) {
                break;
            }
        }
        done
    }

    /// What may let the server into another one, which may have heard of our new password sooner, or later: first what
    /// has let us in here.
    fn passwords(&self) -> Vec<Option<Secret>> {
        let Some(first) = self.connection.password() else {
            return vec![None];
        };
        let others = self.credentials.keyring.passwords().into_iter().filter(|password| password != first);
        std::iter::once(first.clone()).chain(others).map(Some).collect()
    }

    /// Begins an atomic migration from this server; 9.0 and newer.
    pub async fn migrate_slots(&mut self, slots: &SlotSet, target: NodeId) -> Result<(), MoveError> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("MIGRATESLOTS").arg("SLOTSRANGE");
        for range in slots.ranges() {
            command.arg(range.first().number()).arg(range.last().number());
        }
        command.arg("NODE").arg(target.to_string());
        let answers = self.send([command]).await?;
        answers.into_iter().try_for_each(|answer| answer.map(drop).map_err(|error| failed(&error)))
    }

    /// The atomic migrations of this server, those that have ended lately among them.
    pub async fn migrations(&mut self) -> Result<Vec<Migration>, MoveError> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("GETSLOTMIGRATIONS");
        let lists: Vec<Vec<BTreeMap<String, Value>>> = self.ask([command]).await?;
        Ok(lists.into_iter().flatten().map(|fields| Migration::read(&fields)).collect())
    }

    async fn ask<T: FromRedisValue>(&mut self, commands: impl IntoIterator<Item = Cmd>) -> Result<Vec<T>, MoveError> {
        self.send(commands).await?.into_iter().map(read).collect()
    }

    async fn send(&mut self, commands: impl IntoIterator<Item = Cmd>) -> Result<Vec<RedisResult<Value>>, MoveError> {
        let mut pipeline = Pipeline::new();
        for command in commands {
            pipeline.add_command(command);
        }
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        self.connection.send(pipeline).await.map_err(|error| failed(&error))
    }
}

impl Migration {
    /// Whether it is still under way.
    pub fn runs(&self) -> bool {
        !matches!(self.state.as_str(), "success" | "failed" | "canceled" | "cancelled")
    }

    /// Whether the slots have gone over.
    pub fn has_succeeded(&self) -> bool {
        self.state == "success"
    }

    pub(super) fn read(fields: &BTreeMap<String, Value>) -> Self {
        let text = |name| {
            let value = fields.get(name).map(redis::from_redis_value_ref::<String>);
            value.and_then(Result::ok).unwrap_or_default()
        };
        Self {
            name: text("name"),
            is_export: text("operation").eq_ignore_ascii_case("export"),
            state: text("state"),
            message: text("message"),
        }
    }
}

fn read<T: FromRedisValue>(answer: RedisResult<Value>) -> Result<T, MoveError> {
    let value = answer.map_err(|error| failed(&error))?;
    redis::from_redis_value(value).map_err(|error| MoveError::Passing(error.to_string()))
}

/// For a connection to a server whose slots are kept even.
pub(super) fn keeps_even() -> Cmd {
    set_name(KEEPS_EVEN)
}

fn set_name(name: &str) -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg("SETNAME").arg(name);
    command
}

fn nodes() -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("NODES");
    command
}

/// The observer's own marks in an answer to CLUSTER NODES.
fn marks(nodes: &str) -> Result<Marks, MoveError> {
    let view = report::view(nodes).map_err(|why| MoveError::Passing(why.to_string()))?;
    Ok(view.myself().exports().collect())
}

fn set_slot(slot: Slot, state: SlotState) -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SETSLOT").arg(slot.number());
    match state {
        SlotState::Importing(from) => command.arg("IMPORTING").arg(from.to_string()),
        SlotState::Migrating(to) => command.arg("MIGRATING").arg(to.to_string()),
        SlotState::Node(owner) => command.arg("NODE").arg(owner.to_string()),
        SlotState::Stable => command.arg("STABLE"),
    };
    command
}

fn failed(error: &RedisError) -> MoveError {
    let what = describe(error);
    if is_forbidden(error) {
        MoveError::Forbidden(with_remedy(&what))
    } else if OVERTAKEN.iter().any(|text| what.contains(text)) {
        MoveError::Overtaken(what)
    } else if error.is_io_error() || error.is_timeout() {
        MoveError::Passing(silence(error).to_string())
    } else {
        MoveError::Passing(what)
    }
}

/// A server that does not know MIGRATE quotes what it was told, and the password is in it.
fn without_arguments(error: MoveError) -> MoveError {
    match error {
        MoveError::Passing(what) if what.contains("unknown command") => {
            MoveError::Forbidden("the server does not know MIGRATE".to_owned())
        }
        other => other,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
