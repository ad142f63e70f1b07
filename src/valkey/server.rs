//! One server, asked about itself and told what to do: our own, or one that is to take over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisResult, Value};

use super::Outcome;
use super::connection::{Connection, PATIENCE};
use super::error::{outcome, silence};
use super::mover::{Migration, keeps_even};
use super::ping::ping;
use super::report::{cluster_info, next, view};
use crate::config::Credentials;
use crate::topology::observation::Silence;
use crate::topology::order::Order;
use crate::topology::parse::Info;
use crate::topology::server::{ClusterView, ServerReport};
use crate::topology::version::Version;

const NO_FAILOVER: &str = "cluster-replica-no-failover";
const GUARD: &str = "stop-writes-on-bgsave-error";
const DIRECTORY: &str = "dir";

/// One server, over one connection at a time.
///
/// An order goes over the connection that the last report came from: so it reaches the very process that was looked
/// at, whoever answers at the address by now.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    credentials: Credentials,
    in_cluster: bool,
    patience: Duration,
    /// Whether its slots are kept even: others see it by the connection's name.
    kept_even: bool,
    version: Option<Version>,
    /// As it said with its last report.
    directory: Option<PathBuf>,
    connection: Option<Connection>,
}

impl Server {
    /// The server at an address; `in_cluster` where it is to be asked for its view of the cluster.
    pub fn at(address: SocketAddr, credentials: Credentials, in_cluster: bool) -> Self {
        Self {
            address,
            credentials,
            in_cluster,
            patience: PATIENCE,
            kept_even: false,
            version: None,
            directory: None,
            connection: None,
        }
    }

