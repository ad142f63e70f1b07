//! A nodes.conf with which Valkey before 9.0 does not start: a replica's shard id that is not its primary's.
//!
//! Nodes learn each other's shard ids one by one, for some seconds after a replica has changed its primary. A server
//! that ends meanwhile leaves both of them behind, and then does not start again ("corrupted cluster config file",
//! `clusterLoadConfig` in `cluster_legacy.c`). From 9.0 on servers take the primary's; so does this.

use std::collections::BTreeMap;

use super::Mended;
use crate::topology::node::{NodeId, Role};
use crate::topology::parse::nodes_conf;

/// Gives each replica the shard id of its primary; none where every one has it. What else is wrong with the file is
/// left as it is.
pub fn with_shard_ids_of_primaries(text: &str) -> Option<Mended> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some((id, primary, shard)) = placed(line) else { continue };
        found.insert(id, (primary, shard));
    }
    let mut replicas = Vec::new();
    let lines = text.split_inclusive('\n').map(|line| {
        let Some((id, Some(_), shard)) = placed(line) else { return line.to_owned() };
        match top(&found, id) {
            Some(rightful) if rightful != shard => {
                replicas.push(id);
                line.replacen(&format!("{KEY}{shard}"), &format!("{KEY}{rightful}"), 1)
            }
            _ => line.to_owned(),
        }
    });
    let text = lines.collect();
    (!replicas.is_empty()).then_some(Mended { text, nodes: replicas })
}

const KEY: &str = "shard-id=";

/// Who the line is about, whom it follows, and its shard id.
fn placed(line: &str) -> Option<(NodeId, Option<NodeId>, &str)> {
    let entry = nodes_conf(line).ok()?.pop()?;
    let primary = match entry.role {
        Role::Primary => None,
        Role::Replica(primary) => Some(primary?),
    };
    let address = line.split_ascii_whitespace().nth(1)?;
    Some((entry.id, primary, address.split(',').find_map(|part| part.strip_prefix(KEY))?))
}

/// The shard id of whom this node copies in the end: for a while a replica may follow a replica.
fn top<'t>(found: &BTreeMap<NodeId, (Option<NodeId>, &'t str)>, mut id: NodeId) -> Option<&'t str> {
    for _ in 0..found.len() {
        match found.get(&id)? {
            (None, shard) => return Some(shard),
            (Some(primary), _) => id = *primary,
        }
    }
    None
}
