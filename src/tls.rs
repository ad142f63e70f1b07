//! TLS towards servers: whom we believe, by which name, and how we prove who we are. The only room that knows rustls.

mod expiry;
mod files;
mod trust;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, Error};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::topology::identity::PodName;
use crate::topology::observation::Silence;

pub use files::{Files, Pair, Stamps};
pub use trust::{Names, Use};

/// A stream to a server that has proved who it is.
pub type Stream = TlsStream<TcpStream>;

/// How servers are reached over TLS. Whoever has a copy sees new certificates at once.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    names: Names,
    /// Whoever answers is believed.
    insecure: bool,
    /// Whether new files are looked for before each connection; else when asked to.
    follows_files: bool,
    loaded: watch::Sender<Loaded>,
}

/// What the files held when they were read last.
struct Loaded {
    stamps: Stamps,
    config: Arc<ClientConfig>,
    /// When our own certificate is no longer valid, where we have one.
    expires: Option<SystemTime>,
}

impl Tls {
    /// Reads the files; the error names the one that is wrong.
    pub fn new(files: Files, names: Names, insecure: bool) -> anyhow::Result<Self> {
        let loaded = watch::Sender::new(Loaded::read(&files, &names, insecure)?);
        Ok(Self { inner: Arc::new(Inner { files, names, insecure, follows_files: true, loaded }) })
    }

    /// With what the files hold now, until [`Self::reload`]: for whoever has somebody that sees to it.
    pub fn until_told(&self) -> anyhow::Result<Self> {
        let Inner { files, names, insecure, .. } = &*self.inner;
        let loaded = watch::Sender::new(Loaded::read(files, names, *insecure)?);
        let (files, names, insecure) = (files.clone(), names.clone(), *insecure);
        Ok(Self { inner: Arc::new(Inner { files, names, insecure, follows_files: false, loaded }) })
    }

    /// For our own server, which nobody else can be at our own address: believed whatever its certificate says, so that it
    /// can be given another. Stays with what the files hold now, which the server knows, until [`Self::reload`].
    pub fn to_own_server(&self) -> anyhow::Result<Self> {
        Self::new(self.inner.files.clone(), Names::Any, true)?.until_told()
    }

    /// For a question that any answer will do for: believes whoever answers. Shows our certificate where it can be used, as
    /// a server that wants one says in its log who comes without.
    pub fn to_anybody(pair: Option<Pair>) -> anyhow::Result<Self> {
        let with = |pair| Self::new(Files { ca: None, pair }, Names::Any, true);
        with(pair).or_else(|_| with(None))
    }

    /// Whether servers need not prove who they are.
    pub fn is_insecure(&self) -> bool {
        self.inner.insecure
    }

    /// The files.
    pub fn files(&self) -> &Files {
        &self.inner.files
    }

    /// What the files were when they were read last.
    pub fn stamps(&self) -> Stamps {
        self.inner.loaded.borrow().stamps.clone()
    }

    /// When our own certificate is no longer valid, where we have one.
    pub fn expires(&self) -> Option<SystemTime> {
        self.inner.loaded.borrow().expires
    }

    /// Speaks TLS over a connection that is open. The server must be that pod, or any of the service where the pod is not
    /// known, and must have said something, which shows that it takes our certificate.
    pub async fn greet(&self, stream: TcpStream, pod: Option<&PodName>) -> Result<Stream, Silence> {
        let ip = stream.peer_addr().map_err(|error| Silence::Unreachable(error.to_string()))?.ip();
        let name = self.inner.names.asked(pod, ip);
        if self.inner.follows_files
            && let Err(error) = self.reload()
        {
            tracing::debug!("the certificates have changed and cannot be used, the old ones stay in use: {error:#}");
        }
        let connector = TlsConnector::from(self.inner.loaded.borrow().config.clone());
        let mut stream = connector.connect(name, stream).await.map_err(|error| self.silence(&error))?;
        // A server that wants another certificate of us says so only after the handshake.
        hear(&mut stream).await.map_err(|error| self.silence(&error))?;
        Ok(stream)
    }

