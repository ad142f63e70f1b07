//! What the options of `run` and the server's own configuration come to, checked before anything is begun.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::aof;
use super::keep::Wanted;
use crate::cli::{Mode, OnPrimaryLost, RunArgs};
use crate::config::{self, Credentials, Reach, Service};
use crate::datadir;
use crate::exit::{Exit, Failure};
use crate::topology::budget::Budget;
use crate::topology::desired::DesiredTopology;
use crate::topology::drain::{DrainPolicy, SavePolicy};
use crate::topology::identity::{PodName, Site};
use crate::topology::parse::{Arguments, ServerConfig};
use crate::valkey::Server;

/// What is wanted of a pod, and what is known of it.
pub(super) struct Settings {
    pub(super) command: Vec<OsString>,
    /// What the server will read; none where the command is no server, but something that may start one.
    pub(super) config: Option<ServerConfig>,
    pub(super) address: SocketAddr,
    pub(super) name: Option<PodName>,
    pub(super) ip: Option<IpAddr>,
    pub(super) site: Site,
    pub(super) credentials: Credentials,
    /// For our own server.
    pub(super) to_own_server: Credentials,
    /// Where the password is read from, and read again.
    pub(super) password_file: Option<PathBuf>,
    /// How long a former password stays valid.
    pub(super) password_overlap: Duration,
    pub(super) policy: DrainPolicy,
    pub(super) reach: Option<Reach>,
    /// What the pods are to be; none where there is no cluster, or none that could be found.
    pub(super) wanted: Option<Wanted>,
    pub(super) takes_over: bool,
    /// What this pod forms where no cluster stands, if that is for it.
    pub(super) forms: Option<DesiredTopology>,
    /// Whether slots of this node are moved so that all primaries own as many.
    pub(super) auto_rebalance: bool,
    pub(super) handover_timeout: Duration,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) port: u16,
    pub(super) aof: aof::Wish,
}

impl Settings {
    /// Checks the options and reads the server's configuration.
    pub(super) fn new(args: &RunArgs) -> Result<Self, Failure> {
        let budget = Budget::split(args.end.grace_period, args.end.delay).map_err(|error| Exit::Usage.saying(error))?;
        tracing::debug!("of the grace period: {budget}");
        let service = args.own.service.as_ref().map(|name| Service::new(name, &args.find.dns_server)).transpose()?;
        let credentials = Credentials::new(&args.own.credentials, service.as_ref())?.until_told()?;
        let config = read_config(&args.server)?;
        let in_cluster = args.own.mode == Mode::Cluster && config.as_ref().is_none_or(ServerConfig::cluster_enabled);
        let port = match &config {
            Some(config) => listening_port(config, args.own.port, credentials.tls.is_some())?,
            None => args.own.port,
        };
        let reach = match service {
            Some(service) => Some(Reach::through(service, &args.find, port, credentials.clone())?),
            None => None,
        };
        let shape = config::shape_to_keep(&args.shape, args.bootstrap)?;
        let cluster = reach.as_ref().and_then(|reach| reach.cluster.clone()).filter(|_| in_cluster);
        let wanted = cluster.map(|cluster| Wanted { cluster, shape });
        let name = args.own.pod_name.as_deref().map(pod_name).transpose()?;
        let is_first = args.bootstrap && name.as_ref().and_then(PodName::ordinal) == Some(0);
        let save = match args.end.save.into() {
            SavePolicy::Auto if args.aof_partial_resync => SavePolicy::Always,
            other => other,
        };
        Ok(Self {
            command: args.server.clone(),
            config,
            address: config::own_address(args.own.pod_ip, port),
            forms: wanted.as_ref().filter(|_| is_first).and_then(Wanted::to_form),
            name,
            ip: args.own.pod_ip,
            site: Site { zone: args.zone.clone(), host: args.host.clone() },
            to_own_server: credentials.to_own_server()?,
            credentials,
            password_file: config::password_file(&args.own.credentials.login),
            password_overlap: args.password_overlap,
            policy: DrainPolicy { cluster: in_cluster, save, budget, stop: true },
            reach,
            wanted,
            takes_over: in_cluster && args.on_primary_lost == OnPrimaryLost::Failover,
            auto_rebalance: args.auto_rebalance,
            handover_timeout: args.handover_timeout,
            data_dir: args.data_dir.clone(),
            port,
            aof: aof::Wish { from_rdb: args.aof_from_rdb, partial_resync: args.aof_partial_resync },
        })
    }

    /// How many nodes the cluster is to have; zero where that is not said.
    pub(super) fn members(&self) -> usize {
        self.wanted.as_ref().map_or(0, Wanted::members)
    }

    /// The server, to be asked.
    pub(super) fn server(&self) -> Server {
        Server::at(self.address, self.to_own_server.clone(), self.policy.cluster)
    }
}

/// Where clients are listened to, those with TLS or those without; as the server's configuration says, else as wanted.
fn listening_port(config: &ServerConfig, wanted: u16, tls: bool) -> Result<u16, Failure> {
    let (plain, secure) = (config.is_given("port").then(|| config.port()), config.tls_port());
    match (tls, plain, secure) {
        (true, Some(plain), None) if plain == wanted => Err(Exit::Usage.saying(format!(
            "the server's configuration says `port {plain}`, which is the port without TLS: with --tls, say `port 0` there, or \
             another --port"
        ))),
        (true, _, secure) => Ok(secure.unwrap_or(wanted)),
        (false, Some(0), _) => Err(Exit::Usage.saying("the server's configuration says `port 0`: give --tls")),
        (false, plain, _) => Ok(plain.unwrap_or(wanted)),
    }
}

fn pod_name(text: &str) -> Result<PodName, Failure> {
    PodName::new(text).ok_or_else(|| {
        Exit::Usage.saying(format!("--pod-name {text:?} must consist of letters, digits, dots and dashes"))
    })
}

/// What the server will read where the command is one.
fn read_config(command: &[OsString]) -> Result<Option<ServerConfig>, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(None);
    };
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    if !["valkey-server", "redis-server"].iter().any(|server| name.ends_with(server)) {
        return Ok(None);
    }
    let arguments = Arguments::parse(arguments);
    if arguments.stdin {
        return Err(Exit::Usage.saying(
            "the server is to read its configuration from standard input, which valkeeper uses itself: name a file instead of -",
        ));
    }
    datadir::read_config(&arguments, &[]).map(Some).map_err(|error| Exit::Usage.because(error))
}
