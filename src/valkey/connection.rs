//! One connection to one server.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, RedisError, RedisResult, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::silence;
use crate::config::{Credentials, Secret};
use crate::tls::{self, Tls};
use crate::topology::identity::PodName;
use crate::topology::observation::Silence;

/// How long a server may take to accept a connection, and how long to answer. A server that takes longer is busy with
/// something that blocks it, and is asked again in the next round.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// A connection that is logged in.
#[derive(Clone)]
pub(super) struct Connection {
    inner: MultiplexedConnection,
    /// What carries bytes to and fro; it ends with the last copy of the connection.
    _carrier: Arc<JoinSet<()>>,
    /// The password that let us in.
    password: Option<Secret>,
    /// When the certificate of the server is no longer valid, where it has one.
    expires: Option<SystemTime>,
}

/// What a connection is made of.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Connection {
    /// Opens one to a server that may take `patience` to accept, and as long for each answer. The pod, where it is known,
    /// is what its certificate must say.
    pub(super) async fn open(
        (address, pod): (SocketAddr, Option<&PodName>),
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, Silence> {
        let (stream, expires) = timeout(patience, connect(address, pod, credentials.tls.as_ref()))
            .await
            .unwrap_or_else(|_| Err(Silence::Unreachable("no answer in time".to_owned())))?;
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(patience));
        let made = MultiplexedConnection::new_with_config(&settings, stream, config).await;
        let (inner, carrier) = made.map_err(|error| silence(&error))?;
        let mut carriers = JoinSet::new();
        carriers.spawn(carrier);
        let mut connection = Self { inner, _carrier: Arc::new(carriers), password: None, expires };
        connection.log_in(credentials).await?;
        Ok(connection)
    }

    /// We log in ourselves because the library does not tell what the server says to a wrong password. A server that has
    /// not heard of our password yet takes a former one.
    async fn log_in(&mut self, credentials: &Credentials) -> Result<(), Silence> {
        let username = credentials.username.as_deref();
        let mut denied = Ok(());
        for password in credentials.keyring.passwords() {
            let mut auth = redis::cmd("AUTH");
            auth.arg(username).arg(password.reveal());
            match auth.query_async::<()>(&mut self.inner).await {
                Ok(()) => {
                    self.password = Some(password);
                    return Ok(());
                }
                Err(error) if error.code() == Some("WRONGPASS") => denied = denied.and(Err(refusal(&error, username))),
                Err(error) => return Err(refusal(&error, username)),
            }
        }
        denied
    }

    /// The password that let us in.
    pub(super) fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// When the certificate of the server is no longer valid, where it has one.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// Sends commands in one piece; one result a command.
    pub(super) async fn send(&mut self, mut commands: Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        commands.ignore_errors();
        commands.query_async(&mut self.inner).await
    }
}

/// Bytes to and fro, and when the server's certificate ends.
async fn connect(
    address: SocketAddr,
    pod: Option<&PodName>,
    tls: Option<&Tls>,
) -> Result<(Box<dyn Stream>, Option<SystemTime>), Silence> {
    let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
    match tls {
        Some(tls) => {
            let stream = tls.greet(stream, pod).await?;
            let expires = tls::expires(&stream);
            Ok((Box::new(stream), expires))
        }
        None => Ok((Box::new(stream), None)),
    }
}

/// Why a server could not be reached.
pub(super) fn unreachable(error: &io::Error) -> Silence {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Silence::Refused,
        _ => Silence::Unreachable(error.to_string()),
    }
}

/// What the server says to our password, where it is known not to repeat it; a server that does not know AUTH quotes its
/// arguments.
fn refusal(error: &RedisError, username: Option<&str>) -> Silence {
    match silence(error) {
        Silence::Denied(why) => Silence::Denied(match username {
            Some(name) => format!("{why} We are the user {name:?}"),
            None => format!("{why} We are the default user: where that is off, --username names another"),
        }),
        Silence::Unusable(why) if why.contains("without any password configured") => {
            Silence::Denied("it has no password, and we were given one".to_owned())
        }
        Silence::Unusable(_) => Silence::Denied("it does not take AUTH".to_owned()),
        other => other,
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