    /// The same with another time for the connection, and for each answer, than two seconds.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same, on which others are to see whether its slots are kept even: see `Mover::is_kept_even`.
    pub fn kept_even(self, kept_even: bool) -> Self {
        Self { kept_even, ..self }
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks it for its report: one round trip, two seconds at most for the connection and as long for the answer.
    pub async fn report(&mut self) -> Result<ServerReport, Silence> {
        let mut connection = self.connect().await?;
        let (report, directory) = ask(&mut connection, self.in_cluster, self.version).await?;
        self.version = report.version;
        self.directory = directory;
        self.connection = Some(connection);
        Ok(report)
    }

    /// Tells it to do something; only right after a report.
    pub async fn order(&mut self, order: Order) -> Outcome {
        let Some(connection) = &mut self.connection else {
            return Outcome::Failed("the connection is gone".to_owned());
        };
        let mut commands = Pipeline::with_capacity(1);
        commands.add_command(command(order));
        let answer = match connection.send(commands).await {
            Ok(answers) => answers.into_iter().next().unwrap_or(Ok(Value::Nil)),
            Err(error) => Err(error),
        };
        match (order, answer) {
            (_, Ok(_)) => Outcome::Done,
            // A server that shuts down says nothing more.
            (Order::Shutdown { .. }, Err(error)) if error.is_connection_dropped() || error.is_io_error() => {
                Outcome::Done
            }
            (_, Err(error)) if error.is_timeout() || error.is_connection_dropped() || error.is_io_error() => {
                self.connection = None;
                Outcome::Unanswered(silence(&error).to_string())
            }
            (_, Err(error)) => outcome(&error),
        }
    }

    /// The directory that its data is in, as it says; asks where no report has told.
    pub async fn directory(&mut self) -> Option<PathBuf> {
        if self.directory.is_some() {
            return self.directory.clone();
        }
        let mut commands = redis::pipe();
        commands.cmd("CONFIG").arg("GET").arg(DIRECTORY);
        let mut connection = self.connect().await.ok()?;
        let mut answers = connection.send(commands).await.ok()?.into_iter();
        self.connection = Some(connection);
        let config: BTreeMap<String, String> = next(&mut answers).ok()?;
        config.get(DIRECTORY).map(PathBuf::from)
    }

    /// The same without asking: what the last report told, unless we may not read the configuration.
    pub fn known_directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Whether its event loop answers; any answer will do, be it an error. Asks nothing that needs to be let in.
    pub async fn answers(&mut self) -> Result<(), Silence> {
        let Some(mut connection) = self.connection.take() else {
            return ping(self.address, self.credentials.tls.as_ref(), self.patience).await;
        };
        let mut commands = redis::pipe();
        commands.cmd("PING");
        connection.send(commands).await.map_err(|error| silence(&error))?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn connect(&mut self) -> Result<Connection, Silence> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = Connection::open((self.address, None), &self.credentials, self.patience).await?;
        if self.kept_even {
            let mut commands = Pipeline::with_capacity(1);
            commands.add_command(keeps_even());
            // A user who may not do it can still be told of the server.
            connection.send(commands).await.map_err(|error| silence(&error))?;
        }
        Ok(connection)
    }
}

/// The report, and the directory of the data.
async fn ask(
    connection: &mut Connection,
    in_cluster: bool,
    version: Option<Version>,
) -> Result<(ServerReport, Option<PathBuf>), Silence> {
    // Known from the last report; an older server would count the question as an error.
    let migrates = in_cluster && version.is_some_and(|version| version >= Version::ATOMIC_MIGRATION);
    let mut commands = redis::pipe();
    commands.cmd("INFO").arg(["server", "persistence", "replication", "keyspace"].as_slice());
    commands.cmd("CONFIG").arg("GET").arg([NO_FAILOVER, GUARD, DIRECTORY].as_slice());
    if in_cluster {
        commands.cmd("CLUSTER").arg("NODES");
        commands.cmd("CLUSTER").arg("INFO");
    }
    if migrates {
        commands.cmd("CLUSTER").arg("GETSLOTMIGRATIONS");
    }
    let answers = connection.send(commands).await.map_err(|error| silence(&error))?;
    let mut answers = answers.into_iter();
    let info = Info::parse(&next::<String>(&mut answers)?);
    // A user who may not read the configuration may still drain.
    let config: BTreeMap<String, String> = next(&mut answers).unwrap_or_default();
    let loading = info.loading();
    let cluster = match in_cluster && loading.is_none() {
        true => Some(cluster_view(&mut answers)?),
        false => None,
    };
    let migrations = match migrates && loading.is_none() {
        true => next::<Vec<BTreeMap<String, Value>>>(&mut answers).unwrap_or_default(),
        false => Vec::new(),
    };
    let is_on = |name| config.get(name).is_some_and(|value| value == "yes");
    let leaving = cluster.as_ref().is_some_and(|cluster| cluster.view.myself().flags.no_failover) || is_on(NO_FAILOVER);
    let directory = config.get(DIRECTORY).map(PathBuf::from);
    let report = ServerReport {
        version: info.version(),
        run_id: info.run_id(),
        uptime: info.uptime(),
        loading,
        replication: info.replication(),
        persistence: info.persistence(),
        keys: info.keys(),
        leaving,
        guards_writes: is_on(GUARD),
        migrations: migrations.iter().filter(|fields| Migration::read(fields).runs()).count(),
        cluster,
    };
    Ok((report, directory))
}

fn cluster_view(answers: &mut impl Iterator<Item = RedisResult<Value>>) -> Result<ClusterView, Silence> {
    let nodes: String = next(answers)?;
    let info: String = next(answers)?;
    Ok(ClusterView { view: view(&nodes)?, ok: cluster_info(&info)?.ok })
}

fn command(order: Order) -> Cmd {
    let words = |words: &[&str]| {
        let mut words = words.iter();
        let mut command = redis::cmd(words.next().copied().unwrap_or_default());
        for word in words {
            command.arg(*word);
        }
        command
    };
    match order {
        Order::MarkLeaving => words(&["CONFIG", "SET", NO_FAILOVER, "yes"]),
        Order::CancelMigrations => words(&["CLUSTER", "CANCELSLOTMIGRATIONS"]),
        Order::TakeOver => words(&["CLUSTER", "FAILOVER"]),
        Order::TakeOverFromDead => words(&["CLUSTER", "FAILOVER", "FORCE"]),
        Order::PauseWrites(time) => {
            let mut command = words(&["CLIENT", "PAUSE"]);
            command.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).arg("WRITE");
            command
        }
        Order::ResumeWrites => words(&["CLIENT", "UNPAUSE"]),
        Order::GuardWrites(guard) => words(&["CONFIG", "SET", GUARD, if guard { "yes" } else { "no" }]),
        Order::Save => words(&["BGSAVE"]),
        Order::SaveLater => words(&["BGSAVE", "SCHEDULE"]),
        Order::Shutdown { force: false } => words(&["SHUTDOWN", "NOSAVE", "NOW"]),
        Order::Shutdown { force: true } => words(&["SHUTDOWN", "NOSAVE", "NOW", "FORCE"]),
        Order::LetGo(settings) => {
            let mut command = words(&["CONFIG", "SET"]);
            for (name, value) in settings.directives() {
                command.arg(name).arg(value);
            }
            command
        }
        Order::AppendOnly => words(&["CONFIG", "SET", "appendonly", "yes"]),
    }
}
