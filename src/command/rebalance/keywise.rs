//! Slots moved key by key: the way of servers before 9.0.
//!
//! For each slot: IMPORTING at the target, MIGRATING at the source, its keys, NODE at the target, NODE at the source. The
//! target must be first in both: a source that sends clients to a target which knows nothing of it would be answered
//! MOVED, and the clients would go round in circles. The other primaries hear of the new owner from the target, which
//! tells everybody at once when it takes a slot over.
//!
//! **Why MIGRATE replaces.** While the source owns a slot and marks it as migrating, it serves every key that it has and
//! sends clients to the target for those it has not; it makes no new ones. So a key is changed at the target only when
//! the source has it no more. Where a key is on both sides, a MIGRATE was cut off after the target had stored it and
//! before the source had deleted it; clients went on at the source, and the source's copy is the one that was
//! acknowledged. The same holds after an IOERR: the key may be on both sides, and it is sent again. A source that forgot
//! its mark, as 7.2 does when it fails over, serves clients as if nothing had gone over; what it has then was written
//! later than what is at the target. Only a failover to a replica that had not heard of the deletions brings a key back
//! that the target has too; that replica has forgotten acknowledged writes of all kinds, as asynchronous replication
//! does, and its word is the word of the slot's owner.
//!
//! **Why a slot is given away only when it is empty.** A server that learns that a slot of its own is another's deletes the
//! keys it has in it. So the target is told NODE only after the source, which makes no keys in a slot that is migrating,
//! has shown an empty list.
//!
//! **Why one run at a time takes slots from a source.** MIGRATING overwrites silently what another run has said: of two
//! that send one slot to different targets, each would have a part of its keys arrive where nobody looks for it. So every
//! connection to the source bears the name of its run before it looks who else does, and a run that finds another one
//! waits. Of two at the same moment at least one sees the other; both wait then, each for a time of its own. The name
//! goes with the connection, and the server closes that after its last command. Before NODE we look once more whether the
//! mark is ours still: other tools have no names.
//!
//! **Why the first slot of a primary goes alone.** Keys that have gone over are nowhere else any more. A primary that owns
//! slots has replicas that take over from it, is not started without its data, and is not stopped before it is saved or has
//! an heir; one without slots has nothing of this, and its replica would drop the keys when it comes back empty. So the
//! first that a target gets is one slot with few keys, and everything else comes when that is its own.
//!
//! **Why a target shows now and then that it is there.** MIGRATE goes to an address. A pod that goes leaves its own to
//! whoever comes next, which may serve the slot in a cluster of its own and take keys that would be deleted here. So
//! connections that have told the id of the node are asked right before, and nothing is sent to who does not answer: it
//! would hold up the source, too.
//!
//! **Why the last slot of a primary goes alone.** A primary without slots becomes a replica at once
//! (`cluster-allow-replica-migration`) and says so. Who hears that before it has heard of the new owner strikes out what
//! the old one owned, finds slots without an owner, and answers CLUSTERDOWN for a moment. So one slot is kept back until
//! all others are known to be their new owners' everywhere, and then the other primaries are told first. To who asks them
//! in that moment they name the target, which names the source, which sends on: a redirect more.
//!
//! **Why the source goes on serving.** It serves nobody while it runs a MIGRATE, and runs all that it has read of one
//! connection before it looks at the next. So few have a MIGRATE under way, of as many keys as the [`Window`] allows: one
//! that runs, and the next. A key that is too large for that goes alone, and no other MIGRATE
//! is under way meanwhile, on any source: the target is busy with it too, and whoever sends to it would wait.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep};

use super::Tools;
use super::meter::Meter;
use crate::topology::node::NodeId;
use crate::topology::rebalance::{BIG, Batch, Key, Move, Primary, Window, batches, blocks_for};
use crate::topology::slot::Slot;
use crate::valkey::{Marks, MoveError, Mover, SlotState};

/// How many connections to one source prepare and settle.
const LANES: usize = 6;

/// How many of them have a MIGRATE under way. A target that hangs holds the source up for as long as each of them waits.
const UNDER_WAY: usize = 2;

/// Slots that are opened, emptied and settled together: so many, or so many keys.
const SLOTS_A_BUNCH: usize = 256;
const KEYS_A_BUNCH: u64 = 6_000;

/// How many names of one slot's keys are asked for at a time: the server lists them in one go.
const NAMES: usize = 1_000;

/// How long the source waits for the target within one MIGRATE, on top of what the keys' size takes: it serves nobody
/// meanwhile, should the target hang.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait for another run, at least and at most.
const BUSY: Range<u64> = 500..1_500;

