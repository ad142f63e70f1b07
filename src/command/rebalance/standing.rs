//! Shards that leave whole stay shards.
//!
//! A primary that has lost its last slot, and each of its replicas, follows who took it (`cluster-allow-replica-migration`):
//! it copies all that a shard has that stays, only to go. Should its pod ever come back with its volume, it would still be
//! a replica, and no primary for a new shard. So the members of such a shard are told to stay what they are, as long as
//! slots are taken from it. Where a run is killed meanwhile, they have to be told until their servers restart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Tools;
use crate::topology::membership::Label;
use crate::valkey::{MoveError, Mover};

/// How long a server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who was told to stay what it is, and whether it would have followed.
#[derive(Debug, Default)]
pub(super) struct Standing(BTreeMap<SocketAddr, bool>);

impl Standing {
    /// Tells each once. Who cannot be told will follow: that is a copy too many, and no reason not to go on.
    pub(super) async fn hold(&mut self, tools: &Tools<'_>, members: &[Label]) {
        for label in members {
            if self.0.contains_key(&label.address) {
                continue;
            }
            let told = tell(tools, label.address, false).await;
            if let Err(why) = &told {
                tracing::warn!("{label} will follow whoever takes its last slot: {why}");
            }
            self.0.insert(label.address, told.unwrap_or(false));
        }
    }

    /// Takes it back.
    pub(super) async fn release(&mut self, tools: &Tools<'_>) {
        let told = std::mem::take(&mut self.0);
        for address in told.into_iter().filter_map(|(address, followed)| followed.then_some(address)) {
            if let Err(why) = tell(tools, address, true).await {
                tracing::warn!("{address} keeps cluster-allow-replica-migration no until its restart: {why}");
            }
        }
    }
}

/// Whether that was a change.
async fn tell(tools: &Tools<'_>, address: SocketAddr, follows: bool) -> Result<bool, MoveError> {
    let mover = Mover::open(address, tools.credentials, PATIENCE).await;
    mover.map_err(|silence| MoveError::Passing(silence.to_string()))?.let_follow(follows).await
}
