//! A real DNS server, over UDP and TCP, whose answers and faults a test scripts while it runs.

mod handler;
mod headless;
mod zone;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
pub use hickory_server::proto::rr::RecordType;
use tokio::sync::oneshot;

use crate::locked::locked;
use handler::Handler;
pub use zone::{Answer, Fault, Transport};
use zone::{Zone, key};

const TCP_TIMEOUT: Duration = Duration::from_secs(30);
const TCP_BUFFER: usize = 16;
const PORT_TRIES: usize = 20;

/// The script: a handle that changes what the server answers from now on. Clones share one zone.
/// Names are full, case does not matter and a last dot may be left out.
#[derive(Debug, Clone)]
pub struct Dns {
    addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

/// The server. It has a thread of its own, and ends on drop.
#[derive(Debug)]
pub struct DnsServer {
    handle: Dns,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Where the server listens, UDP and TCP alike.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Replaces all records of `name`, in the order they are answered; may hold duplicates.
    pub fn set(&self, name: &str, answers: Vec<Answer>) {
        locked(&self.zone).records.insert(key(name), answers);
    }

    /// [`Dns::set`] with addresses only.
    pub fn set_addresses(&self, name: &str, addresses: &[IpAddr]) {
        self.set(name, addresses.iter().copied().map(Answer::from).collect());
    }

    /// The records of `name`, empty where it does not exist.
    pub fn get(&self, name: &str) -> Vec<Answer> {
        let zone = locked(&self.zone);
        zone.records.get(&key(name)).cloned().unwrap_or_default()
    }

    /// Removes `name`: it does not exist from now on.
    pub fn remove(&self, name: &str) {
        locked(&self.zone).records.remove(&key(name));
    }

    /// Answers queries for `name` with that fault, in place of the one for all.
    pub fn fault(&self, name: &str, fault: Fault) {
        locked(&self.zone).faults.insert(key(name), fault);
    }

    /// Answers all queries with that fault.
    pub fn fault_all(&self, fault: Fault) {
        locked(&self.zone).fault_all = Some(fault);
    }

    /// Ends the fault of `name`.
    pub fn heal(&self, name: &str) {
        locked(&self.zone).faults.remove(&key(name));
    }

    /// Ends all faults.
    pub fn heal_all(&self) {
        let mut zone = locked(&self.zone);
        zone.faults.clear();
        zone.fault_all = None;
    }

    /// How many queries for `name` came with that type and transport, answered or not.
    pub fn queries(&self, name: &str, record: RecordType, transport: Transport) -> usize {
        let zone = locked(&self.zone);
        let count = zone.queries.get(&(key(name), record, transport));
        count.copied().unwrap_or(0)
    }

    /// How many queries came in all.
    pub fn queries_total(&self) -> usize {
        locked(&self.zone).queries.values().sum()
    }

    /// Counts queries from zero again.
    pub fn forget_queries(&self) {
        locked(&self.zone).queries.clear();
    }

    /// Whether records follow the pods' addresses; they do by default. Switched on again, they catch
    /// up at the next change of a pod.
    pub fn auto(&self, on: bool) {
        locked(&self.zone).headless.auto = on;
    }

    /// Whether the service's port is named, which is when SRV records exist; it is by default.
    pub fn srv(&self, on: bool) {
        let mut zone = locked(&self.zone);
        zone.headless.srv = on;
        zone.publish();
    }

    /// Takes the pod out of the service and removes its name, as when the pod is deleted.
    pub fn pod_gone(&self, pod: &str) {
        let mut zone = locked(&self.zone);
        zone.headless.pods.remove(pod);
        zone.publish();
    }

    /// Publishes the pod at that address, as when it is created.
    pub fn pod_moved(&self, pod: &str, addr: Ipv4Addr) {
        let mut zone = locked(&self.zone);
        zone.headless.pods.insert(pod.to_owned(), addr);
        zone.publish();
    }
}

impl DnsServer {
    /// Serves on a port above 1024 that is free at `ip` for both protocols. `service` is the full name
    /// of the headless service that pods are published under, `port` the one SRV records name.
    pub fn start(ip: IpAddr, service: &str, port: u16) -> Result<Self> {
        let (udp, tcp) = bind(ip)?;
        let handle = Dns { addr: udp.local_addr()?, zone: Arc::new(Mutex::new(Zone::new(service, port))) };
        let (stop, stopped) = oneshot::channel();
        let handler = Handler::new(handle.zone.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = async move {
            let mut server = hickory_server::Server::new(handler);
            server.register_socket(tokio::net::UdpSocket::from_std(udp).expect("UDP socket"));
            let tcp = tokio::net::TcpListener::from_std(tcp).expect("TCP listener");
            server.register_listener(tcp, TCP_TIMEOUT, TCP_BUFFER);
            // Answers and a sender that is gone mean the same: the owner wants the end.
            let _ = stopped.await;
        };
        let thread = thread::Builder::new().name("dns".to_owned()).spawn(move || runtime.block_on(serve))?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// The handle a test scripts the server with.
    pub fn handle(&self) -> &Dns {
        &self.handle
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The kernel picks the TCP port; somebody may hold the UDP port of that number.
fn bind(ip: IpAddr) -> Result<(UdpSocket, TcpListener)> {
    let once = || -> Result<_> {
        let tcp = TcpListener::bind((ip, 0))?;
        let udp = UdpSocket::bind(tcp.local_addr()?)?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok((udp, tcp))
    };
    let found = (1..PORT_TRIES).find_map(|_| once().ok());
    found.map_or_else(once, Ok).with_context(|| format!("bind a DNS server at {ip}"))
}
