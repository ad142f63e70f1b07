//! What the server is told on standard input, after its own configuration: what is known here and not said there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use crate::config::{Credentials, Reach, Secret, Service};
use crate::tls::Tls;
use crate::topology::changeover::PasswordHash;
use crate::topology::identity::{Mark, PodName, Site};
use crate::topology::order::HeldBack;
use crate::topology::parse::{PRIMARY_AUTH, PRIMARY_USER, ServerConfig, directive};
use crate::topology::version::Version;

/// What the server listens at where nothing is said.
const DEFAULT_PORT: u16 = 6379;

/// Everything that the text is made of.
pub(super) struct Input<'p> {
    /// What its configuration says: that stays.
    pub(super) given: &'p ServerConfig,
    pub(super) version: Option<Version>,
    pub(super) credentials: &'p Credentials,
    /// What pods' files have said our password is, ours among it.
    pub(super) accepted: &'p BTreeSet<PasswordHash>,
    /// What they said before that, and nobody comes with any more.
    pub(super) retired: &'p [PasswordHash],
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) dir: Option<&'p Path>,
    pub(super) name: Option<&'p PodName>,
    pub(super) site: &'p Site,
    /// How the cluster is found, where it is in one.
    pub(super) reach: Option<&'p Reach>,
    pub(super) in_cluster: bool,
    pub(super) held_back: bool,
    pub(super) without_aof: bool,
}

impl Input<'_> {
    /// The text; none where nothing is to be said.
    pub(super) fn text(&self) -> Option<Secret> {
        let mut lines = self.unless_given();
        if self.without_aof {
            lines.push(directive("appendonly", "no"));
        }
        if self.held_back {
            lines.extend(HeldBack::HELD.directives().map(|(name, value)| directive(name, value)));
        }
        (!lines.is_empty()).then(|| Secret::new(lines.join("\n") + "\n"))
    }

    fn unless_given(&self) -> Vec<String> {
        let mut known: Vec<(&str, String)> = Vec::new();
        match &self.credentials.tls {
            None => known.extend((self.port != DEFAULT_PORT).then(|| ("port", self.port.to_string()))),
            Some(tls) => known.extend(with_tls(tls, self.port)),
        }
        known.extend(self.dir.map(|dir| ("dir", dir.display().to_string())));
        if let Some(zone) = &self.site.zone
            && self.version.is_some_and(|version| version >= Version::AVAILABILITY_ZONE)
        {
            known.push(("availability-zone", zone.to_string()));
        }
        if self.in_cluster {
            known.extend(self.ip.map(|ip| ("cluster-announce-ip", ip.to_string())));
            if let (Some(reach), Some(pod)) = (self.reach, self.name) {
                if let Service::Names(names) = &reach.service
                    && let Some(service) = names.first()
                {
                    let service = crate::config::without_port_label(service);
                    known.push(("cluster-announce-hostname", format!("{pod}.{service}")));
                }
                if let Some(cluster) = reach.cluster.clone() {
                    let mark = Mark { cluster, pod: Some(pod.clone()), forming: None, site: self.site.clone() };
                    known.push(("cluster-announce-human-nodename", mark.to_string()));
                }
            }
            if self.version.is_some_and(|version| version >= Version::ATOMIC_MIGRATION) {
                // The net for the case that we die: without us the server hands over by itself.
                known.push(("shutdown-on-sigterm", "failover".to_owned()));
            }
        }
        let mut users = None;
        if let Some(password) = self.credentials.keyring.current() {
            let is_default = self.credentials.user() == "default";
            let has_users = self.given.is_given("aclfile") || self.given.is_given("user");
            if is_default && !has_users {
                users = self.default_user(&password);
                known.push(("requirepass", password.reveal().to_owned()));
            }
            known.push((PRIMARY_AUTH, password.reveal().to_owned()));
            known.extend(self.credentials.username.as_ref().map(|name| (PRIMARY_USER, name.clone())));
        }
        known.retain(|(name, _)| !self.given.is_given(name) || (*name == PRIMARY_AUTH && self.is_behind(PRIMARY_AUTH)));
        known.iter().map(|(name, value)| directive(name, value)).chain(users).collect()
    }

    /// Whether the configuration names a password that was ours and has been changed over since.
    fn is_behind(&self, name: &str) -> bool {
        let mine = self.credentials.keyring.current().map(|password| password.hash());
        let given = self.given.text(name).map(|password| Secret::new(password).hash());
        let was_ours = |given| self.accepted.contains(&given) || self.retired.contains(&given);
        given != mine && given.is_some_and(was_ours)
    }

    /// The default user as it was, with all passwords that somebody may come with, ours last; none where `requirepass` says
    /// as much.
    ///
    /// From its first moment the server accepts what it did before, as others may not have heard of ours yet. A password
    /// in the configuration stays, unless it is one of those that were changed over.
    fn default_user(&self, mine: &Secret) -> Option<String> {
        let mine = mine.hash();
        let given = self.given.text("requirepass").map(|password| Secret::new(password).hash());
        let is_behind = self.is_behind("requirepass");
        let is_ours = given.is_none_or(|given| given == mine) || is_behind;
        if !is_ours || (!is_behind && self.accepted.len() < 2) {
            return None;
        }
        let passwords = self.accepted.iter().filter(|hash| **hash != mine).chain([&mine]);
        let passwords: String = passwords.map(|hash| format!(" #{}", hash.as_str())).collect();
        Some(format!("user default on{passwords} ~* &* +@all"))
    }
}

/// TLS for clients, for replication and on the bus, with our certificate.
fn with_tls(tls: &Tls, port: u16) -> Vec<(&'static str, String)> {
    let mut known = vec![("port", "0".to_owned()), ("tls-port", port.to_string())];
    known.extend(tls.files().settings().map(|(name, file)| (name, file.display().to_string())));
    known.push(("tls-cluster", "yes".to_owned()));
    known.push(("tls-replication", "yes".to_owned()));
    known
}
