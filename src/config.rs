//! From options to values that cannot be wrong.

mod keyring;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::cli::{CredentialArgs, FindArgs, KeepArgs, LoginArgs, OwnArgs, ReachArgs, ShapeArgs, TlsArgs};
use crate::exit::{Exit, Failure};
use crate::tls::{Files, Names, Pair, Tls};
use crate::topology::desired::Shape;
use crate::topology::identity::ClusterId;

pub use keyring::{Keyring, Secret};

/// The variables that may hold our password.
pub const PASSWORD_VARIABLES: [&str; 2] = ["VALKEY_PASSWORD", "VALKEYCLI_AUTH"];

/// What lets us in.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The ACL user; none for the default user.
    pub username: Option<String>,
    /// The passwords; none where the server asks for none.
    pub keyring: Keyring,
    /// How to speak TLS; none where servers do not.
    pub tls: Option<Tls>,
}

/// Where the peers are found and how they are reached.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The service whose names lead to the peers.
    pub service: Service,
    /// The StatefulSet whose ordinals are tried as names.
    pub statefulset: Option<String>,
    /// The client port, where DNS does not say.
    pub port: u16,
    /// The name servers; none for those of resolv.conf.
    pub dns_servers: Vec<SocketAddr>,
    /// Whose nodes are ours; none where only one node's address is given, and its mark is to tell.
    pub cluster: Option<ClusterId>,
    /// What lets us in.
    pub credentials: Credentials,
}

/// What `--service` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Fully qualified names, without the closing dot; the first that has records counts.
    Names(Vec<String>),
    /// One node's address; the others are learnt from it.
    Address(IpAddr),
}

impl Reach {
    /// Checks the options; reads the password file and the search list of resolv.conf.
    pub fn new(args: &ReachArgs) -> Result<Self, Failure> {
        let service = Service::new(&args.service, &args.find.dns_server)?;
        let credentials = Credentials::new(&args.credentials, Some(&service))?;
        Self::through(service, &args.find, args.port, credentials)
    }

    /// The same of options that are known one by one.
    pub fn through(service: Service, args: &FindArgs, port: u16, credentials: Credentials) -> Result<Self, Failure> {
        let dns_servers = args.dns_server.iter().map(|text| dns_server(text)).collect::<Result<Vec<_>, _>>()?;
        let name = match (&args.cluster_id, &service) {
            (Some(id), _) => Some(id.as_str()),
            (None, Service::Names(names)) => names.first().map(|name| without_port_label(name)),
            (None, Service::Address(_)) => None,
        };
        let invalid =
            || Exit::Usage.saying("--cluster-id must consist of letters, digits, dots, dashes and underscores");
        let cluster = name.map(|name| ClusterId::new(name).ok_or_else(invalid)).transpose()?;
        Ok(Self { service, statefulset: args.statefulset.clone(), port, dns_servers, cluster, credentials })
    }
}

impl Service {
    /// What the option names; it is completed by the search list of resolv.conf unless another name server is asked.
    pub fn new(name: &str, dns_servers: &[String]) -> Result<Self, Failure> {
        service(name, if dns_servers.is_empty() { search_list() } else { Vec::new() })
    }
}

/// Where our own server answers: at the pod's address, else at the loopback one.
pub fn own_address(pod_ip: Option<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(pod_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port)
}

impl Credentials {
    /// Those for our own server, and for the others of its cluster.
    pub fn of_pod(args: &OwnArgs) -> Result<Self, Failure> {
        let service = args.service.as_ref().map(|name| Service::new(name, &[])).transpose()?;
        Self::new(&args.credentials, service.as_ref())
    }

    /// For a question to our own server that takes nothing but TLS: see [`Tls::to_anybody`]. A password or a certificate
    /// that is not there is no matter.
    pub fn of_nobody(args: &OwnArgs) -> Result<Self, Failure> {
        let tls = &args.credentials.tls;
        let tls = tls.tls.then(|| Tls::to_anybody(pair(tls))).transpose().map_err(|error| Exit::Bug.because(error))?;
        Ok(Self { tls, ..Self::default() })
    }

    /// The user, its [`password`], and how to speak TLS.
    pub fn new(args: &CredentialArgs, service: Option<&Service>) -> Result<Self, Failure> {
        let password = password(&args.login)?;
        let username = args.login.username.clone();
        if username.is_some() && password.is_none() {
            return Err(Exit::Usage.saying("--username needs a password: --password-file or VALKEY_PASSWORD"));
        }
        Ok(Self { username, keyring: Keyring::new(password), tls: tls(&args.tls, service)? })
    }

