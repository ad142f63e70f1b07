//! Finding peers through DNS. The only module that knows the resolver.
//!
//! Three questions are asked at once: the SRV records of the service's `valkey` port, which give pod names and ports; the
//! names `STATEFULSET-ORDINAL.SERVICE`; and the A and AAAA records of the service itself. Every answer counts, none is
//! believed: who answers at an address says itself who it is. Nothing is cached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::{Either, join, join_all, select};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use crate::config::{Reach, Service};
use crate::exit::{Exit, Failure};
use crate::topology::identity::PodName;
use crate::valkey::Candidate;

/// How long one question may take before it is asked once more.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks DNS for peers.
#[derive(Clone)]
pub struct Discovery {
    resolver: Option<TokioResolver>,
    service: Service,
    statefulset: Option<String>,
    members: u32,
    port: u16,
}

/// What one round of questions brought.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Each address once.
    pub candidates: Vec<Candidate>,
    /// Pods of the StatefulSet without an address.
    pub unresolved: Vec<PodName>,
    /// What went wrong, for people.
    pub trouble: Vec<String>,
}

/// What one question brought.
#[derive(Default)]
struct Answer {
    addresses: Vec<IpAddr>,
    targets: Vec<(Name, u16)>,
    trouble: Option<String>,
}

impl Discovery {
    /// Looks for `members` pods.
    pub fn new(reach: &Reach, members: usize) -> Result<Self, Failure> {
        let resolver = match &reach.service {
            Service::Address(_) => None,
            Service::Names(_) => Some(resolver(&reach.dns_servers)?),
        };
        Ok(Self {
            resolver,
            service: reach.service.clone(),
            statefulset: reach.statefulset.clone(),
            members: members.try_into().unwrap_or(u32::MAX),
            port: reach.port,
        })
    }

    /// Asks everything once more.
    pub async fn round(&self) -> Found {
        let (names, resolver) = match (&self.service, &self.resolver) {
            (Service::Names(names), Some(resolver)) => (names, resolver),
            (Service::Address(ip), _) => {
                let candidate = Candidate { pod: None, address: SocketAddr::new(*ip, self.port) };
                return Found { candidates: vec![candidate], ..Found::default() };
            }
            (Service::Names(_), None) => return Found::default(),
        };
        let mut found = Found::default();
        for name in names {
            found = self.ask_all(resolver, name).await;
            if !found.candidates.is_empty() {
                break;
            }
        }
        found
    }

    async fn ask_all(&self, resolver: &TokioResolver, service: &str) -> Found {
        let bare = crate::config::without_port_label(service);
        let srv_name = if bare == service { format!("_valkey._tcp.{service}.") } else { format!("{service}.") };
        let pods: Vec<PodName> = match &self.statefulset {
            Some(name) => (0..self.members).filter_map(|ordinal| PodName::of_statefulset(name, ordinal)).collect(),
            None => Vec::new(),
        };
        let by_ordinal = join_all(pods.iter().map(|pod| addresses(resolver, format!("{pod}.{bare}."))));
        let ((targets, by_service), by_ordinal) =
            join(join(by_srv(resolver, srv_name), addresses(resolver, format!("{bare}."))), by_ordinal).await;

        let mut book = AddressBook::default();
        for (pod, port, answer) in targets {
            book.add(pod.as_ref(), Some(port), answer);
        }
        for (pod, answer) in pods.iter().zip(by_ordinal) {
            book.add(Some(pod), None, answer);
        }
        book.add(None, None, by_service);
        let unresolved = pods.into_iter().filter(|pod| !book.pods.contains(pod)).collect();
        Found {
            trouble: std::mem::take(&mut book.trouble).into_iter().collect(),
            candidates: book.candidates(self.port),
            unresolved,
        }
    }
}

/// Addresses with the ports that SRV records name for each, and the first pod name that was given for each.
#[derive(Default)]
struct AddressBook {
    entries: BTreeMap<IpAddr, BTreeMap<Option<u16>, Option<PodName>>>,
    pods: BTreeSet<PodName>,
    trouble: BTreeSet<String>,
}

