//! The command line. What `--help` says is written here, for a person.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{duration, weight};
use crate::topology::drain::SavePolicy;
use crate::topology::identity::SiteName;
use crate::topology::node::NodeId;
use crate::topology::probe::Probe;

/// Forms and keeps a Valkey Cluster from inside its pods: no operator, no RBAC, no shell scripts.
#[derive(Debug, Parser)]
#[command(name = "valkeeper", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to log; logs go to standard error.
    #[command(flatten)]
    pub log: LogArgs,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done                      71  the operating system refused something
  1  a negative answer         75  deadline reached; a rerun continues. run: not everything is saved
 64  usage or configuration    76  refused: unsafe, a human must look
 69  peers not reachable      126  run: the server command cannot be executed
     by the deadline          127  run: the server command was not found
 70  a bug of ours          128+n  run: the server died of signal n
run ends with the server's own code otherwise.

Every option can also be given as an environment variable: --dns-server as VALKEEPER_DNS_SERVER.
A password comes from --password-file, VALKEY_PASSWORD or VALKEYCLI_AUTH, never from the command line.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Form the cluster, complete it or heal it, until every node agrees. Run it as often as you like.
    ///
    /// Finds the pods through DNS, introduces them to each other, gives out the slots and makes replicas. On a cluster
    /// that stands it changes nothing. It refuses, and says why, whenever to go on could cost data.
    Bootstrap(BootstrapArgs),
    /// Start the server and look after it: what a container begins with, or the first process of a pod.
    ///
    /// Signals are the server's: TERM, INT and QUIT stop it in good order, a second one at once by its own rules; HUP,
    /// USR1, USR2 and WINCH are passed on. Processes that lose their parent are cleared away. Ends as the server ends.
    Run(RunArgs),
    /// Hand this pod's shard over, save its data, and wait until that is done: the preStop hook of a stock server.
    ///
    /// A replica that is in sync takes over, which clients notice as a pause of some 50 ms; then this node saves. Where
    /// nobody can take over, writes are held back while it saves. Run it as often as you like: what is done is not done
    /// again. The node stays marked as leaving until its server is started again.
    Drain(DrainArgs),
    /// Answer the kubelet about the server in this pod: exit 0, or 1 and a line that says why.
    ///
    /// `startup` passes as soon as the server answers, also while it loads. `liveness` passes as long as it answers,
    /// whatever it says. `readiness` passes once its data is loaded, it is in step with its primary and the cluster is ok
    /// in its view; from then on it is not held to what others do. A node that leaves is not ready.
    Probe(ProbeArgs),
    /// Show the cluster at a glance; exit 1 and say why when something is wrong with it.
    Status(StatusArgs),
    /// Move slots, live, until every primary owns as many as the others. Run it as often as you like.
    ///
    /// Clients see redirects (MOVED, ASK) and nothing else. New primaries without slots are filled; with --weight some get
    /// more, or none. On Valkey 9 whole slots change hands at once; on older versions keys are moved one small batch at a
    /// time, and a key of many megabytes blocks its primary while it is moved: --dry-run foretells which, and for how long.
    /// A run that is stopped or killed leaves nothing broken: the next one goes on where it was.
    Rebalance(RebalanceArgs),
    /// Empty pods before they are taken away, live: they own no slots afterwards and are nobody's primary.
    ///
    /// The slots of shards that are not kept go to those that are. Kept are the shards with the most members that stay,
    /// then those whose primary stays, then those with the most slots. Where the primary of a kept shard leaves, a replica
    /// that stays takes over. Says in the end which pods can be removed. Run it as often as you like.
    Evacuate(EvacuateArgs),
    /// Say what is wrong with the cluster and the command that mends it; changes nothing.
    Doctor(LookArgs),
    /// Run a whole cluster on this machine's loopback addresses until Ctrl-C.
    #[cfg(feature = "local")]
    Local(LocalArgs),
}

