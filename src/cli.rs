//! The command line. What `--help` says is written here, for a person.

mod shared;
mod values;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{duration, weight};
use crate::topology::node::NodeId;
use crate::topology::version::Version;

pub use shared::{CredentialArgs, ExpectArgs, FindArgs, KeepArgs, LogArgs, LoginArgs, ReachArgs, ShapeArgs, TlsArgs};
pub use values::{AclRole, LogFormat, Mode, OnPrimaryLost, Output, ProbeKind, SaveMode};
use values::{MaybeSite, node_id, site_name, version};

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
    /// Print the rule of a user for valkeeper that may do what valkeeper does and nothing else.
    ///
    /// It is a line of an ACL file, or of valkey.conf. It holds the hash of the password that is given as to any other
    /// command, and never the password. Asks no server.
    Acl(AclArgs),
    /// Copy this binary into a folder: the init container that brings it into a stock image of the server.
    ///
    /// DIR is a volume that the server's container sees too, which then begins with DIR/valkeeper. Whatever runs there
    /// meanwhile keeps what it has; a second copy takes the place of the first.
    Install(InstallArgs),
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
    /// How the names of the service are asked for.
    #[command(flatten)]
    pub find: FindArgs,
    /// What the pods are to be.
    #[command(flatten)]
    pub shape: KeepArgs,
    /// The zone that this pod runs in: replicas are kept away from the zone of their primary where there is a choice.
    /// The server announces it as its availability zone. An empty name is none.
    #[arg(
        long, env = "VALKEEPER_ZONE", value_name = "NAME", value_parser = site_name, default_value = "",
        hide_default_value = true
    )]
    pub zone: MaybeSite,
    /// The machine, the Kubernetes node, that this pod runs on: replicas are kept away from their primary's.
    #[arg(
        long, env = "VALKEEPER_HOST", value_name = "NAME", value_parser = site_name, default_value = "",
        hide_default_value = true
    )]
    pub host: MaybeSite,
    /// Form the cluster where none stands, as `bootstrap` does: no Job is needed then. Of a StatefulSet's pods, the one
    /// whose name ends in -0 does it.
    #[arg(long, env = "VALKEEPER_BOOTSTRAP", requires = "service")]
    pub bootstrap: bool,
    /// Move slots of this node to primaries that own too few, whenever the cluster stands: new shards fill by themselves.
    /// Weights given to `rebalance` do not last then, and `evacuate` is refused.
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
    /// Answer probes over HTTP here, /startupz, /livez and /readyz, and tell metrics, /metrics. `[::]:PORT` is every
    /// address of both families, or of IPv4 alone where the machine has no other.
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
    /// The headless service whose DNS names lead to the pods, and whose pods' names certificates must have. Without it,
    /// `run` knows the peers that nodes.conf names.
    #[arg(long, env = "VALKEEPER_SERVICE", value_name = "NAME")]
    pub service: Option<String>,
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

/// `valkeeper acl`.
#[derive(Debug, Args)]
pub struct AclArgs {
    /// The user, and its password.
    #[command(flatten)]
    pub login: LoginArgs,
    /// What the user is for.
    #[arg(long, env = "VALKEEPER_ROLE", value_enum, default_value_t = AclRole::Run)]
    pub role: AclRole,
    /// The version of the servers, or the oldest one. A server does not start where a user has a command that it does not
    /// know; so without this, those for moving slots whole are left out, which came with 9.0.
    #[arg(long = "for", env = "VALKEEPER_FOR", value_name = "VERSION", value_parser = version)]
    pub version: Option<Version>,
    /// Leave out what changing the password takes, which is as much as to give itself every right.
    #[arg(long, env = "VALKEEPER_FIXED_PASSWORD")]
    pub fixed_password: bool,
    /// Print what each command is for instead.
    #[arg(long, env = "VALKEEPER_EXPLAIN")]
    pub explain: bool,
}

/// `valkeeper install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Where to; it is called `valkeeper` there.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
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
    /// Speak TLS on every port, with certificates of an authority that is made for it; clients need none.
    #[arg(long, env = "VALKEEPER_TLS")]
    pub tls: bool,
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
