//! Slots moved whole: the way of servers since 9.0.
//!
//! The source forks, sends the slots to the target as to a replica, holds writes back for the last few bytes and hands
//! them over; clients see MOVED. The servers do it by themselves, also when we are gone.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use super::Tools;
use crate::topology::rebalance::{Move, Primary};
use crate::topology::slot::{Slot, SlotSet};
use crate::valkey::MoveError;

/// How many keys go at once at most. When they have gone over, the source deletes all of them before it answers anybody
/// (`delKeysInSlot` in `cluster_legacy.c`), which takes it one to two microseconds a key, and twice that with a replica;
/// and a failed migration begins anew.
const KEYS_AT_ONCE: u64 = 10_000;

/// And how many bytes.
const BYTES_AT_ONCE: u64 = 1 << 30;

const OFTEN: Duration = Duration::from_millis(10);

/// Moves slots away from one primary, part by part.
pub(super) async fn run(tools: &Tools<'_>, primary: &Primary, moves: &[(&Move, &Primary)]) -> Result<(), MoveError> {
    let mut source = tools.mover(primary).await?;
    for (one, to) in moves {
        let most = tools.smaller(primary.id, keys_at_once(tools, primary)).await;
        let slots: Vec<Slot> = one.slots.slots().collect();
        let counts = source.count(&slots).await?;
        let counted: Vec<(Slot, u64)> = slots.into_iter().zip(counts).collect();
        for (part, keys) in parts(&counted, most) {
            if tools.halt.is_set() {
                return Ok(());
            }
            tools.meter.admit(usize::try_from(keys).unwrap_or(usize::MAX)).await;
            let before: BTreeSet<String> = source.migrations().await?.into_iter().map(|job| job.name).collect();
            source.migrate_slots(&part, to.id).await?;
            loop {
                let jobs = source.migrations().await?;
                match jobs.iter().find(|job| job.is_export && !before.contains(&job.name)) {
                    Some(job) if job.runs() => sleep(OFTEN).await,
                    Some(job) if job.has_succeeded() => break,
                    Some(job) => {
                        // What does not fit, into memory or into the patience of the servers, may in smaller parts.
                        tools.failed_with(primary.id, keys).await;
                        let (label, state, why) = (&primary.label, &job.state, &job.message);
                        let answer = targets_word(tools, to, &job.name).await;
                        return Err(MoveError::Passing(format!(
                            "the migration from {label} to {} {state}: {why}{answer}",
                            to.label
                        )));
                    }
                    None => return Err(MoveError::Overtaken(format!("{} forgot the migration", primary.label))),
                }
            }
            tools.meter.moved(usize::try_from(keys).unwrap_or(usize::MAX), None);
            tools.meter.settled(part.len());
        }
    }
    Ok(())
}

/// What the target says of a migration that has failed; the source often knows only that it has lost the connection.
async fn targets_word(tools: &Tools<'_>, target: &Primary, name: &str) -> String {
    let Ok(mut mover) = tools.mover(target).await else { return String::new() };
    let jobs = mover.migrations().await.unwrap_or_default();
    let message = jobs.into_iter().find(|job| job.name == name && !job.is_export).map(|job| job.message);
    message
        .filter(|message| !message.is_empty())
        .map_or_else(String::new, |message| format!("; {} says: {message}", target.label))
}

fn keys_at_once(tools: &Tools<'_>, primary: &Primary) -> u64 {
    let a_key = (primary.memory / primary.keys.max(1)).max(1);
    let most = KEYS_AT_ONCE.min(BYTES_AT_ONCE / a_key);
    tools.meter.pace().map_or(most, |pace| most.min(u64::from(pace.get()))).max(1)
}

/// Slots with no more keys than that, and one slot at least; as few parts as that takes, and as equal.
fn parts(slots: &[(Slot, u64)], most: u64) -> Vec<(SlotSet, u64)> {
    let counts = || slots.iter().map(|(_, keys)| keys);
    let all: u64 = counts().sum();
    let equal = all.div_ceil(all.div_ceil(most).max(1)) + counts().max().copied().unwrap_or_default();
    let most = most.min(equal);
    let mut parts: Vec<(SlotSet, u64)> = Vec::new();
    for &(slot, keys) in slots {
        match parts.last_mut() {
            Some((part, held)) if *held + keys <= most => {
                part.insert(slot);
                *held += keys;
            }
            _ => {
                let mut part = SlotSet::EMPTY;
                part.insert(slot);
                parts.push((part, keys));
            }
        }
    }
    parts
}