/// `valkeeper bootstrap`.
#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// Who is to be found.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// What they are to become.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Give up after this long.
    #[arg(long, env = "VALKEEPER_TIMEOUT", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,
    /// Go on without the data of a primary that is gone for good and that nobody holds a copy of: its slots go, empty, to a
    /// node without any. ID is its node id, all 40 digits, as the refusal names it. There is no way back.
    #[arg(long, env = "VALKEEPER_ACCEPT_DATA_LOSS", value_name = "ID", value_parser = node_id)]
    pub accept_data_loss: Option<NodeId>,
    /// Print what would be done next, and do nothing.
    #[arg(long, env = "VALKEEPER_DRY_RUN")]
    pub dry_run: bool,
    /// How to print the cluster at the end.
    #[arg(short, long, env = "VALKEEPER_OUTPUT", value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `valkeeper run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// This pod and its server.
    #[command(flatten)]
    pub own: OwnArgs,
    /// How it is to end.
    #[command(flatten)]
    pub end: EndArgs,
    /// The headless service whose DNS names lead to the pods. Without it, peers are those that nodes.conf names.
    #[arg(long, env = "VALKEEPER_SERVICE", value_name = "NAME")]
    pub service: Option<String>,
    /// How its names are asked for.
    #[command(flatten)]
    pub find: FindArgs,
    /// What the pods are to be.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// The zone that this pod runs in: replicas are kept away from the zone of their primary where there is a choice.
    #[arg(long, env = "VALKEEPER_ZONE", value_name = "NAME", value_parser = site_name)]
    pub zone: Option<SiteName>,
    /// The machine, the Kubernetes node, that this pod runs on: replicas are kept away from their primary's.
    #[arg(long, env = "VALKEEPER_HOST", value_name = "NAME", value_parser = site_name)]
    pub host: Option<SiteName>,
    /// Move slots of this node to primaries that own too few, whenever the cluster stands: new shards fill by themselves.
    /// Weights given to `rebalance` do not last then.
    #[arg(long, env = "VALKEEPER_AUTO_REBALANCE", requires = "service")]
    pub auto_rebalance: bool,
    /// How long a replica may take to take over from this node: from a server that has died, and before one starts that
    /// was a primary.
    #[arg(
        long, env = "VALKEEPER_HANDOVER_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = duration
    )]
    pub handover_timeout: Duration,
    /// What happens when the process of a primary dies, this pod's or that which this pod copies.
    #[arg(long, env = "VALKEEPER_ON_PRIMARY_LOST", value_enum, default_value_t = OnPrimaryLost::Failover)]
    pub on_primary_lost: OnPrimaryLost,
    /// How long the former password stays valid once every pod has the new one that its password file says: clients may be
    /// as late as pods.
    #[arg(
        long, env = "VALKEEPER_PASSWORD_OVERLAP", value_name = "DURATION", default_value = "2m", value_parser = duration
    )]
    pub password_overlap: Duration,
    /// Answer probes over HTTP here: /startupz, /livez and /readyz.
    #[arg(long, env = "VALKEEPER_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where the server keeps its data; default: as its configuration says.
    #[arg(long, env = "VALKEEPER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where `appendonly yes` meets a directory that holds only an RDB, make the append-only file from it.
    #[arg(long, env = "VALKEEPER_AOF_FROM_RDB")]
    pub aof_from_rdb: bool,
    /// Where there is an append-only file, write an RDB too on the way out, and start from it when this node is a replica:
    /// it then needs only what it missed. An append-only file alone makes the primary send everything.
    #[arg(long, env = "VALKEEPER_AOF_PARTIAL_RESYNC")]
    pub aof_partial_resync: bool,
    /// The server and its arguments, best after --: `valkey-server /etc/valkey/valkey.conf`.
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub server: Vec<OsString>,
}

/// `valkeeper drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Which server.
    #[command(flatten)]
    pub own: OwnArgs,
    /// How it is to end.
    #[command(flatten)]
    pub end: EndArgs,
    /// How to print what was done.
    #[arg(short, long, env = "VALKEEPER_OUTPUT", value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `valkeeper probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// What is asked.
    #[arg(value_enum)]
    pub kind: ProbeKind,
    /// Which server.
    #[command(flatten)]
    pub own: OwnArgs,
    /// Fail when there is no answer after this long; the probe's timeoutSeconds should be longer, so that the reason is
    /// seen.
    #[arg(long, env = "VALKEEPER_TIMEOUT", value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub timeout: Duration,
    /// Where to note that the server was ready once; default: where its data is, as it says.
    #[arg(long, env = "VALKEEPER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Our own pod, and the server in it.
#[derive(Debug, Args)]
pub struct OwnArgs {
    /// This pod's name, from the downward API.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
    /// This pod's address, from the downward API; default: 127.0.0.1.
    #[arg(long, env = "POD_IP", value_name = "ADDR")]
    pub pod_ip: Option<IpAddr>,
    /// The client port.
    #[arg(long, env = "VALKEEPER_PORT", value_name = "PORT", default_value_t = 6379)]
    pub port: u16,
    /// Whether the server is a member of a cluster.
    #[arg(long, env = "VALKEEPER_MODE", value_enum, default_value_t = Mode::Cluster)]
    pub mode: Mode,
    /// What lets us in.
    #[command(flatten)]
    pub credentials: CredentialArgs,
}

