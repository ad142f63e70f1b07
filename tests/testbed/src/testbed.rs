//! Pods, their network and their DNS, built for one test.

mod builder;
mod client;
mod cluster;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::access::Access;
use crate::dns::{Dns, DnsServer};
use crate::pod::Pod;
use crate::process::die_with_parent;
use crate::program::{Program, SERVICE};
use crate::subnet::Subnet;
use crate::tls::Tls;
use crate::versions::Valkey;
pub use builder::Builder;

/// A StatefulSet with its headless service on loopback addresses. Drop ends all of it; in a thread
/// that panics it first prints every pod's log and view of the cluster.
#[derive(Debug)]
pub struct Testbed {
    valkey: Valkey,
    program: Program,
    access: Access,
    tls: Option<Tls>,
    next_host: AtomicU8,
    // In the order in which they end: the servers, then the folder they write to, the lease last.
    pods: Vec<Pod>,
    dns: DnsServer,
    dir: TempDir,
    subnet: Subnet,
}

impl Testbed {
    /// Starts the description of a test bed.
    pub fn builder(valkey: &Valkey) -> Builder {
        Builder::new(valkey)
    }

    /// The pod of that ordinal. Panics where there is none.
    pub fn pod(&self, ordinal: usize) -> &Pod {
        &self.pods[ordinal]
    }

    /// All pods, by ordinal.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The script of the DNS server.
    pub fn dns(&self) -> &Dns {
        self.dns.handle()
    }

    /// The network of this test.
    pub fn subnet(&self) -> &Subnet {
        &self.subnet
    }

    /// A folder that goes with the test bed.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The version under test.
    pub fn valkey(&self) -> &Valkey {
        &self.valkey
    }

    /// The full name of the headless service.
    pub fn service(&self) -> &'static str {
        SERVICE
    }

    /// The full name of a pod.
    pub fn host_name(&self, ordinal: usize) -> String {
        format!("{}.{SERVICE}", self.pod(ordinal).name())
    }

    /// The password of requirepass, where it was configured, or that of the tests' own user.
    pub fn password(&self) -> Option<&str> {
        self.access.password.as_deref()
    }

    /// The tests' own user, of [`Builder::users`].
    pub fn username(&self) -> Option<&str> {
        self.access.username.as_deref()
    }

    /// How the tests themselves reach the servers.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The certificates. Panics where the test bed was built without TLS.
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("Builder::tls")
    }

    /// From now on the helpers of the test bed log in with this password, and so does the program but under `run`.
    pub fn set_password(&mut self, password: &str) {
        self.access.password = Some(password.to_owned());
        self.program.access.password = Some(password.to_owned());
    }

    /// An address no pod has had. Panics when the network is used up.
    pub fn spare_addr(&self) -> Ipv4Addr {
        let host = self.next_host.fetch_add(1, Ordering::Relaxed);
        assert!(host < builder::DNS_HOST, "no spare address is left");
        self.subnet.host(host)
    }

    /// The program under test with an environment of nothing but PATH and what leads it to this test
    /// bed. Dies with the thread that spawns it. Panics where the builder was given no binary.
    pub fn valkeeper(&self, args: &[&str]) -> Command {
        let mut command = self.program.command(args);
        die_with_parent(&mut command);
        command
    }

    /// [`Testbed::valkeeper`] as it runs inside a pod, which names itself by POD_NAME and POD_IP.
    pub fn valkeeper_in(&self, ordinal: usize, args: &[&str]) -> Command {
        let pod = self.pod(ordinal);
        let mut command = self.program.command_in(pod.name(), pod.addr(), args);
        die_with_parent(&mut command);
        command
    }

    /// [`wait_for`](crate::wait_for), whose error also holds the tail of every server's log.
    pub fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        self.as_cluster().wait_for(what, deadline, condition)
    }

    fn print_state(&self) {
        for pod in &self.pods {
            let (name, addr) = (pod.name(), pod.addr());
            let nodes = self.cluster_nodes(pod.ordinal());
            let nodes = nodes.unwrap_or_else(|error| format!("{error:#}"));
            eprintln!("--- {name} {addr}, log:\n{}", pod.log_tail());
            if pod.is_supervised() {
                eprintln!("--- {name} {addr}, log of run:\n{}", pod.run_log());
            }
            eprintln!("--- {name} {addr}, CLUSTER NODES:\n{nodes}");
        }
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if thread::panicking() {
            self.print_state();
        }
    }
}
