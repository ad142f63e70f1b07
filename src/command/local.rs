//! `valkeeper local`: a whole cluster on this machine, until Ctrl-C.
//!
//! Every node has a loopback address of its own, as pods have theirs, and a name in a DNS server of ours. So the
//! cluster is found and formed by the very code that does it in Kubernetes, and everything else can be tried on it.

mod authority;
mod dns;
mod home;
mod network;
mod program;
mod servers;
mod welcome;

use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{bootstrap, render};
use crate::cli::LocalArgs;
use crate::config::{self, Credentials, Reach, Service};
use crate::exit::{Exit, Failure};
use crate::observer::Observer;
use crate::tls::{Files, Names, Tls};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::identity::ClusterId;
use dns::Dns;
use home::Home;
use network::Network;
use servers::Servers;

/// The DNS name of the service, without the closing dot.
const SERVICE: &str = "valkey.local";
/// What the nodes are called, as a StatefulSet would call them.
const STATEFULSET: &str = "valkey";

/// How long servers may take to save and end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the cluster is.
#[derive(Clone, Copy)]
struct Place<'p> {
    network: &'p Network,
    dns: &'p Dns,
    home: &'p Home,
    /// The files with the certificates, where TLS is spoken.
    tls: Option<&'p Files>,
}

/// Runs the command until `stop` is over.
pub async fn run(args: &LocalArgs, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    let desired = DesiredTopology { cluster: cluster()?, shape: config::shape(&args.shape)? };
    let program = program::find(&args.server)?;
    let home = Home::open(args.data_dir.as_deref())?;
    let network = Network::pick(desired.shape.members(), args.port, home.network())?;
    home.move_to(&network)?;
    let tls = args.tls.then(|| authority::make(home.path(), &network)).transpose()?;
    let dns = Dns::start(&network).await?;
    let mut servers = Servers::default();
    let stop = async {
        tokio::select! {
            () = stop => {}
            () = hangup() => {}
        }
    };
    let ended = async {
        servers.start(&program, &home, &network, tls.as_ref()).await?;
        let place = Place { network: &network, dns: &dns, home: &home, tls: tls.as_ref() };
        session(args, &desired, place, &mut servers, std::pin::pin!(stop)).await
    }
    .await;
    tracing::info!("stopping {}", if home.is_kept() { "the servers; they save their data" } else { "the servers" });
    servers.stop(PATIENCE, another_signal()).await;
    let closed = home.close();
    ended.and(closed)
}

/// Forms the cluster, says how to reach it, and stays.
async fn session(
    args: &LocalArgs,
    desired: &DesiredTopology,
    place: Place<'_>,
    servers: &mut Servers,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Failure> {
    let reach = Reach {
        service: Service::Names(vec![SERVICE.to_owned()]),
        statefulset: Some(STATEFULSET.to_owned()),
        port: place.network.port(),
        dns_servers: vec![place.dns.address()],
        cluster: Some(desired.cluster.clone()),
        credentials: Credentials { tls: place.tls.map(speak).transpose()?, ..Credentials::default() },
    };
    let mut observer = Observer::new(&reach, desired.shape.members())?;
    let formed = tokio::select! {
        formed = bootstrap::form(&mut observer, desired, Policy::FORM, args.timeout, stop.as_mut()) => formed?,
        ended = servers.next_end() => {
            ended.tell();
            return Err(Exit::Unavailable.saying(format!("{ended} while the cluster was being formed")));
        }
    };
    render::print(&welcome::text(&formed, desired, args, place)?)?;
    loop {
        tokio::select! {
            () = stop.as_mut() => return Ok(()),
            ended = servers.next_end() => ended.tell(),
        }
        match servers.is_empty() {
            true => return Err(Exit::Unavailable.saying("no server is left")),
            false => tracing::warn!("the others go on"),
        }
    }
}

fn speak(files: &Files) -> Result<Tls, Failure> {
    Tls::new(files.clone(), Names::PodsOf(vec![SERVICE.to_owned()]), false).map_err(|error| Exit::Bug.because(error))
}

fn cluster() -> Result<ClusterId, Failure> {
    ClusterId::new(SERVICE).ok_or_else(|| Exit::Bug.saying(format!("{SERVICE} is no cluster id")))
}

/// Is over when the terminal is closed, and never under nohup.
async fn hangup() {
    /// The first bit of the mask is the first signal's.
    const SIGHUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    match ignored.is_some_and(|mask| mask & SIGHUP != 0) {
        true => std::future::pending().await,
        false => next(SignalKind::hangup()).await,
    }
}

/// Is over at the next SIGINT or SIGTERM from now on.
async fn another_signal() {
    tokio::select! {
        () = next(SignalKind::interrupt()) => {}
        () = next(SignalKind::terminate()) => {}
    }
}

async fn next(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}
