//! The records Kubernetes keeps for a headless service and its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::zone::{Answer, Zone};

const PORT_NAME: &str = "_valkey._tcp";

#[derive(Debug)]
pub(super) struct Headless {
    pub(super) auto: bool,
    pub(super) srv: bool,
    pub(super) pods: BTreeMap<String, Ipv4Addr>,
    service: String,
    port: u16,
    published: BTreeSet<String>,
}

impl Headless {
    pub(super) fn new(service: String, port: u16) -> Self {
        Self { auto: true, srv: true, pods: BTreeMap::new(), service, port, published: BTreeSet::new() }
    }

    fn records(&self) -> BTreeMap<String, Vec<Answer>> {
        let pods = || self.pods.iter();
        let host = |pod: &str| format!("{pod}.{}", self.service);
        let mut records: BTreeMap<_, _> = pods().map(|(pod, addr)| (host(pod), vec![Answer::A(*addr)])).collect();
        if pods().next().is_none() {
            return records;
        }
        let all = pods().map(|(_, addr)| Answer::A(*addr)).collect();
        records.insert(self.service.clone(), all);
        if self.srv {
            let all = pods().map(|(pod, _)| Answer::Srv(host(pod), self.port));
            records.insert(format!("{PORT_NAME}.{}", self.service), all.collect());
        }
        records
    }
}

impl Zone {
    /// Writes the service's records anew and removes those that ended; other names stay as they are.
    pub(super) fn publish(&mut self) {
        if !self.headless.auto {
            return;
        }
        let records = self.headless.records();
        for ended in &self.headless.published {
            self.records.remove(ended);
        }
        self.headless.published = records.keys().cloned().collect();
        self.records.extend(records);
    }
}
