//! A nodes.conf from before everybody got another address.
//!
//! Pods that are all restarted at once may come back with each other's addresses. A server that finds another node where
//! it looks for one forgets where that one is, and from 9.1 on takes it for failed at once (`clusterProcessPacket` in
//! `cluster_legacy.c`); a failed primary counts again after twice the node timeout.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Mended;
use crate::topology::identity::PodName;
use crate::topology::node::NodeEntry;
use crate::topology::parse::nodes_conf;

/// Whether these nodes are where they were before this one got its address: another one is said to be at it.
pub fn are_outdated(entries: &[NodeEntry], own: SocketAddr) -> bool {
    entries.iter().any(|entry| !entry.flags.myself && is_at(entry, own))
}

/// Gives each other node the address of its pod, and takes away those at which another pod is; none where all are right.
///
/// A node without an address is not looked for. It is met again, or says itself where it is.
pub fn with_addresses_of_pods(text: &str, own: SocketAddr, pods: &BTreeMap<PodName, SocketAddr>) -> Option<Mended> {
    let mut nodes = Vec::new();
    let lines = text.split_inclusive('\n').map(|line| {
        let entry = nodes_conf(line).ok().and_then(|mut entries| entries.pop()).filter(|entry| !entry.flags.myself);
        let Some((entry, ip)) = entry.and_then(|entry| entry.ip.map(|ip| (entry, ip))) else { return line.to_owned() };
        let name = entry.hostname.as_deref().and_then(|name| PodName::new(name.split('.').next()?));
        let right = name.and_then(|name| pods.get(&name).copied());
        let is_anothers = is_at(&entry, own) || pods.values().any(|other| is_at(&entry, *other));
        let changed = match right.filter(|right| *right != own) {
            Some(right) if right.ip() != ip => moved(line, &right.ip().to_string()),
            None if is_anothers => without_address(line),
            _ => None,
        };
        nodes.extend(changed.is_some().then_some(entry.id));
        changed.unwrap_or_else(|| line.to_owned())
    });
    let text = lines.collect();
    (!nodes.is_empty()).then_some(Mended { text, nodes })
}

/// Servers may share an address, and have ports of their own then.
fn is_at(entry: &NodeEntry, at: SocketAddr) -> bool {
    entry.ip == Some(at.ip()) && (entry.port == at.port() || entry.tls_port == Some(at.port()))
}

/// `ID IP:PORT@BUS-PORT[,…] …`
fn moved(line: &str, ip: &str) -> Option<String> {
    let (id, rest) = line.split_once(' ')?;
    let (ports_to, after) = rest.split_at(rest.find('@')?);
    let (_, port) = ports_to.rsplit_once(':')?;
    Some(format!("{id} {ip}:{port}{after}"))
}

/// As a server writes it of which it knows no address: `ID :0@0[,…] FLAGS,noaddr …`.
fn without_address(line: &str) -> Option<String> {
    let (id, rest) = line.split_once(' ')?;
    let (place, rest) = rest.split_once(' ')?;
    let (flags, rest) = rest.split_once(' ')?;
    let known_as = place.find(',').and_then(|comma| place.get(comma..)).unwrap_or_default();
    Some(format!("{id} :0@0{known_as} {flags},noaddr {rest}"))
}
