//! Moves as they were planned, carried out by whatever way fits.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use futures_util::future::join_all;

use super::{Tools, atomic, keywise};
use crate::topology::node::NodeId;
use crate::topology::rebalance::{Ground, Move, Primary};
use crate::topology::slot::{Slot, SlotSet};
use crate::valkey::MoveError;

/// Moves slots, all sources at once; waits for all of them also where one fails. `by_key` where they are
/// half moved that way already.
pub(super) async fn carry(tools: &Tools<'_>, ground: &Ground, moves: &[Move], by_key: bool) -> Result<(), MoveError> {
    let slots: usize = moves.iter().map(|one| one.slots.len()).sum();
    let keys = moves.iter().filter_map(|one| {
        let from = ground.get(one.from)?;
        Some(from.keys * one.slots.len() as u64 / (from.slots.len() as u64).max(1))
    });
    tools.meter.expect(slots as u64, keys.sum());
    if !by_key {
        for one in moves {
            let (from, to) = (ground.label(one.from), ground.label(one.to));
            tools.meter.say(&format!("{} slots of {from} go to {to}", one.slots.len()));
        }
    }
    let sources: BTreeSet<NodeId> = moves.iter().map(|one| one.from).collect();
    let sources = sources.into_iter().filter_map(|source| {
        let primary = ground.get(source)?;
        let own = moves.iter().filter(|one| one.from == source);
        let moves: Vec<(&Move, &Primary)> = own.filter_map(|one| Some((one, ground.get(one.to)?))).collect();
        Some((primary, moves))
    });
    let others: Vec<(NodeId, SocketAddr)> =
        ground.primaries.iter().map(|primary| (primary.id, primary.address)).collect();
    let others = &others;
    let carried = join_all(sources.map(|(primary, moves)| async move {
        let is_last = primary.slots.len() == 1;
        let kept_back = kept_back(tools, primary, &moves).await?;
        let moves: Vec<(Move, &Primary)> = moves
            .into_iter()
            .map(|(one, to)| (Move { slots: one.slots.without(&kept_back), ..one.clone() }, to))
            .filter(|(one, _)| !one.slots.is_empty())
            .collect();
        let (whole, single): (Vec<_>, Vec<_>) = moves
            .iter()
            .map(|(one, to)| (one, *to))
            .partition(|(_, to)| !by_key && !is_last && primary.is_atomic() && to.is_atomic());
        atomic::run(tools, primary, &whole).await?;
        let told_later = |id: NodeId| id == primary.id || single.iter().any(|(_, to)| to.id == id);
        let others = others.iter().filter(|(id, _)| is_last && !told_later(*id));
        keywise::run(tools, primary, &single, others.map(|(_, address)| *address).collect()).await
    }));
    carried.await.into_iter().collect()
}

/// The slot that a primary which gives away all that it has keeps for a round of its own: see `keywise`. That with the
/// fewest keys, as it always goes key by key.
async fn kept_back(tools: &Tools<'_>, primary: &Primary, moves: &[(&Move, &Primary)]) -> Result<SlotSet, MoveError> {
    let given: Vec<Slot> = moves.iter().flat_map(|(one, _)| one.slots.slots()).collect();
    let mut kept = SlotSet::EMPTY;
    if given.len() > 1 && given.len() == primary.slots.len() {
        let counts = tools.mover(primary.address).await?.count(&given).await?;
        if let Some((_, slot)) = counts.into_iter().zip(given).min() {
            kept.insert(slot);
        }
    }
    Ok(kept)
}
