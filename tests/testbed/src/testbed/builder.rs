//! What a test asks for.

use std::collections::BTreeMap;
use std::env;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU8;

use anyhow::{Context, Result};

use super::Testbed;
use crate::access::Access;
use crate::dns::DnsServer;
use crate::pod::{Pod, RunOptions};
use crate::program::{PORT, Program, SERVICE, STATEFULSET};
use crate::server::ServerOptions;
use crate::subnet::Subnet;
use crate::tls::Tls;
use crate::versions::Valkey;

pub(super) const DNS_HOST: u8 = 250;
/// From here on are those by which a pod's own `run` reaches its server, where that is another address.
const OWN_HOSTS: u8 = 201;

/// Where Linux has files in memory that anybody may make.
const MEMORY: &str = "/dev/shm";

/// The description of a test bed.
#[derive(Debug, Clone)]
#[must_use = "nothing is built before build()"]
pub struct Builder {
    valkey: Valkey,
    pods: u8,
    config: Vec<(String, String)>,
    start_servers: bool,
    binary: Option<PathBuf>,
    run: Option<Vec<String>>,
    in_memory: bool,
    apart: bool,
    users: Option<Users>,
    tls: Option<WhoSays>,
}

/// Who tells a server of its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhoSays {
    Config,
    Run,
}

/// Users and their passwords, where nobody is the default user.
#[derive(Debug, Clone)]
struct Users {
    tests: (String, String),
    program: (String, String),
}

impl Builder {
    pub(super) fn new(valkey: &Valkey) -> Self {
        Self {
            valkey: valkey.clone(),
            pods: 1,
            config: Vec::new(),
            start_servers: true,
            binary: None,
            run: None,
            in_memory: false,
            apart: false,
            users: None,
            tls: None,
        }
    }

    /// How many pods, 1 by default and 200 at most.
    pub fn pods(mut self, count: u8) -> Self {
        assert!(count <= 200, "the addresses above 200 are spare");
        self.pods = count;
        self
    }

    /// A directive for every server, its value as it stands in valkey.conf. With `requirepass` the
    /// helpers of the test bed authenticate, and replicas do unless `masterauth` says otherwise.
    pub fn config(mut self, directive: &str, value: &str) -> Self {
        self.config.push((directive.to_owned(), value.to_owned()));
        self
    }

    /// Whether [`Builder::build`] starts the servers, which it does by default.
    pub fn start_servers(mut self, yes: bool) -> Self {
        self.start_servers = yes;
        self
    }

    /// The program under test: `env!("CARGO_BIN_EXE_valkeeper")`.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Whether servers are started by `valkeeper run`; they are not by default. Takes [`Builder::binary`].
    pub fn supervised(mut self, yes: bool) -> Self {
        self.run = yes.then(|| self.run.unwrap_or_default());
        self
    }

    /// [`Builder::supervised`] with these arguments to `run`, which [`Pod::set_run_args`] replaces.
    pub fn run_args(mut self, args: &[&str]) -> Self {
        self.run = Some(args.iter().map(|&arg| arg.to_owned()).collect());
        self
    }

    /// Puts all files in memory, for a test that measures pauses: a server that takes over syncs its
    /// nodes.conf before it tells anybody, which takes seconds on a disk that others write to.
    pub fn in_memory(mut self, yes: bool) -> Self {
        self.in_memory = yes;
        self
    }

    /// Whether `run` reaches its own server at another address than everybody else does, and than it announces: as in a
    /// pod whose `run` is not told its address. Such pods do not move.
    pub fn apart(mut self, yes: bool) -> Self {
        assert!(self.pods <= 40, "each takes two addresses");
        self.apart = yes;
        self
    }

    /// The users, with their passwords, that the helpers of the test bed log in as and that the program under test does.
    /// The servers get to know them by [`Builder::config`].
    pub fn users(mut self, tests: (&str, &str), program: (&str, &str)) -> Self {
        let owned = |(name, password): (&str, &str)| (name.to_owned(), password.to_owned());
        self.users = Some(Users { tests: owned(tests), program: owned(program) });
        self
    }

