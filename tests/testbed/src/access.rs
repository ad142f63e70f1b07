//! How clients of a test bed reach its servers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::{Client, Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

use crate::tls::{ClientTls, Issued, Wire};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The user, the password and the certificate, where servers ask for them.
#[derive(Clone, Default)]
pub struct Access {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) tls: Option<Arc<ClientTls>>,
}

impl Access {
    /// The user of that name, with this password.
    pub fn named((username, password): (String, String)) -> Self {
        Self { username: Some(username), password: Some(password), tls: None }
    }

    /// The default user with this password.
    pub fn with_password(password: Option<String>) -> Self {
        Self { username: None, password, tls: None }
    }

    /// The same with TLS, and with this certificate of that authority.
    pub fn over_tls(self, authority: &str, issued: &Issued) -> Result<Self> {
        Ok(Self { tls: Some(Arc::new(ClientTls::new(authority, Some(issued))?)), ..self })
    }

    /// A connection to a server, authenticated where a password is configured. Connecting takes 2 s at most and
    /// each answer 5 s.
    pub fn connect(&self, addr: SocketAddr) -> Result<Connection> {
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(password) = &self.password {
            settings = settings.set_password(password.clone());
        }
        if let Some(username) = &self.username {
            settings = settings.set_username(username.clone());
        }
        let (host, port) = (addr.ip().to_string(), addr.port());
        let client = match &self.tls {
            None => Client::open((host, port).into_connection_info()?.set_redis_settings(settings))?,
            Some(tls) => {
                let server = ConnectionAddr::TcpTls { host, port, insecure: true, tls_params: None };
                let info = server.into_connection_info()?.set_redis_settings(settings);
                Client::build_with_tls(info, tls.certificates.clone())?
            }
        };
        let connection = client.get_connection_with_timeout(CONNECT_TIMEOUT);
        let connection = connection.with_context(|| format!("connect to {addr}"))?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(connection)
    }

    /// The same without a certificate of one's own.
    pub fn without_certificate(&self) -> Result<Self> {
        let tls = self.tls.as_ref().map(|tls| tls.without_certificate().map(Arc::new));
        Ok(Self { tls: tls.transpose()?, ..self.clone() })
    }

    /// The same without TLS.
    pub fn without_tls(&self) -> Self {
        Self { tls: None, ..self.clone() }
    }

    /// The certificate that a server shows, in DER.
    pub fn certificate(&self, addr: SocketAddr) -> Result<Vec<u8>> {
        self.dial(addr, CONNECT_TIMEOUT)?.certificate()
    }

    /// A bare connection, not authenticated.
    pub(crate) fn dial(&self, addr: SocketAddr, patience: Duration) -> std::io::Result<Wire> {
        Wire::open(addr, self.tls.as_deref(), patience)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}
