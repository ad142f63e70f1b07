//! Whose a node is: the mark it carries as its human node name.
//!
//! The bus has no cluster name, so each node of ours carries one: `CLUSTER-ID/POD` in
//! `cluster-announce-human-nodename`. While a cluster is being formed a third part,
//! `CLUSTER-ID/POD/TIMEOUT-REPLICAS-LAG-DELAY`, keeps the settings that forming lowered. It is set in the same CONFIG SET
//! that lowers them, so whoever comes next, also after a crash, can put them back. Where a pod is told where it runs, a
//! fourth and a fifth part say so: `CLUSTER-ID/POD//ZONE/HOST`.

use std::fmt;
use std::time::Duration;

/// The name of a cluster: what tells our nodes from another cluster's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(String);

/// The name of a pod, `valkey-0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName(String);

/// What a node of ours carries as its human node name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The pod it runs in, where DNS gives pods a name.
    pub pod: Option<PodName>,
    /// The settings to put back, while the cluster is being formed.
    pub forming: Option<Settings>,
    /// Where it runs.
    pub site: Site,
}

/// Where a pod runs, as far as it was told: replicas are kept away from their primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// The zone of its machine.
    pub zone: Option<SiteName>,
    /// The machine: the Kubernetes node.
    pub host: Option<SiteName>,
}

/// The name of a zone or of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteName(String);

/// The server settings that forming changes for its short while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `cluster-node-timeout`.
    pub node_timeout: Duration,
    /// `min-replicas-to-write`.
    pub min_replicas_to_write: u32,
    /// `min-replicas-max-lag`; at 0 the server passes `min-replicas-to-write` over.
    pub replicas_max_lag: Duration,
    /// `repl-diskless-sync-delay`.
    pub sync_delay: Duration,
}

impl ClusterId {
    /// A cluster id: letters, digits, dots, dashes and underscores; a closing dot is cut off.
    pub fn new(name: &str) -> Option<Self> {
        valid_part(name.trim_end_matches('.')).map(Self)
    }

    /// The id of a cluster that carries no mark.
    pub fn unnamed() -> Self {
        Self("unnamed".to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PodName {
    /// A pod name: letters, digits, dots, dashes and underscores.
    pub fn new(name: &str) -> Option<Self> {
        valid_part(name).map(Self)
    }

    /// The pod `ordinal` of a StatefulSet.
    pub fn of_statefulset(statefulset: &str, ordinal: u32) -> Option<Self> {
        Self::new(&format!("{statefulset}-{ordinal}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// 7 in `valkey-7`; none where the name does not end in a number.
    pub fn ordinal(&self) -> Option<u32> {
        self.0.rsplit_once('-')?.1.parse().ok()
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SiteName {
    /// A name: letters, digits, dots, dashes and underscores.
    pub fn new(name: &str) -> Option<Self> {
        valid_part(name).map(Self)
    }
}

impl Site {
    /// How much of a failure would strike both: 2 the same machine, 1 the same zone, 0 nothing that is known.
    pub fn shares(&self, other: &Self) -> u8 {
        let is_same = |one: &Option<SiteName>, other: &Option<SiteName>| one.is_some() && one == other;
        match is_same(&self.host, &other.host) {
            true => 2,
            false => is_same(&self.zone, &other.zone).into(),
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.zone.is_some() || self.host.is_some()
    }
}

impl Mark {
    /// Reads a human node name; none where it is not a mark.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('/');
        let cluster = ClusterId::new(parts.next()?)?;
        let pod = match parts.next()? {
            "" => None,
            name => Some(PodName::new(name)?),
        };
        let forming = match parts.next() {
            None | Some("") => None,
            Some(text) => Some(Settings::parse(text)?),
        };
        let mut name = || match parts.next() {
            None | Some("") => Some(None),
            Some(name) => SiteName::new(name).map(Some),
        };
        let site = Site { zone: name()?, host: name()? };
        parts.next().is_none().then_some(Self { cluster, pod, forming, site })
    }
}

impl Settings {
    /// A `min-replicas-to-write` that no primary can satisfy: no client writes.
    pub const NO_WRITES: u32 = i32::MAX.unsigned_abs();

    /// What the server has where its configuration file says nothing.
    pub const DEFAULT: Self = Self {
        node_timeout: Duration::from_secs(15),
        min_replicas_to_write: 0,
        replicas_max_lag: Duration::from_secs(10),
        sync_delay: Duration::from_secs(5),
    };

    /// Whether these were lowered by us: nobody else asks for so many replicas.
    pub fn are_lowered(&self) -> bool {
        self.min_replicas_to_write == Self::NO_WRITES
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('-').map(|part| part.parse::<u64>().ok());
        let settings = Self {
            node_timeout: Duration::from_millis(numbers.next()??),
            min_replicas_to_write: numbers.next()??.try_into().ok()?,
            replicas_max_lag: Duration::from_secs(numbers.next()??),
            sync_delay: Duration::from_secs(numbers.next()??),
        };
        numbers.next().is_none().then_some(settings)
    }
}

fn valid_part(text: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (!text.is_empty() && text.bytes().all(valid)).then(|| text.to_owned())
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.cluster)?;
        if let Some(pod) = &self.pod {
            write!(f, "{pod}")?;
        }
        match &self.forming {
            Some(settings) => write!(f, "/{settings}")?,
            None if self.site.is_known() => f.write_str("/")?,
            None => {}
        }
        if self.site.is_known() {
            let part = |name: &Option<SiteName>| name.as_ref().map_or("", |name| &name.0).to_owned();
            write!(f, "/{}/{}", part(&self.site.zone), part(&self.site.host))?;
        }
        Ok(())
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [lag, delay] = [self.replicas_max_lag, self.sync_delay].map(|time| time.as_secs());
        write!(f, "{}-{}-{lag}-{delay}", self.node_timeout.as_millis(), self.min_replicas_to_write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_as_it_was_written() {
        for text in [
            "valkey-headless.test.svc.cluster.local/valkey-0",
            "valkey-headless/valkey-0/15000-0-10-5",
            "valkey-headless//15000-0-10-5",
            "valkey-headless/",
            "valkey-headless/valkey-0//eu-west-1a/node-7",
            "valkey-headless/valkey-0//eu-west-1a/",
            "valkey-headless//15000-0-10-5//node-7",
        ] {
            assert_eq!(Mark::parse(text).map(|mark| mark.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_not_quite_a_mark_is_none() {
        for text in [
            "",
            "valkey-0",
            "/valkey-0",
            "a/b/c",
            "a/b/1-2-3",
            "a/b/1-2-3-4-5",
            "a/b c",
            "ä/b",
            "a/b//c d/",
            "a/b//c/d/e",
        ] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_ordinal_of_a_pod_is_the_number_after_the_last_dash() {
        let ordinal = |name| PodName::new(name).and_then(|pod| pod.ordinal());
        assert_eq!(ordinal("my-valkey-12"), Some(12));
        assert_eq!(ordinal("valkey"), None);
        assert_eq!(ordinal("valkey-"), None);
    }
}