/// How a pod ends.
#[derive(Debug, Args)]
pub struct EndArgs {
    /// How long it may take in all: what terminationGracePeriodSeconds says.
    #[arg(
        long, env = "VALKEEPER_GRACE_PERIOD", value_name = "DURATION", default_value = "30s", value_parser = duration
    )]
    pub grace_period: Duration,
    /// How long to go on answering when all is done, so that clients notice; part of the grace period.
    #[arg(long, env = "VALKEEPER_DELAY", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub delay: Duration,
    /// What is to be on disk in the end.
    #[arg(long, env = "VALKEEPER_SAVE", value_enum, default_value_t = SaveMode::Auto)]
    pub save: SaveMode,
}

/// `valkeeper status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Whom to look at.
    #[command(flatten)]
    pub look: LookArgs,
    /// Print again every second until Ctrl-C.
    #[arg(long, env = "VALKEEPER_WATCH")]
    pub watch: bool,
}

/// What commands have in common that look and change nothing; all of `valkeeper doctor`.
#[derive(Debug, Args)]
pub struct LookArgs {
    /// Who is to be found.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// What they should be.
    #[command(flatten)]
    pub expect: ExpectArgs,
    /// Give up after this long.
    #[arg(long, env = "VALKEEPER_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
    /// How to print.
    #[arg(short, long, env = "VALKEEPER_OUTPUT", value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `valkeeper rebalance`.
#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// Who is to be found.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// How many slots a primary gets beside the others, which weigh 1: 2 for twice as many, 0 for none. May be repeated.
    #[arg(long, env = "VALKEEPER_WEIGHT", value_name = "POD=W", value_delimiter = ',', value_parser = weight)]
    pub weight: Vec<(String, u32)>,
    /// How they are moved.
    #[command(flatten)]
    pub moving: MovingArgs,
}

/// `valkeeper evacuate`.
#[derive(Debug, Args)]
pub struct EvacuateArgs {
    /// Who is to be found.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// The pods that leave; for a StatefulSet, those of the highest ordinals.
    #[arg(value_name = "POD", required = true)]
    pub pods: Vec<String>,
    /// How many shards are to remain. Default: all that own slots and keep at least one member; say fewer where whole
    /// shards are to go.
    #[arg(long, env = "VALKEEPER_SHARDS", value_name = "N")]
    pub shards: Option<NonZeroU16>,
    /// How slots are moved.
    #[command(flatten)]
    pub moving: MovingArgs,
}