    /// The same for our own server: see [`Tls::to_own_server`].
    pub fn to_own_server(&self) -> Result<Self, Failure> {
        let tls = self.tls.as_ref().map(Tls::to_own_server).transpose().map_err(unreadable)?;
        Ok(Self { tls, ..self.clone() })
    }

    /// The same with certificates that stay as they are: see [`Tls::until_told`].
    pub fn until_told(self) -> Result<Self, Failure> {
        let tls = self.tls.as_ref().map(Tls::until_told).transpose().map_err(unreadable)?;
        Ok(Self { tls, ..self })
    }

    /// The user we are.
    pub fn user(&self) -> &str {
        self.username.as_deref().unwrap_or("default")
    }
}

/// How to speak TLS, where it is spoken; reads the files.
fn tls(args: &TlsArgs, service: Option<&Service>) -> Result<Option<Tls>, Failure> {
    if !args.tls {
        let given = [&args.tls_ca, &args.tls_cert, &args.tls_key].into_iter().flatten().next();
        return match given {
            Some(file) => {
                Err(Exit::Usage.saying(format!("{} is given for TLS, and TLS is not spoken: --tls", file.display())))
            }
            None => Ok(None),
        };
    }
    let names = match (&args.tls_server_name, service) {
        (Some(name), _) => Names::Exactly(name.trim_end_matches('.').to_owned()),
        (None, Some(Service::Names(names))) => {
            Names::PodsOf(names.iter().map(|name| without_port_label(name).to_owned()).collect())
        }
        (None, Some(Service::Address(_))) => Names::Address,
        (None, None) if args.tls_insecure => Names::Any,
        (None, None) => {
            return Err(Exit::Usage.saying(
                "--tls needs to know which names servers have: --service, or --tls-server-name where it is another",
            ));
        }
    };
    if args.tls_ca.is_none() && !args.tls_insecure {
        return Err(Exit::Usage.saying("--tls needs --tls-ca: the file with the authority that made the certificates"));
    }
    let tls = Tls::new(Files { ca: args.tls_ca.clone(), pair: pair(args) }, names, args.tls_insecure);
    let tls = tls.map_err(unreadable)?;
    if tls.is_insecure() {
        // Whatever is left out of the log, this is not.
        tracing::error!(
            "--tls-insecure: whoever answers is believed, so anybody in between can read and change everything"
        );
    }
    Ok(Some(tls))
}

fn pair(args: &TlsArgs) -> Option<Pair> {
    args.tls_cert.clone().zip(args.tls_key.clone()).map(|(cert, key)| Pair { cert, key })
}

fn unreadable(error: anyhow::Error) -> Failure {
    Exit::Usage.because(error.context("TLS"))
}

/// `--password-file`, then `VALKEY_PASSWORD_FILE`, `VALKEY_PASSWORD` and `VALKEYCLI_AUTH`; the first one counts.
pub fn password(args: &LoginArgs) -> Result<Option<Secret>, Failure> {
    match password_file(args) {
        Some(path) => Ok(Some(password_from(&path)?)),
        None => Ok(PASSWORD_VARIABLES.into_iter().find_map(variable).map(Secret::new)),
    }
}

/// The file that holds the password, where one does.
pub fn password_file(args: &LoginArgs) -> Option<PathBuf> {
    args.password_file.clone().or_else(|| variable("VALKEY_PASSWORD_FILE").map(PathBuf::from))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// The shape that was asked for; both numbers have defaults.
pub fn shape(args: &ShapeArgs) -> Result<Shape, Failure> {
    let shape = Shape { shards: args.shards, replicas: args.replicas };
    /// Beyond this the bus itself does not work well, says the cluster specification.
    const MOST: usize = 1_000;
    match shape.members() {
        members if members > MOST => {
            Err(Exit::Usage.saying(format!("{shape} make {members} nodes; a cluster has {MOST} at most")))
        }
        _ => Ok(shape),
    }
}

/// The shape that a cluster is kept in; none for that in which it stands.
pub fn shape_to_keep(args: &KeepArgs, forms: bool) -> Result<Option<Shape>, Failure> {
    let ShapeArgs { shards, replicas } = ShapeArgs::DEFAULT;
    let given = ShapeArgs { shards: args.shards.unwrap_or(shards), replicas: args.replicas.unwrap_or(replicas) };
    let is_given = forms || args.shards.is_some() || args.replicas.is_some();
    is_given.then(|| shape(&given)).transpose()
}

/// The password in a file; a line break at its end is not part of it.
pub(crate) fn password_from(path: &Path) -> Result<Secret, Failure> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the password file {}", path.display()))
        .map_err(|error| Exit::Usage.because(error))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Exit::Usage.saying(format!("the password file {} is empty", path.display()))),
        password => Ok(Secret::new(password)),
    }
}

