//! What the server knows, and what a query gets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_server::proto::rr::RecordType;

use super::headless::Headless;

/// One record of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Where a service listens: the full name of the host, and the port.
    Srv(String, u16),
}

/// What goes wrong with queries for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No answer at all, by neither protocol.
    Silent,
    /// The right answer, that much later.
    Late(Duration),
    /// SERVFAIL.
    ServFail,
    /// The name does not exist, whatever the zone says.
    NxDomain,
    /// REFUSED.
    Refused,
    /// Over UDP no records and the TC bit; over TCP the right answer.
    Truncate,
    /// Only the first so many records.
    Partial(usize),
    /// That address alone, to queries for its family.
    Wrong(IpAddr),
}

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

#[derive(Debug)]
pub(super) struct Zone {
    pub(super) records: HashMap<String, Vec<Answer>>,
    pub(super) faults: HashMap<String, Fault>,
    pub(super) fault_all: Option<Fault>,
    pub(super) queries: HashMap<(String, RecordType, Transport), usize>,
    pub(super) headless: Headless,
}

/// The reply to a query, before it is encoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Records(Vec<Answer>),
    NxDomain,
    ServFail,
    Refused,
    Truncated,
    Silence,
}

impl Answer {
    fn record_type(&self) -> RecordType {
        match self {
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::AAAA,
            Self::Srv(..) => RecordType::SRV,
        }
    }
}

impl From<IpAddr> for Answer {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self::A(addr),
            IpAddr::V6(addr) => Self::Aaaa(addr),
        }
    }
}

impl Zone {
    pub(super) fn new(service: &str, port: u16) -> Self {
        Self {
            records: HashMap::new(),
            faults: HashMap::new(),
            fault_all: None,
            queries: HashMap::new(),
            headless: Headless::new(key(service), port),
        }
    }

    /// Counts the query, and says what to reply and how much later.
    pub(super) fn query(&mut self, name: &str, record: RecordType, transport: Transport) -> (Duration, Reply) {
        let name = key(name);
        let fault = self.faults.get(&name).or(self.fault_all.as_ref()).cloned();
        let right = self.lookup(&name, record);
        *self.queries.entry((name, record, transport)).or_default() += 1;
        let reply = match fault {
            None => right,
            Some(Fault::Late(late)) => return (late, right),
            Some(Fault::Silent) => Reply::Silence,
            Some(Fault::ServFail) => Reply::ServFail,
            Some(Fault::NxDomain) => Reply::NxDomain,
            Some(Fault::Refused) => Reply::Refused,
            Some(Fault::Truncate) if transport == Transport::Udp => Reply::Truncated,
            Some(Fault::Truncate) => right,
            Some(Fault::Partial(count)) => match right {
                Reply::Records(records) => Reply::Records(records.into_iter().take(count).collect()),
                other => other,
            },
            Some(Fault::Wrong(addr)) => match Answer::from(addr) {
                wrong if wrong.record_type() == record => Reply::Records(vec![wrong]),
                _ => right,
            },
        };
        (Duration::ZERO, reply)
    }

    fn lookup(&self, name: &str, record: RecordType) -> Reply {
        let Some(answers) = self.records.get(name) else {
            return Reply::NxDomain;
        };
        let of_type = answers.iter().filter(|one| one.record_type() == record);
        Reply::Records(of_type.cloned().collect())
    }
}

/// Names compare in lower case and with the last dot.
pub(super) fn key(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.').to_ascii_lowercase())
}
