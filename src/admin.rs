//! What is told over HTTP: the probes, and numbers for a monitoring. The only module that knows hyper.
//!
//! It keeps on answering whatever others do: a client that is slow or never ends its request loses its place when places
//! are short, and a fault in one answer ends nothing but that answer.

mod answer;
mod exposition;
mod guests;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::exit::{Exit, Failure};
use crate::topology::probe::{Probe, Reconciliation, Verdict};
pub use exposition::Exposition;
use guests::{Guests, Place};

/// How long a client may take to say what it wants.
const HEAD: Duration = Duration::from_secs(5);
/// What is added to the patience of whoever answers, so that its own words about a hanging server are the ones heard.
const SLACK: Duration = Duration::from_millis(500);
/// How long a client may take to hear the answer out.
const BODY: Duration = Duration::from_secs(5);
/// The least that hyper takes.
const BUFFER: usize = 8 * 1024;

/// Whose health is told.
pub trait Health: Send + Sync + 'static {
    /// How long an answer takes at most.
    fn patience(&self) -> Duration;

    /// The answer to a probe, within that time.
    fn ask(&self, probe: Probe) -> impl Future<Output = Verdict> + Send;

    /// How far keeping the cluster in its shape is, for people to see beside any answer; none where that is not done.
    fn reconciliation(&self) -> Option<Reconciliation>;

    /// What is known in numbers, without asking anybody; nothing where nobody counts.
    fn metrics(&self) -> Exposition {
        Exposition::default()
    }
}

/// A place where HTTP is listened to.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Listens there.
    pub async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let bind = async {
            let listener = match TcpListener::bind(address).await {
                Err(error) => match without_ipv6(address, error.kind()) {
                    Some(address) => TcpListener::bind(address).await?,
                    None => return Err(error.into()),
                },
                bound => bound?,
            };
            let address = listener.local_addr()?;
            anyhow::Ok(Self { listener, address })
        };
        bind.await
            .with_context(|| {
                format!("cannot listen on {address} for probes; give --listen an address that is free here")
            })
            .map_err(|error| Exit::System.because(error))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the future is dropped, and every connection with it.
    pub async fn serve(&self, health: impl Health) -> ! {
        /// So as not to spin where there are no file descriptors left.
        const PAUSE: Duration = Duration::from_millis(100);
        let health = Arc::new(health);
        let mut guests = Guests::default();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        match guests.place() {
                            Some(place) => guests.admit(place.clone(), visit(stream, place, Arc::clone(&health))),
                            None => answer::turn_away(&stream),
                        }
                        // Where many come at once, what one has said already is heard before the next can take its place.
                        yield_now().await;
                    }
                    Err(error) => {
                        tracing::warn!("cannot accept a connection on {}: {error}", self.address);
                        sleep(PAUSE).await;
                    }
                },
                () = guests.leave() => {}
            }
        }
    }
}

/// Where to listen in place of `[::]`, which is every address of both families, on a machine that has no IPv6. What it
/// says then has no kind of its own; the kinds left out are those that IPv4 would not help with.
fn without_ipv6(address: SocketAddr, error: ErrorKind) -> Option<SocketAddr> {
    let helps =
        address.ip() == Ipv6Addr::UNSPECIFIED && !matches!(error, ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
    helps.then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

/// One connection: one request, one answer.
async fn visit<H: Health>(stream: TcpStream, place: Place, health: Arc<H>) {
    let longest = HEAD + health.patience() + SLACK + BODY;
    let service = service_fn(|request| {
        place.mark_asked();
        answer::to(request, health.as_ref())
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(longest, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("a connection ended early: {error}"),
        Err(_) => tracing::debug!("a connection lasted too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_address_is_that_of_either_family() {
        let admin = Admin::bind("[::]:0".parse().unwrap()).await.unwrap();
        let port = admin.address().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        }
    }

    #[test]
    fn without_ipv6_every_address_is_that_of_ipv4() {
        let every: SocketAddr = "[::]:9121".parse().unwrap();
        // Address family not supported by protocol.
        let unknown = std::io::Error::from_raw_os_error(97).kind();
        assert_eq!(without_ipv6(every, unknown), Some("0.0.0.0:9121".parse().unwrap()));
        assert_eq!(without_ipv6(every, ErrorKind::AddrInUse), None);
        assert_eq!(without_ipv6("[::1]:9121".parse().unwrap(), unknown), None);
        assert_eq!(without_ipv6("0.0.0.0:9121".parse().unwrap(), unknown), None);
    }
}
