//! Shards that leave whole stay shards.
//!
//! A primary that has lost its last slot, and each of its replicas, follows who took it (`cluster-allow-replica-migration`):
//! it copies all that a shard has that stays, only to go. Should its pod ever come back with its volume, it would still be
//! a replica, and no primary for a new shard. So the members of such a shard are told to stay what they are, as long as
//! slots are taken from it. Where a run is killed meanwhile, they have to be told until their servers restart.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Tools, WORD};
use crate::topology::membership::Label;
use crate::valkey::{MoveError, Mover};

/// Who was told to stay what it is, and whether it followed before.
#[derive(Debug, Default)]
pub(super) struct Standing(BTreeMap<SocketAddr, bool>);

impl Standing {
    /// Tells each once. Who cannot be told will follow: that is a copy too many, and no reason not to go on.
    pub(super) async fn hold(&mut self, tools: &Tools<'_>, members: &[Label]) {
        for label in members {
            if self.0.contains_key(&label.address) {
                continue;
            }
            if let Err(why) = self.tell(tools, label.address).await {
                tracing::warn!("{label} will follow whoever takes its last slot: {why}");
            }
        }
    }

    /// It is known how it was before it is changed: an answer that does not come leaves it to be put back, too.
    async fn tell(&mut self, tools: &Tools<'_>, address: SocketAddr) -> Result<(), MoveError> {
        let follows = self.0.entry(address).or_insert(false);
        let mut mover = open(tools, address).await?;
        *follows = mover.follows().await?;
        if *follows { mover.let_follow(false).await } else { Ok(()) }
    }

    /// Takes it back.
    pub(super) async fn release(&mut self, tools: &Tools<'_>) {
        let told = std::mem::take(&mut self.0);
        for address in told.into_iter().filter_map(|(address, followed)| followed.then_some(address)) {
            let released = async { open(tools, address).await?.let_follow(true).await };
            if let Err(why) = released.await {
                tracing::warn!("{address} keeps cluster-allow-replica-migration no until its restart: {why}");
            }
        }
    }
}

async fn open(tools: &Tools<'_>, address: SocketAddr) -> Result<Mover, MoveError> {
    let mover = Mover::open(address, tools.credentials, WORD).await;
    mover.map_err(|silence| MoveError::Passing(silence.to_string()))
}
