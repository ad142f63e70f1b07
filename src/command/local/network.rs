//! Addresses: a loopback network that nobody else uses, one address a node.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};

use crate::exit::{Exit, Failure};

/// The last place in a network is that of DNS; the one before is the last for nodes.
const DNS_HOST: u8 = 254;

/// Who listens here, at the address of DNS, has the network.
const LEASE_PORT: u16 = 5352;

/// How far the bus port is from the client port, says the server.
const BUS_OFFSET: u16 = 10_000;

/// 127.A.B.0/24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    second: u8,
    third: u8,
}

/// A network that is ours as long as the value lives.
#[derive(Debug)]
pub(super) struct Network {
    prefix: Prefix,
    nodes: u8,
    port: u16,
    /// Two cannot listen at one address, so a network has one user at a time, whatever the ports; and the kernel ends
    /// the lease whatever ends us.
    _lease: TcpListener,
}

impl Prefix {
    /// The network of a loopback address; none for any other.
    pub(super) fn of(address: Ipv4Addr) -> Option<Self> {
        match address.octets() {
            [127, second, third, _] => Some(Self { second, third }),
            _ => None,
        }
    }

    fn host(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second, self.third, host)
    }

    /// The networks to try: far from 127.0.0.1, where everybody is.
    fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(|third| Self { second: 200, third })
    }
}

impl Network {
    /// The first network on which all ports of all nodes are free; `preferred` is tried before all others.
    pub(super) fn pick(nodes: usize, port: u16, preferred: Option<Prefix>) -> Result<Self, Failure> {
        let nodes = u8::try_from(nodes).ok().filter(|nodes| *nodes < DNS_HOST).ok_or_else(|| {
            Exit::Usage.saying(format!("a loopback network has room for {} nodes, not {nodes}", DNS_HOST - 1))
        })?;
        let bus_port = port.checked_add(BUS_OFFSET).filter(|_| port > 0).ok_or_else(|| {
            let last = u16::MAX - BUS_OFFSET;
            Exit::Usage
                .saying(format!("--port {port} is not between 1 and {last}; the bus takes the one {BUS_OFFSET} above"))
        })?;
        for prefix in preferred.into_iter().chain(Prefix::all()) {
            match lease(prefix, nodes, [port, bus_port]) {
                Ok(lease) => return Ok(Self { prefix, nodes, port, _lease: lease }),
                Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err((address, error)) => {
                    return Err(
                        Exit::Usage.because(anyhow::Error::new(error).context(format!("cannot listen at {address}")))
                    );
                }
            }
        }
        Err(Exit::Usage.saying(format!(
            "port {port}, {bus_port} or {LEASE_PORT} is taken on every loopback network, perhaps by a server that \
             listens at all addresses: choose another with --port"
        )))
    }

    /// The network's prefix.
    pub(super) fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// The client port of every node.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The addresses of the nodes, by ordinal.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Ipv4Addr> {
        (1..=self.nodes).map(|host| self.prefix.host(host))
    }

    /// The address for DNS.
    pub(super) fn dns(&self) -> Ipv4Addr {
        self.prefix.host(DNS_HOST)
    }
}

/// Takes the network, and tries the ports of its nodes.
fn lease(prefix: Prefix, nodes: u8, ports: [u16; 2]) -> Result<TcpListener, (SocketAddr, io::Error)> {
    let listen = |host, port| {
        let address = SocketAddrV4::new(prefix.host(host), port).into();
        TcpListener::bind(address).map_err(|error| (address, error))
    };
    let lease = listen(DNS_HOST, LEASE_PORT)?;
    for host in 1..=nodes {
        for port in ports {
            listen(host, port)?;
        }
    }
    Ok(lease)
}

/// `127.200.0.`: what the addresses of the network begin with.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "127.{}.{}.", self.second, self.third)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_never_have_the_same_network_at_the_same_time() {
        let first = Network::pick(3, 7711, None).map(|network| (network.prefix(), network));
        let second = Network::pick(3, 7711, None).map(|network| network.prefix());
        let with_another_port = Network::pick(3, 7713, None).map(|network| network.prefix());
        let first = first.as_ref().map(|(prefix, _)| *prefix).ok();
        assert!(first.is_some() && first != second.ok() && first != with_another_port.ok());
    }

    #[test]
    fn a_preferred_network_is_taken_when_it_is_free() {
        let preferred = Prefix { second: 201, third: 7 };
        let picked = Network::pick(3, 7712, Some(preferred)).ok();
        assert_eq!(picked.as_ref().map(Network::prefix), Some(preferred));
        let other = Network::pick(3, 7712, Some(preferred)).ok();
        assert!(other.is_some_and(|other| other.prefix() != preferred));
    }

    #[test]
    fn what_no_network_can_hold_is_wrong_usage() {
        for (nodes, port) in [(254, 6379), (3, 0), (3, 60_000)] {
            assert_eq!(Network::pick(nodes, port, None).err().map(|failure| failure.exit()), Some(Exit::Usage));
        }
    }
}
