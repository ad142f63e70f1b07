//! The names of the nodes, by real DNS: what Kubernetes would serve for a headless service of this cluster.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hickory_server::Server;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::proto::rr::rdata::{A, SOA, SRV};
use hickory_server::proto::rr::{LowerName, Name, RData, Record};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

use super::network::Network;
use super::{SERVICE, STATEFULSET};
use crate::exit::{Exit, Failure};

/// Ports without privileges, the usual one first; that is multicast DNS' too, and may be taken for the whole machine.
const PORTS: std::ops::Range<u16> = 5353..5453;
/// In seconds.
const TTL: u32 = 5;
const SERIAL: u32 = 1;

/// A DNS server; ends on drop.
pub(super) struct Dns {
    address: SocketAddr,
    _server: Server<Catalog>,
}

impl Dns {
    /// Serves the names of the network's nodes, over UDP and TCP.
    pub(super) async fn start(network: &Network) -> Result<Self, Failure> {
        /// A connection that says nothing for this long is closed.
        const IDLE: Duration = Duration::from_secs(30);
        const BUFFERED_RESPONSES: usize = 16;
        let catalog = catalog(network)
            .context("cannot make the zone of the local names")
            .map_err(|error| Exit::Bug.because(error))?;
        let (address, udp, tcp) = bind(network.dns())
            .await
            .with_context(|| format!("cannot serve DNS at {}", network.dns()))
            .map_err(|error| Exit::System.because(error))?;
        let mut server = Server::new(catalog);
        server.register_socket(udp);
        server.register_listener(tcp, IDLE, BUFFERED_RESPONSES);
        Ok(Self { address, _server: server })
    }

    /// Where it answers.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The first port that both protocols can have.
async fn bind(ip: Ipv4Addr) -> io::Result<(SocketAddr, UdpSocket, TcpListener)> {
    let mut last = io::ErrorKind::AddrInUse.into();
    for address in PORTS.map(|port| SocketAddr::from((ip, port))) {
        match (UdpSocket::bind(address).await, TcpListener::bind(address).await) {
            (Ok(udp), Ok(tcp)) => return Ok((address, udp, tcp)),
            (Err(error), _) | (_, Err(error)) => last = error,
        }
    }
    Err(last)
}

fn catalog(network: &Network) -> anyhow::Result<Catalog> {
    let origin = Name::from_ascii(format!("{SERVICE}."))?;
    let service = Name::from_ascii(format!("_valkey._tcp.{SERVICE}."))?;
    let soa = SOA::new(origin.prepend_label("ns")?, origin.prepend_label("mail")?, SERIAL, 3600, 600, 86400, TTL);
    let mut records = vec![(origin.clone(), RData::SOA(soa))];
    for (ordinal, ip) in network.nodes().enumerate() {
        let pod = origin.prepend_label(format!("{STATEFULSET}-{ordinal}"))?;
        records.push((pod.clone(), RData::A(A(ip))));
        records.push((origin.clone(), RData::A(A(ip))));
        records.push((service.clone(), RData::SRV(SRV::new(0, 100, network.port(), pod))));
    }
    let mut zone: InMemoryZoneHandler<TokioRuntimeProvider> =
        InMemoryZoneHandler::empty(origin.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    for (name, data) in records {
        let shown = name.to_string();
        anyhow::ensure!(zone.upsert_mut(Record::from_rdata(name, TTL, data), SERIAL), "a record of {shown} is refused");
    }
    let mut catalog = Catalog::new();
    catalog.upsert(LowerName::new(&origin), vec![Arc::new(zone)]);
    Ok(catalog)
}