    /// From now on, what the files hold now, where that can be used; else what they held before.
    pub fn reload(&self) -> anyhow::Result<()> {
        let Inner { files, names, insecure, loaded, .. } = &*self.inner;
        if files.stamps() != self.stamps() {
            check(files, &[])?;
            loaded.send_replace(Loaded::read(files, names, *insecure)?);
        }
        Ok(())
    }

    /// Whether others who reach servers as we do would believe what these files hold of that pod, at that address.
    pub fn check_server(&self, files: &Files, pod: Option<&PodName>, ip: Option<IpAddr>) -> anyhow::Result<()> {
        let Inner { names, insecure, files: ours, .. } = &*self.inner;
        let asked = match (names, ip) {
            // Nobody has said where others reach it.
            (Names::Address, None) => return Ok(()),
            (_, ip) => names.asked(pod, ip.unwrap_or(Ipv4Addr::LOCALHOST.into())),
        };
        match (files.identity()?, &files.pair) {
            (Some((chain, _)), Some(pair)) if !insecure => trust::check_name(ours.roots()?, &chain, names, &asked)
                .with_context(|| format!("{}", pair.cert.display())),
            _ => Ok(()),
        }
    }

    fn silence(&self, error: &std::io::Error) -> Silence {
        let known = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match known {
            Some(error) => trust::silence(error, &self.inner.files),
            None => Silence::Unreachable(format!("{error}, in the TLS handshake")),
        }
    }
}

impl Loaded {
    fn read(files: &Files, names: &Names, insecure: bool) -> anyhow::Result<Self> {
        let stamps = files.stamps();
        let roots = files.roots()?;
        let identity = files.identity()?;
        let expires = identity.as_ref().and_then(|(chain, _)| chain.first()).and_then(expiry::not_after);
        let config = Arc::new(trust::client(roots, identity, names, insecure)?);
        Ok(Self { stamps, config, expires })
    }
}

/// Whether what the files hold can be used for this, or for anything where nothing is said: the key is that of the
/// certificate, an authority among them has made it, and it is valid now. The error names the file.
pub fn check(files: &Files, uses: &[Use]) -> anyhow::Result<()> {
    let (roots, identity) = (files.roots()?, files.identity()?);
    match (identity, &files.pair) {
        (Some(identity), Some(pair)) => {
            trust::check(&roots, identity, uses).with_context(|| format!("{}", pair.cert.display()))
        }
        _ => Ok(()),
    }
}

/// How long it is until then; zero where it is past. Certificates go by the clock.
pub fn left(end: SystemTime) -> Duration {
    let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    end.saturating_sub(Duration::from_secs(UnixTime::now().as_secs()))
}

/// When the certificate of a server is no longer valid.
pub fn expires(stream: &Stream) -> Option<SystemTime> {
    stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain: &[CertificateDer<'_>]| chain.first())
        .and_then(expiry::not_after)
}

/// Asks for any word of the server, and takes the whole line.
async fn hear(stream: &mut Stream) -> std::io::Result<()> {
    /// Longer than anything that a server says to PING, or to a client that it does not want.
    const MOST: usize = 4096;
    stream.write_all(b"PING\r\n").await?;
    // A write may end with the bytes still on this side, and reading does not send them.
    stream.flush().await?;
    for _ in 0..MOST {
        if stream.read_u8().await? == b'\n' {
            break;
        }
    }
    Ok(())
}

impl Names {
    /// The name that stands for the server in the handshake.
    fn asked(&self, pod: Option<&PodName>, ip: IpAddr) -> ServerName<'static> {
        let name = match self {
            Self::Exactly(name) => Some(name.clone()),
            Self::PodsOf(services) => services.first().map(|service| match pod {
                Some(pod) => format!("{pod}.{service}"),
                None => service.clone(),
            }),
            Self::Address | Self::Any => None,
        };
        name.and_then(|name| ServerName::try_from(name).ok()).unwrap_or(ServerName::IpAddress(ip.into()))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.inner.files)
            .field("names", &self.inner.names)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Tls {}
