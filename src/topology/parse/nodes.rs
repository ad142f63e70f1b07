//! CLUSTER NODES, and nodes.conf, which is the same lines with a line of variables.

use std::net::IpAddr;

use super::Unreadable;
use crate::topology::node::{Flags, Moving, NodeEntry, NodeId, Role};
use crate::topology::slot::{Slot, SlotRange};

/// Reads the answer to CLUSTER NODES.
pub fn nodes(text: &str) -> Result<Vec<NodeEntry>, Unreadable> {
    read(text, "a line of CLUSTER NODES")
}

/// Reads a nodes.conf: its nodes as the server last knew them.
pub fn nodes_conf(text: &str) -> Result<Vec<NodeEntry>, Unreadable> {
    read(text, "a line of nodes.conf")
}

fn read(text: &str, what: &'static str) -> Result<Vec<NodeEntry>, Unreadable> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("vars "))
        .map(|line| entry(line).ok_or_else(|| Unreadable::new(what, line)))
        .collect()
}

/// `ID ADDRESS FLAGS PRIMARY PING PONG EPOCH LINK [SLOT…]` (`clusterGenNodeDescription` in `cluster_legacy.c`).
fn entry(line: &str) -> Option<NodeEntry> {
    let mut fields = line.split_ascii_whitespace();
    let id = NodeId::parse(fields.next()?)?;
    let where_it_is = fields.next()?;
    let (ip, port, bus_port, hostname) = address(where_it_is)?;
    let (flags, is_replica) = flags(fields.next()?);
    let primary = match fields.next()? {
        "-" => None,
        id => Some(NodeId::parse(id)?),
    };
    let (_ping, _pong) = (fields.next()?, fields.next()?);
    let config_epoch = fields.next()?.parse().ok()?;
    let connected = fields.next()? == "connected";
    let (mut slots, mut moving) = (Vec::new(), Vec::new());
    for field in fields {
        match field.strip_prefix('[') {
            Some(rest) => moving.push(moved(rest.strip_suffix(']')?)?),
            None => slots.push(range(field)?),
        }
    }
    Some(NodeEntry {
        id,
        ip,
        port,
        tls_port: tls_port(where_it_is),
        bus_port,
        hostname,
        role: if is_replica { Role::Replica(primary) } else { Role::Primary },
        flags,
        config_epoch,
        connected,
        slots,
        moving,
    })
}

/// `IP:PORT@BUSPORT[,HOSTNAME[,NAME=VALUE…]]`. An IPv6 address stands without brackets; the address of a node that
/// has not learnt its own is empty.
fn address(field: &str) -> Option<(Option<IpAddr>, u16, u16, Option<String>)> {
    let mut parts = field.split(',');
    let (client, bus_port) = parts.next()?.rsplit_once('@')?;
    let (ip, port) = client.rsplit_once(':')?;
    let hostname = parts.next().filter(|name| !name.is_empty()).map(str::to_owned);
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    Some((ip.parse().ok(), port.parse().ok()?, bus_port.parse().ok()?, hostname))
}

/// Zero is none.
fn tls_port(field: &str) -> Option<u16> {
    let port = field.split(',').skip(2).find_map(|part| part.strip_prefix("tls-port="))?.parse().ok();
    port.filter(|port| *port != 0)
}

fn flags(field: &str) -> (Flags, bool) {
    let mut flags = Flags::default();
    let mut is_replica = false;
    for flag in field.split(',') {
        match flag {
            "myself" => flags.myself = true,
            "slave" | "replica" => is_replica = true,
            "fail?" => flags.suspected = true,
            "fail" => flags.failed = true,
            "handshake" => flags.handshake = true,
            "noaddr" => flags.without_address = true,
            "nofailover" => flags.no_failover = true,
            _ => {}
        }
    }
    (flags, is_replica)
}

/// `93->-ID` for a slot on its way out, `77-<-ID` for one on its way in, without the brackets.
fn moved(field: &str) -> Option<Moving> {
    if let Some((slot, id)) = field.split_once("->-") {
        return Some(Moving::To(number(slot)?, NodeId::parse(id)?));
    }
    let (slot, id) = field.split_once("-<-")?;
    Some(Moving::From(number(slot)?, NodeId::parse(id)?))
}

fn range(field: &str) -> Option<SlotRange> {
    let (first, last) = field.split_once('-').unwrap_or((field, field));
    SlotRange::new(number(first)?, number(last)?)
}

fn number(text: &str) -> Option<Slot> {
    Slot::new(text.parse().ok()?)
}
