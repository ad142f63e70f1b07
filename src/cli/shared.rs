//! What several commands have in common.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::Args;

use super::values::LogFormat;

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
    /// Whose name and password.
    #[command(flatten)]
    pub login: LoginArgs,
    /// How servers are reached over TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// A user, and its password.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The ACL user; default: the server's default user. `acl` prints what it needs.
    #[arg(long, env = "VALKEEPER_USERNAME", value_name = "NAME")]
    pub username: Option<String>,
    /// The file that holds the password. Without it: VALKEY_PASSWORD_FILE, VALKEY_PASSWORD, VALKEYCLI_AUTH.
    #[arg(long, env = "VALKEEPER_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// TLS.
#[derive(Debug, Default, Args)]
pub struct TlsArgs {
    /// Speak TLS with every server; --port is then the TLS port.
    #[arg(long, env = "VALKEEPER_TLS")]
    pub tls: bool,
    /// The authorities whose certificates are believed, in PEM.
    #[arg(long, env = "VALKEEPER_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Our certificate, in PEM, where servers ask for one (`tls-auth-clients`). Under `run` the server's too.
    #[arg(long, env = "VALKEEPER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long, env = "VALKEEPER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The name that every server's certificate must have. Default: the pod's name below --service.
    #[arg(long, env = "VALKEEPER_TLS_SERVER_NAME", value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Believe whoever answers, whatever its certificate says: anybody in between can read and change everything.
    #[arg(long, env = "VALKEEPER_TLS_INSECURE")]
    pub tls_insecure: bool,
}

/// The wanted shape.
#[derive(Clone, Copy, Debug, Args)]
pub struct ShapeArgs {
    /// How many shards the cluster is to have.
    #[arg(long, env = "VALKEEPER_SHARDS", value_name = "N", default_value_t = ShapeArgs::DEFAULT.shards)]
    pub shards: NonZeroU16,
    /// How many replicas each shard is to have.
    #[arg(long, env = "VALKEEPER_REPLICAS", value_name = "N", default_value_t = ShapeArgs::DEFAULT.replicas)]
    pub replicas: u16,
}

/// The shape that is kept, where one is given.
#[derive(Clone, Copy, Debug, Args)]
pub struct KeepArgs {
    /// How many shards the cluster is to have. Without it and --replicas a cluster that stands is kept in the shape that it
    /// has; with one of them alone, or with --bootstrap, it is 3.
    #[arg(long, env = "VALKEEPER_SHARDS", value_name = "N")]
    pub shards: Option<NonZeroU16>,
    /// How many replicas each shard is to have. Without it and --shards as many as there are; with one of them alone, or
    /// with --bootstrap, it is 1.
    #[arg(long, env = "VALKEEPER_REPLICAS", value_name = "N")]
    pub replicas: Option<u16>,
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

impl ShapeArgs {
    /// What is formed where nothing else is said.
    pub const DEFAULT: Self = Self { shards: NonZeroU16::MIN.saturating_add(2), replicas: 1 };
}

/// After what a command has of its own.
const LAST: usize = 900;

/// How to log.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// One line of text, or one JSON object, for each event.
    #[arg(
        long, global = true, env = "VALKEEPER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text,
        display_order = LAST
    )]
    pub log_format: LogFormat,
    /// What to log: error, warn, info, debug or trace.
    #[arg(
        long, global = true, env = "VALKEEPER_LOG_LEVEL", value_name = "LEVEL", default_value = "info",
        display_order = LAST
    )]
    pub log_level: tracing::Level,
}