    /// Every port speaks TLS and asks for certificates, which everybody has: the clients of the test bed, the program, and
    /// each pod one of its own. Under `run` the servers' configuration says nothing of it, as `run` knows.
    pub fn tls(mut self, yes: bool) -> Self {
        self.tls = yes.then_some(WhoSays::Run);
        self
    }

    /// [`Builder::tls`] where the servers' configuration says all of it, also under `run`.
    pub fn tls_in_config(mut self) -> Self {
        self.tls = Some(WhoSays::Config);
        self
    }

    /// Leases a network, starts the DNS server, makes the pods and waits until their servers answer;
    /// nodes do not know each other.
    pub fn build(mut self) -> Result<Testbed> {
        let password = self.configured("requirepass").map(str::to_owned);
        if let Some(password) = &password
            && self.configured("masterauth").or(self.configured("primaryauth")).is_none()
        {
            self.config.push(("masterauth".to_owned(), password.clone()));
        }
        let subnet = Subnet::lease();
        let parent = if self.in_memory { PathBuf::from(MEMORY) } else { env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("valkeeper-test-").tempdir_in(parent);
        let dir = dir.context("make the test bed's folder")?;
        let dns = DnsServer::start(IpAddr::V4(subnet.host(DNS_HOST)), SERVICE, PORT)?;
        let password = password.map(|password| password.trim_matches('"').to_owned());
        let (tests, ours) = match self.users {
            Some(users) => (Access::named(users.tests), Access::named(users.program)),
            None => (Access::with_password(password.clone()), Access::with_password(password)),
        };
        let names: Vec<String> = (0..self.pods).map(|ordinal| format!("{STATEFULSET}-{ordinal}")).collect();
        let certificates = self.tls.map(|_| dir.path().join("certificates"));
        let tls = certificates.as_ref().map(|dir| Tls::new(dir, SERVICE, &names)).transpose()?;
        let tests = Access { tls: tls.as_ref().map(Tls::client), ..tests };
        let program = Program { binary: self.binary, dns: dns.handle().addr(), access: ours, certificates };
        let run = self.run.map(|args| RunOptions { program: program.clone(), args, environment: BTreeMap::new() });
        let pod = |ordinal: u8| {
            let name = names[usize::from(ordinal)].clone();
            let addr = subnet.host(ordinal + 1);
            let said = match (&tls, self.tls) {
                (Some(_), Some(WhoSays::Run)) if run.is_some() => vec![("port".to_owned(), String::new())],
                (Some(tls), _) => tls.directives(ordinal.into(), PORT),
                (None, _) => Vec::new(),
            };
            let own = self.apart.then(|| subnet.host(OWN_HOSTS + ordinal));
            let both = own.map(|own| [("bind", format!("{addr} {own}")), ("cluster-announce-ip", addr.to_string())]);
            let bound = both.into_iter().flatten().map(|(directive, value)| (directive.to_owned(), value));
            let mut run = run.clone();
            if let (Some(run), Some(own)) = (&mut run, own) {
                run.environment.insert("POD_IP".to_owned(), own.to_string());
            }
            let options = ServerOptions {
                valkey: self.valkey.clone(),
                addr: IpAddr::V4(addr),
                port: PORT,
                dir: dir.path().join(&name),
                config: said.into_iter().chain(bound).chain(self.config.clone()).collect(),
            };
            Pod::new(name, ordinal.into(), addr, (options, tests.clone()), run, dns.handle().clone())
        };
        let bed = Testbed {
            pods: (0..self.pods).map(pod).collect(),
            program,
            access: tests,
            tls,
            next_host: AtomicU8::new(self.pods + 1),
            valkey: self.valkey,
            dns,
            dir,
            subnet,
        };
        if self.start_servers {
            bed.pods.iter().try_for_each(Pod::spawn)?;
            bed.pods.iter().try_for_each(Pod::wait_ready)?;
        }
        Ok(bed)
    }

    fn configured(&self, directive: &str) -> Option<&str> {
        // The last one counts, as it does for the server.
        let found = self.config.iter().rfind(|(name, _)| name == directive);
        found.map(|(_, value)| value.as_str())
    }
}