impl AddressBook {
    fn add(&mut self, pod: Option<&PodName>, port: Option<u16>, answer: Answer) {
        for ip in answer.addresses {
            self.entries.entry(ip).or_default().entry(port).or_insert_with(|| pod.cloned());
            self.pods.extend(pod.cloned());
        }
        self.trouble.extend(answer.trouble);
    }

    /// The default port is for addresses of which no SRV record speaks.
    fn candidates(self, default_port: u16) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (ip, ports) in self.entries {
            let named = ports.keys().any(Option::is_some);
            for (port, pod) in ports.into_iter().filter(|(port, _)| port.is_some() || !named) {
                candidates.push(Candidate { pod, address: SocketAddr::new(ip, port.unwrap_or(default_port)) });
            }
        }
        candidates
    }
}

/// The targets of the SRV records with their addresses; none where the service names no such port.
async fn by_srv(resolver: &TokioResolver, name: String) -> Vec<(Option<PodName>, u16, Answer)> {
    let targets = ask(resolver, name, RecordType::SRV).await.targets;
    let looked_up = targets.into_iter().map(|(target, port)| async move {
        let pod = target.iter().next().and_then(|label| PodName::new(str::from_utf8(label).ok()?));
        (pod, port, addresses(resolver, target.to_string()).await)
    });
    join_all(looked_up).await
}

/// A and AAAA records. Where one family is there the other is not waited for long: some servers never answer to AAAA.
async fn addresses(resolver: &TokioResolver, name: String) -> Answer {
    const BRIEFLY: Duration = Duration::from_millis(300);
    let (v4, v6) = (ask(resolver, name.clone(), RecordType::A), ask(resolver, name, RecordType::AAAA));
    tokio::pin!(v4, v6);
    let (first, other) = match select(v4, v6).await {
        Either::Left((first, other)) | Either::Right((first, other)) => (first, other),
    };
    let other = match first.addresses.is_empty() {
        true => other.await,
        false => timeout(BRIEFLY, other).await.unwrap_or_default(),
    };
    let mut both = first;
    both.addresses.extend(other.addresses);
    both.trouble = both.trouble.or(other.trouble);
    both
}

async fn ask(resolver: &TokioResolver, name: String, kind: RecordType) -> Answer {
    match resolver.lookup(name.as_str(), kind).await {
        Ok(lookup) => read(&lookup),
        Err(error) => Answer { trouble: trouble(&name, &error), ..Answer::default() },
    }
}

fn read(lookup: &Lookup) -> Answer {
    let mut answer = Answer::default();
    for record in lookup.answers() {
        match &record.data {
            RData::A(address) => answer.addresses.push(IpAddr::V4(address.0)),
            RData::AAAA(address) => answer.addresses.push(IpAddr::V6(address.0)),
            RData::SRV(service) => answer.targets.push((service.target.clone(), service.port)),
            _ => {}
        }
    }
    answer
}

/// That a name has no such record is an answer, not trouble.
fn trouble(name: &str, error: &NetError) -> Option<String> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
        {
            None
        }
        _ => Some(format!("DNS gives no answer for {name}: {error}")),
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, Failure> {
    let failed = |error: NetError| Exit::System.because(anyhow::Error::new(error).context("cannot set up DNS"));
    let mut builder = match servers {
        [] => TokioResolver::builder_tokio().map_err(|error| {
            let why = "cannot read the name servers from /etc/resolv.conf; name one with --dns-server";
            Exit::Usage.because(anyhow::Error::new(error).context(why))
        })?,
        servers => {
            let configs = servers.iter().map(|server| {
                let mut config = NameServerConfig::udp_and_tcp(server.ip());
                for connection in &mut config.connections {
                    connection.port = server.port();
                }
                config
            });
            TokioResolver::builder_with_config(
                ResolverConfig::from_name_servers(configs.collect()),
                TokioRuntimeProvider::default(),
            )
        }
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = PATIENCE;
    options.attempts = 2;
    options.max_active_requests = usize::from(u16::MAX);
    builder.build().map_err(failed)
}