/// One source, and what goes from it.
struct Source<'t> {
    primary: &'t Primary,
    tools: &'t Tools<'t>,
    left: Mutex<VecDeque<Bunch<'t>>>,
    window: Mutex<Window>,
    under_way: Semaphore,
    failed: AtomicBool,
    /// A slot is empty only when it is in every database.
    databases: u32,
    /// Who is told of the new owner before that owner itself.
    tell_first: Vec<&'t Primary>,
    /// The marks that the moves were decided on: of those that are finished, they may name who has been taken over from.
    planned_on: Marks,
}

/// Slots that go to one target together.
struct Bunch<'t> {
    slots: Vec<Slot>,
    to: &'t Primary,
}

/// Moves slots away from one primary. Ends at the first failure, or when it is halted, with no slot half-way but those
/// that could not be helped.
///
/// `tell_first` are the other primaries, where it is the last slot of this one.
pub(super) async fn run(
    tools: &Tools<'_>,
    primary: &Primary,
    moves: &[(&Move, &Primary)],
    tell_first: Vec<&Primary>,
) -> Result<(), MoveError> {
    if moves.is_empty() {
        return Ok(());
    }
    let mut lanes = claimed(tools, primary).await?;
    let Some(first) = lanes.first_mut() else { return Ok(()) };
    let mut left = VecDeque::new();
    for (one, to) in moves {
        let slots: Vec<Slot> = one.slots.slots().collect();
        let counts = first.count(&slots).await?;
        left.extend(bunches(slots.into_iter().zip(counts), to));
    }
    let source = Source {
        primary,
        tools,
        left: Mutex::new(left),
        window: Mutex::new(Window::START),
        under_way: Semaphore::new(UNDER_WAY),
        failed: AtomicBool::new(false),
        databases: first.databases().await?,
        tell_first,
        planned_on: primary.exports().collect(),
    };
    let ended = join_all(lanes.into_iter().map(|lane| source.lane(lane))).await;
    // The one that was the first to fail says why.
    let (overtaken, others): (Vec<_>, Vec<_>) =
        ended.into_iter().partition(|ended| matches!(ended, Err(MoveError::Overtaken(_))));
    others.into_iter().chain(overtaken).collect()
}

/// Connections to a source that is ours as long as they stand.
async fn claimed(tools: &Tools<'_>, primary: &Primary) -> Result<Vec<Mover>, MoveError> {
    let mut lanes = try_join_all((0..LANES).map(|_| tools.mover(primary))).await?;
    match Mover::claim(&mut lanes, &tools.claim).await {
        Ok(()) => Ok(lanes),
        Err(MoveError::Busy(why)) => {
            drop(lanes);
            let span = BUSY.end - BUSY.start;
            sleep(Duration::from_millis(BUSY.start + RandomState::new().hash_one(()) % span)).await;
            Err(MoveError::Busy(format!("{}: {why}", primary.label)))
        }
        Err(error) => Err(error),
    }
}

fn bunches<'t>(slots: impl Iterator<Item = (Slot, u64)>, to: &'t Primary) -> Vec<Bunch<'t>> {
    let mut bunches: Vec<Bunch<'t>> = Vec::new();
    let mut keys = 0;
    for (slot, count) in slots {
        match bunches.last_mut() {
            Some(last) if last.slots.len() < SLOTS_A_BUNCH && keys + count <= KEYS_A_BUNCH => {
                keys += count;
                last.slots.push(slot);
            }
            _ => {
                keys = count;
                bunches.push(Bunch { slots: vec![slot], to });
            }
        }
    }
    bunches
}

