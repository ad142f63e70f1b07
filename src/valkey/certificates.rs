//! The files that a server has its certificates from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use redis::{Pipeline, Value};

use super::Outcome;
use super::connection::{Connection, PATIENCE};
use super::error::{outcome, silence};
use super::report::next;
use crate::config::Credentials;
use crate::tls::{Files, Pair, Use};
use crate::topology::observation::Silence;

const AUTHORITY: &str = "tls-ca-cert-file";
/// Certificate and key: what clients and peers are shown, and what the server shows where it is the client.
const PAIRS: [[&str; 2]; 2] = [["tls-cert-file", "tls-key-file"], ["tls-client-cert-file", "tls-client-key-file"]];
const DIRECTORY: &str = "dir";
/// Whether certificates are asked for: of clients, and of peers.
const ASKS_CLIENTS: &str = "tls-auth-clients";
const ON_THE_BUS: &str = "tls-cluster";

/// What a server's settings say of them.
#[derive(Clone, Debug)]
pub struct CertificateSettings {
    named: BTreeMap<String, String>,
    /// What names are relative to.
    directory: PathBuf,
    /// Whether it asks clients for certificates.
    asks_clients: bool,
    /// Whether it has to show one to other servers: those of the cluster are taken to be as it is itself.
    is_asked: bool,
}

impl CertificateSettings {
    /// Asks the server at an address.
    pub async fn of(server: SocketAddr, credentials: &Credentials) -> Result<Self, Silence> {
        let mut connection = Connection::open((server, None), credentials, PATIENCE).await?;
        let mut commands = redis::pipe();
        let names: Vec<_> =
            PAIRS.into_iter().flatten().chain([AUTHORITY, DIRECTORY, ASKS_CLIENTS, ON_THE_BUS]).collect();
        commands.cmd("CONFIG").arg("GET").arg(names);
        let mut answers = connection.send(commands).await.map_err(|error| silence(&error))?.into_iter();
        let mut named: BTreeMap<String, String> = next(&mut answers)?;
        let directory = named.remove(DIRECTORY).map(PathBuf::from).unwrap_or_default();
        let asks_clients = named.remove(ASKS_CLIENTS).is_none_or(|value| value != "no");
        let on_the_bus = named.remove(ON_THE_BUS).is_some_and(|value| value == "yes");
        named.retain(|_, file| !file.is_empty());
        Ok(Self { named, directory, asks_clients, is_asked: asks_clients || on_the_bus })
    }

    /// Every pair, with the authorities, and what it is used for.
    pub fn files(&self) -> impl Iterator<Item = (Files, Vec<Use>)> {
        let [server, client] = PAIRS.map(|pair| self.pair(pair));
        let as_client = || self.is_asked.then_some(Use::Client);
        let of_server = [Use::Server].into_iter().chain(as_client().filter(|_| client.is_none())).collect();
        let of_client = as_client().into_iter().collect();
        server.map(|files| (files, of_server)).into_iter().chain(client.map(|files| (files, of_client)))
    }

    /// Whether whoever comes to it needs a certificate.
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    fn pair(&self, [cert, key]: [&str; 2]) -> Option<Files> {
        let file = |name: &str| self.named.get(name).map(|file| self.directory.join(Path::new(file)));
        Some(Files { ca: file(AUTHORITY), pair: Some(Pair { cert: file(cert)?, key: file(key)? }) })
    }

    /// Has the server read them anew, all at once: new connections use them, those that are open stay. What it cannot use
    /// it refuses, and keeps what it has.
    pub async fn load(&self, server: SocketAddr, credentials: &Credentials) -> Outcome {
        let mut connection = match Connection::open((server, None), credentials, PATIENCE).await {
            Ok(connection) => connection,
            Err(silence) => return Outcome::Unanswered(silence.to_string()),
        };
        let mut commands = Pipeline::with_capacity(1);
        let command = commands.cmd("CONFIG").arg("SET");
        for (name, file) in &self.named {
            command.arg(name).arg(file);
        }
        let answer = match connection.send(commands).await {
            Ok(answers) => answers.into_iter().next().unwrap_or(Ok(Value::Nil)),
            Err(error) => Err(error),
        };
        match answer {
            Ok(_) => Outcome::Done,
            Err(error) if error.is_timeout() || error.is_connection_dropped() || error.is_io_error() => {
                Outcome::Unanswered(silence(&error).to_string())
            }
            Err(error) => outcome(&error),
        }
    }
}