/// How slots are moved.
#[derive(Debug, Args)]
pub struct MovingArgs {
    /// Move no more than so many keys a second, in all. Default: as many as the servers can while they serve others.
    #[arg(long, env = "VALKEEPER_MAX_RATE", value_name = "KEYS")]
    pub max_rate: Option<NonZeroU32>,
    /// Stop after this long; what is left is for the next run.
    #[arg(long, env = "VALKEEPER_TIMEOUT", value_name = "DURATION", default_value = "1d", value_parser = duration)]
    pub timeout: Duration,
    /// Print what would be moved, and which keys are so large that they would block their primary; move nothing.
    #[arg(long, env = "VALKEEPER_DRY_RUN")]
    pub dry_run: bool,
    /// How to print what was done.
    #[arg(short, long, env = "VALKEEPER_OUTPUT", value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `valkeeper local`.
#[cfg(feature = "local")]
#[derive(Debug, Args)]
pub struct LocalArgs {
    /// What to form.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// The client port of every node; each has an address of its own.
    #[arg(long, env = "VALKEEPER_PORT", value_name = "PORT", default_value_t = 6379)]
    pub port: u16,
    /// The server to run.
    #[arg(long, env = "VALKEEPER_SERVER", value_name = "PATH", default_value = "valkey-server")]
    pub server: PathBuf,
    /// Keep the nodes' data here, and go on with it next time; default: a temporary directory that is removed.
    #[arg(long, env = "VALKEEPER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Give up forming after this long.
    #[arg(long, env = "VALKEEPER_TIMEOUT", value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub timeout: Duration,
}

/// How peers are found and reached.
#[derive(Debug, Args)]
pub struct ReachArgs {
    /// The headless service whose DNS names lead to the pods, best with namespace and domain and a closing dot:
    /// `valkey-headless.prod.svc.cluster.local.`. The address of one node will do too.
    #[arg(long, env = "VALKEEPER_SERVICE", value_name = "NAME")]
    pub service: String,
    /// The client port, where DNS does not name one.
    #[arg(long, env = "VALKEEPER_PORT", value_name = "PORT", default_value_t = 6379)]
    pub port: u16,
    /// How its names are asked for.
    #[command(flatten)]
    pub find: FindArgs,
    /// What lets us in.
    #[command(flatten)]
    pub credentials: CredentialArgs,
}

/// How the names of a service are asked for.
#[derive(Debug, Args)]
pub struct FindArgs {
    /// The StatefulSet: its pods' names NAME-0.SERVICE, NAME-1.SERVICE … are asked for one by one.
    #[arg(long, env = "VALKEEPER_STATEFULSET", value_name = "NAME")]
    pub statefulset: Option<String>,
    /// Ask this name server; may be repeated. Default: those of /etc/resolv.conf.
    #[arg(long, env = "VALKEEPER_DNS_SERVER", value_name = "ADDR[:PORT]", value_delimiter = ',')]
    pub dns_server: Vec<String>,
    /// The name that our nodes carry, so that no other cluster's node is ever mistaken for ours. Default: the
    /// service's full name.
    #[arg(long, env = "VALKEEPER_CLUSTER_ID", value_name = "NAME")]
    pub cluster_id: Option<String>,
}

/// What lets us in.
#[derive(Debug, Args)]
pub struct CredentialArgs {
    /// The ACL user; default: the server's default user.
    #[arg(long, env = "VALKEEPER_USERNAME", value_name = "NAME")]
    pub username: Option<String>,
    /// The file that holds the password. Without it: VALKEY_PASSWORD_FILE, VALKEY_PASSWORD, VALKEYCLI_AUTH.
    #[arg(long, env = "VALKEEPER_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// The wanted shape.
#[derive(Clone, Copy, Debug, Args)]
pub struct ShapeArgs {
    /// How many shards the cluster is to have.
    #[arg(long, env = "VALKEEPER_SHARDS", value_name = "N", default_value = "3")]
    pub shards: NonZeroU16,
    /// How many replicas each shard is to have.
    #[arg(long, env = "VALKEEPER_REPLICAS", value_name = "N", default_value_t = 1)]
    pub replicas: u16,
}

/// The shape that is checked, where one is given.
#[derive(Clone, Copy, Debug, Args)]
pub struct ExpectArgs {
    /// How many shards there should be; default: as many as there are.
    #[arg(long, env = "VALKEEPER_SHARDS", value_name = "N", requires = "replicas")]
    pub shards: Option<NonZeroU16>,
    /// How many replicas each shard should have; default: not checked.
    #[arg(long, env = "VALKEEPER_REPLICAS", value_name = "N", requires = "shards")]
    pub replicas: Option<u16>,
}

/// How to log.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// One line of text, or one JSON object, for each event.
    #[arg(long, global = true, env = "VALKEEPER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to log: error, warn, info, debug or trace.
    #[arg(long, global = true, env = "VALKEEPER_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: tracing::Level,
}

fn node_id(text: &str) -> Result<NodeId, String> {
    NodeId::parse(text).ok_or_else(|| "a node id has 40 digits, 0 to 9 and a to f".to_owned())
}

fn site_name(text: &str) -> Result<SiteName, String> {
    SiteName::new(text).ok_or_else(|| "only letters, digits, dots, dashes and underscores".to_owned())
}

/// What kind of server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// A member of a cluster.
    Cluster,
    /// A server on its own: there is nobody to hand over to.
    Standalone,
}

/// What happens when the process of a primary dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnPrimaryLost {
    /// The best replica takes over at once.
    Failover,
    /// Valkey's own failover decides, when the node timeout is over.
    Wait,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeKind {
    /// Has the server come up, or is it on its way?
    Startup,
    /// Does it answer at all?
    Liveness,
    /// Can it do its part?
    Readiness,
}

impl From<ProbeKind> for Probe {
    fn from(kind: ProbeKind) -> Self {
        match kind {
            ProbeKind::Startup => Self::Startup,
            ProbeKind::Liveness => Self::Liveness,
            ProbeKind::Readiness => Self::Readiness,
        }
    }
}

/// What is to be on disk before a server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SaveMode {
    /// Everything: in the append-only file where there is one, else in an RDB.
    Auto,
    /// An RDB, whether there is an append-only file or not.
    Always,
    /// What is there.
    Never,
}

impl From<SaveMode> for SavePolicy {
    fn from(mode: SaveMode) -> Self {
        match mode {
            SaveMode::Auto => Self::Auto,
            SaveMode::Always => Self::Always,
            SaveMode::Never => Self::Never,
        }
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs; the schema is documented and stable.
    Json,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text.
    Text,
    /// A JSON object a line.
    Json,
}
