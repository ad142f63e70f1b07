//! What options can be.

use clap::ValueEnum;

use crate::topology::drain::SavePolicy;
use crate::topology::identity::SiteName;
use crate::topology::node::NodeId;
use crate::topology::probe::Probe;
use crate::topology::version::Version;

/// What a user of the server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AclRole {
    /// Every command, and replication.
    Run,
    /// Only `status`, `doctor` and `probe`.
    Watch,
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

pub(super) fn node_id(text: &str) -> Result<NodeId, String> {
    NodeId::parse(text).ok_or_else(|| "a node id has 40 digits, 0 to 9 and a to f".to_owned())
}

pub(super) fn version(text: &str) -> Result<Version, String> {
    let known = Version::parse(text).filter(|version| *version >= Version::OLDEST);
    known.ok_or_else(|| "write 8.1 or 9.1; 7.2 is the oldest".to_owned())
}

/// A variable that is filled from a label of the pod is there and empty where the label is not.
pub(super) type MaybeSite = Option<SiteName>;

pub(super) fn site_name(text: &str) -> Result<MaybeSite, String> {
    match (text, SiteName::new(text)) {
        ("", _) => Ok(None),
        (_, Some(name)) => Ok(Some(name)),
        (_, None) => Err("only letters, digits, dots, dashes and underscores".to_owned()),
    }
}
