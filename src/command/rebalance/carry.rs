//! Moves as they were planned, carried out by whatever way fits.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::{Tools, atomic, keywise};
use crate::topology::node::NodeId;
use crate::topology::rebalance::{Ground, Move, Primary};
use crate::topology::slot::{Slot, SlotSet};
use crate::valkey::MoveError;

/// Moves slots, all sources at once; waits for all of them also where one fails. `by_key` where they are
/// half moved that way already. Where a target owns none yet, only its first is moved: see `keywise`.
pub(super) async fn carry(tools: &Tools<'_>, ground: &Ground, moves: &[Move], by_key: bool) -> Result<(), MoveError> {
    let slots: usize = moves.iter().map(|one| one.slots.len()).sum();
    let keys = moves.iter().filter_map(|one| {
        let from = ground.get(one.from)?;
        Some(from.keys * one.slots.len() as u64 / (from.slots.len() as u64).max(1))
    });
    tools.meter.expect(slots as u64, keys.sum());
    let first = first_slots(tools, ground, moves, by_key).await?;
    if !first.is_empty() {
        let carried = first.values().map(async |(from, moves)| {
            let moves: Vec<(&Move, &Primary)> = moves.iter().map(|(one, to)| (one, *to)).collect();
            keywise::run(tools, from, &moves, Vec::new()).await
        });
        return join_all(carried).await.into_iter().collect();
    }
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
            .partition(|(_, to)| !by_key && !is_last && goes_whole(primary, to));
        atomic::run(tools, primary, &whole).await?;
        let told_later = |id: NodeId| id == primary.id || single.iter().any(|(_, to)| to.id == id);
        let others = ground.primaries.iter().filter(|other| is_last && !told_later(other.id));
        keywise::run(tools, primary, &single, others.collect()).await
    }));
    carried.await.into_iter().collect()
}

fn goes_whole(from: &Primary, to: &Primary) -> bool {
    from.is_atomic() && to.is_atomic()
}

/// What each source gives to targets, by its id.
type Given<'g> = BTreeMap<NodeId, (&'g Primary, Vec<(Move, &'g Primary)>)>;

/// For each target without slots, the one with the fewest keys of those that are to go to it key by key. The last slot of a
/// source is none of them: it goes alone anyway.
async fn first_slots<'g>(
    tools: &Tools<'_>,
    ground: &'g Ground,
    moves: &[Move],
    by_key: bool,
) -> Result<Given<'g>, MoveError> {
    let mut first = Given::new();
    for to in ground.primaries.iter().filter(|primary| primary.slots.is_empty()) {
        let mut found: Vec<(u64, Slot, &Primary)> = Vec::new();
        for one in moves.iter().filter(|one| one.to == to.id) {
            let Some(from) = ground.get(one.from) else { continue };
            let given = first.get(&from.id).map_or(0, |(_, moves)| moves.len());
            if from.slots.len() <= given + 1 || (!by_key && goes_whole(from, to)) {
                continue;
            }
            let slots: Vec<Slot> = one.slots.slots().collect();
            let counts = tools.mover(from).await?.count(&slots).await?;
            found.extend(counts.into_iter().zip(slots).min().map(|(keys, slot)| (keys, slot, from)));
        }
        if let Some((_, slot, from)) = found.into_iter().min_by_key(|(keys, ..)| *keys) {
            let mut slots = SlotSet::EMPTY;
            slots.insert(slot);
            first.entry(from.id).or_insert((from, Vec::new())).1.push((Move { from: from.id, to: to.id, slots }, to));
        }
    }
    Ok(first)
}

/// The slot that a primary which gives away all that it has keeps for a round of its own: see `keywise`. That with the
/// fewest keys, as it always goes key by key.
async fn kept_back(tools: &Tools<'_>, primary: &Primary, moves: &[(&Move, &Primary)]) -> Result<SlotSet, MoveError> {
    let given: Vec<Slot> = moves.iter().flat_map(|(one, _)| one.slots.slots()).collect();
    let mut kept = SlotSet::EMPTY;
    if given.len() > 1 && given.len() == primary.slots.len() {
        let counts = tools.mover(primary).await?.count(&given).await?;
        if let Some((_, slot)) = counts.into_iter().zip(given).min() {
            kept.insert(slot);
        }
    }
    Ok(kept)
}