impl<'t> Source<'t> {
    async fn lane(&self, mut lane: Mover) -> Result<(), MoveError> {
        while !self.failed.load(Ordering::Relaxed) && !self.tools.halt.is_set() {
            let next = self.left.lock().await.pop_front();
            let Some(bunch) = next else { break };
            if let Err(error) = self.carry(&mut lane, &bunch).await {
                self.failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// One bunch from the first command to the last.
    async fn carry(&self, lane: &mut Mover, bunch: &Bunch<'_>) -> Result<(), MoveError> {
        let (tools, source, target) = (self.tools, self.primary, bunch.to);
        let (from, to) = (source.id, target.id);
        let slots = done(&bunch.slots, tools.set(target, &bunch.slots, SlotState::Importing(from)).await?)?;
        let marks = lane.exports().await?;
        let slots: Vec<Slot> = slots.into_iter().filter(|slot| self.taken(&marks, *slot, to).is_none()).collect();
        let slots = done(&slots, tools.set(source, &slots, SlotState::Migrating(to)).await?)?;
        for database in 0..self.databases {
            // Where there is one only, it need not be said.
            if self.databases > 1 {
                lane.select(database).await?;
            }
            self.empty(lane, &slots, (target, database)).await?;
        }
        let slots = ours(lane, slots, to).await?;
        for other in &self.tell_first {
            done(&slots, tools.set(other, &slots, SlotState::Node(to)).await?)?;
        }
        let settled = done(&slots, tools.set(target, &slots, SlotState::Node(to)).await?)?;
        // The source may have heard of it by now, and have become a replica with its last slot.
        done(&settled, tools.set(source, &settled, SlotState::Node(to)).await?)?;
        self.tools.meter.settled(settled.len());
        Ok(())
    }

    /// Who else a slot is sent to, if nobody knew of it when the moves were decided on.
    fn taken(&self, marks: &Marks, slot: Slot, to: NodeId) -> Option<NodeId> {
        let other = marks.get(&slot).copied().filter(|other| *other != to)?;
        (self.planned_on.get(&slot) != Some(&other)).then_some(other)
    }

    /// Moves keys until the source shows none.
    async fn empty(&self, lane: &mut Mover, slots: &[Slot], to: (&Primary, u32)) -> Result<(), MoveError> {
        let mut full = slots.to_vec();
        loop {
            let lists = lane.keys(&full, NAMES).await?;
            let lists: Vec<(Slot, Vec<Vec<u8>>)> =
                full.into_iter().zip(lists).filter(|(_, names)| !names.is_empty()).collect();
            if lists.is_empty() {
                return Ok(());
            }
            let mut sizes = lane.sizes(lists.iter().flat_map(|(_, names)| names)).await?.into_iter();
            full = Vec::with_capacity(lists.len());
            for (slot, names) in lists {
                // One that has gone meanwhile is passed over by MIGRATE, and one that has expired is deleted by it.
                let keys = names.into_iter().zip(sizes.by_ref());
                let keys = keys.map(|(name, bytes)| Key { name, bytes: bytes.unwrap_or_default() }).collect();
                let window = *self.window.lock().await;
                for batch in batches(keys, window) {
                    self.migrate(lane, slot, &batch, to).await?;
                }
                full.push(slot);
            }
        }
    }

    async fn migrate(
        &self,
        lane: &mut Mover,
        slot: Slot,
        batch: &Batch,
        (to, database): (&Primary, u32),
    ) -> Result<(), MoveError> {
        let meter: &Meter = self.tools.meter;
        meter.admit(batch.keys.len()).await;
        // It is never closed.
        let permit = self.under_way.acquire().await;
        let turn = self.tools.turn(batch.is_big()).await;
        if self.failed.load(Ordering::Relaxed) {
            return Err(MoveError::Overtaken("what another connection began has failed".to_owned()));
        }
        self.tools.prove(to).await?;
        let asked = Instant::now();
        let patience = PATIENCE + blocks_for(batch.weight) * 10;
        let names = batch.keys.iter().map(|key| key.name.as_slice());
        lane.migrate((to.address, database), names, patience).await?;
        let took = asked.elapsed();
        drop((turn, permit));
        match batch.keys.first().filter(|key| key.bytes >= BIG) {
            Some(key) => meter.moved_big(key, slot, &self.primary.label.to_string(), took).await,
            None => {
                let mut window = self.window.lock().await;
                *window = window.after(batch.weight, took);
                meter.moved(batch.keys.len(), Some(took));
            }
        }
        Ok(())
    }
}

/// The slots that the source still sends there. The others are left to who has marked or settled them.
async fn ours(source: &mut Mover, slots: Vec<Slot>, to: NodeId) -> Result<Vec<Slot>, MoveError> {
    let marks = source.exports().await?;
    let (ours, others): (Vec<_>, Vec<_>) = slots.into_iter().partition(|slot| marks.get(slot) == Some(&to));
    if !others.is_empty() {
        tracing::debug!("{} slots are moved by somebody else", others.len());
    }
    Ok(ours)
}

/// The slots that a command was done for. Those that have moved on by themselves are left to the next look.
fn done(slots: &[Slot], outcomes: Vec<Result<(), MoveError>>) -> Result<Vec<Slot>, MoveError> {
    let mut done = Vec::with_capacity(slots.len());
    for (slot, outcome) in slots.iter().zip(outcomes) {
        match outcome {
            Ok(()) => done.push(*slot),
            Err(MoveError::Overtaken(why)) => tracing::debug!("slot {slot}: {why}"),
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
