//! Shards that leave whole stay shards.
//!
//! A primary that has lost its last slot, and each of its replicas, follows who took it (`cluster-allow-replica-migration`):
//! it copies all that a shard has that stays, only to go. Should its pod ever come back with its volume, it would still be
//! a replica, and no primary for a new shard. So the members of such a shard are told to stay what they are, as long as
//! slots are taken from it. Where a run is killed meanwhile, they have to be told until their servers restart.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::Tools;
use crate::topology::membership::Label;
use crate::valkey::{MoveError, Mover};

/// How long a server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who was told to stay what it is.
#[derive(Debug, Default)]
pub(super) struct Standing {
    told: BTreeSet<SocketAddr>,
    /// Those of them that would have followed.
    held: Vec<SocketAddr>,
}

impl Standing {
    /// Tells each once. Who cannot be told will follow: that is a copy too many, and no reason not to go on.
    pub(super) async fn hold(&mut self, tools: &Tools<'_>, members: impl Iterator<Item = &Label>) {
        for label in members {
            if !self.told.insert(label.address) {
                continue;
            }
            match tell(tools, label.address, false).await {
                Ok(true) => self.held.push(label.address),
                Ok(false) => {}
                Err(why) => tracing::warn!("{label} will follow whoever takes its last slot: {why}"),
            }
        }
    }

    /// Takes it back.
    pub(super) async fn release(&mut self, tools: &Tools<'_>) {
        for address in std::mem::take(&mut self.held) {
            if let Err(why) = tell(tools, address, true).await {
                tracing::warn!("{address} keeps cluster-allow-replica-migration no until its restart: {why}");
            }
        }
        self.told.clear();
    }
}

/// Whether that was a change.
async fn tell(tools: &Tools<'_>, address: SocketAddr, follows: bool) -> Result<bool, MoveError> {
    let mover = Mover::open(address, tools.credentials, PATIENCE).await;
    mover.map_err(|silence| MoveError::Passing(silence.to_string()))?.let_follow(follows).await
}
