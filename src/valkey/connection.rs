//! One connection to one server.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, Pipeline, RedisConnectionInfo, RedisError,
    RedisResult, Value,
};

use super::error::silence;
use crate::config::{Credentials, Secret};
use crate::topology::observation::Silence;

/// How long a server may take to accept a connection, and how long to answer. A server that takes longer is busy with
/// something that blocks it, and is asked again in the next round.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// A connection that is logged in.
#[derive(Clone)]
pub(super) struct Connection {
    inner: MultiplexedConnection,
    /// The password that let us in.
    password: Option<Secret>,
}

impl Connection {
    /// Goes on with an open connection, or opens one.
    pub(super) async fn reuse(
        open: Option<Self>,
        address: SocketAddr,
        credentials: &Credentials,
    ) -> Result<Self, Silence> {
        match open {
            Some(connection) => Ok(connection),
            None => Self::open(address, credentials, PATIENCE).await,
        }
    }

    /// Opens one to a server that may take `patience` to accept, and as long for each answer.
    pub(super) async fn open(
        address: SocketAddr,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, Silence> {
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = ConnectionAddr::Tcp(address.ip().to_string(), address.port())
            .into_connection_info()
            .map(|info| info.set_redis_settings(settings))
            .map_err(|error| silence(&error))?;
        let client = Client::open(info).map_err(|error| silence(&error))?;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(Some(patience));
        let inner =
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| silence(&error))?;
        let mut connection = Self { inner, password: None };
        connection.log_in(credentials).await?;
        Ok(connection)
    }

    /// We log in ourselves because the library does not tell what the server says to a wrong password. A server that has
    /// not heard of our password yet takes a former one.
    async fn log_in(&mut self, credentials: &Credentials) -> Result<(), Silence> {
        let mut denied = Ok(());
        for password in credentials.keyring.passwords() {
            let mut auth = redis::cmd("AUTH");
            if let Some(username) = &credentials.username {
                auth.arg(username);
            }
            auth.arg(password.reveal());
            match auth.query_async::<()>(&mut self.inner).await {
                Ok(()) => {
                    self.password = Some(password);
                    return Ok(());
                }
                Err(error) if error.code() == Some("WRONGPASS") => denied = denied.and(Err(refusal(&error))),
                Err(error) => return Err(refusal(&error)),
            }
        }
        denied
    }

    /// The password that let us in.
    pub(super) fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Sends commands in one piece; one result a command.
    pub(super) async fn send(&mut self, mut commands: Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        commands.ignore_errors();
        commands.query_async(&mut self.inner).await
    }
}

/// What the server says to our password, where it is known not to repeat it; a server that does not know AUTH quotes its
/// arguments.
fn refusal(error: &RedisError) -> Silence {
    match silence(error) {
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