fn dns_server(text: &str) -> Result<SocketAddr, Failure> {
    const DNS_PORT: u16 = 53;
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT)))
        .map_err(|_| Exit::Usage.saying(format!("--dns-server {text:?} is not ADDRESS or ADDRESS:PORT")))
}

/// A name with a closing dot is complete. Any other name is completed as Kubernetes' search list means it: NAME takes
/// the first search domain, NAME.NAMESPACE the second, NAME.NAMESPACE.svc the third; and it is tried as it stands.
fn service(name: &str, search: Vec<String>) -> Result<Service, Failure> {
    if let Ok(ip) = name.parse() {
        return Ok(Service::Address(ip));
    }
    let bare = name.trim_end_matches('.');
    if bare.is_empty() || ClusterId::new(bare).is_none() {
        return Err(Exit::Usage.saying(format!("--service {name:?} is neither a DNS name nor an address")));
    }
    let dots = without_port_label(bare).matches('.').count();
    let qualified = search.get(dots).filter(|_| !name.ends_with('.')).map(|domain| format!("{bare}.{domain}"));
    Ok(Service::Names(qualified.into_iter().chain([bare.to_owned()]).collect()))
}

/// `valkey.ns` of `_tcp-valkey._tcp.valkey.ns`.
pub(crate) fn without_port_label(name: &str) -> &str {
    match name.split_once("._tcp.") {
        Some((port, rest)) if port.starts_with('_') => rest,
        _ => name,
    }
}

fn search_list() -> Vec<String> {
    let text = std::fs::read_to_string(PathBuf::from("/etc/resolv.conf")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("search").filter(|rest| rest.starts_with([' ', '\t'])))
        .next_back()
        .map(|domains| domains.split_ascii_whitespace().map(|domain| domain.trim_end_matches('.').to_owned()).collect())
        .unwrap_or_default()
}

/// `30s`, `2m`, `500ms`; a bare number is seconds. A year at most.
pub fn duration(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let duration = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error}; write 30s, 2m or 500ms"))?,
    };
    match duration <= MOST {
        true => Ok(duration),
        false => Err("that is more than a year".to_owned()),
    }
}

/// `valkey-3=2`.
pub fn weight(text: &str) -> Result<(String, u32), String> {
    let (pod, weight) = text.split_once('=').ok_or("write POD=W")?;
    match (pod, weight.parse()) {
        ("", _) => Err("write POD=W".to_owned()),
        (pod, Ok(weight)) => Ok((pod.to_owned(), weight)),
        (_, Err(_)) => Err(format!("the weight {weight:?} is not a whole number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str, search: &[&str]) -> Option<Vec<String>> {
        match service(name, search.iter().map(|domain| (*domain).to_owned()).collect()) {
            Ok(Service::Names(names)) => Some(names),
            _ => None,
        }
    }

    #[test]
    fn a_short_service_name_is_completed_as_kubernetes_means_it() {
        const SEARCH: [&str; 3] = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"];
        for (short, full) in [
            ("valkey", "valkey.ns.svc.cluster.local"),
            ("valkey.other", "valkey.other.svc.cluster.local"),
            ("valkey.other.svc", "valkey.other.svc.cluster.local"),
            ("_tcp-valkey._tcp.valkey", "_tcp-valkey._tcp.valkey.ns.svc.cluster.local"),
        ] {
            assert_eq!(names(short, &SEARCH), Some(vec![full.to_owned(), short.to_owned()]));
        }
        assert_eq!(names("valkey.", &SEARCH), Some(vec!["valkey".to_owned()]));
        assert_eq!(names("valkey", &[]), Some(vec!["valkey".to_owned()]));
    }

    #[test]
    fn durations_are_seconds_unless_they_say_otherwise() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("soon").is_err() && duration("18446744073709551615").is_err());
    }
}
