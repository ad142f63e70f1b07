//! `--dry-run`: what would be moved, and which keys would block their primary.

use std::time::Duration;

use serde::Serialize;

use super::super::render;
use super::{Run, Tools};
use crate::cli::Output;
use crate::exit::{Exit, Failure};
use crate::observer::Observer;
use crate::topology::rebalance::{BIG, Ground, Move, Primary, blocks_for};
use crate::topology::slot::Slot;
use crate::valkey::{MoveError, Mover};

/// What a run would do now; the JSON of `--dry-run -o json`. Fields are only ever added.
#[derive(Debug, Serialize)]
pub(super) struct Foretold {
    /// Version of this schema.
    schema: u32,
    moves: Vec<MoveJson>,
    big_keys: Vec<BigJson>,
}

#[derive(Debug, Serialize)]
struct MoveJson {
    from: String,
    to: String,
    slots: usize,
    /// Ranges, both ends included.
    ranges: Vec<[u16; 2]>,
    keys: u64,
    /// `atomic` or `by key`.
    way: &'static str,
}

#[derive(Debug, Serialize)]
struct BigJson {
    key: String,
    slot: u16,
    primary: String,
    bytes: u64,
    /// For how long its primary would serve nobody; an estimate.
    blocks_ms: u64,
}

pub(super) async fn foretell(
    run: &mut Run<'_>,
    observer: &mut Observer,
    tools: &Tools<'_>,
) -> Result<Foretold, Failure> {
    let (ground, moves) = run.survey(observer).await?;
    let unreachable = |error: MoveError| Exit::Unavailable.saying(error);
    let mut foretold = Foretold { schema: 1, moves: Vec::new(), big_keys: Vec::new() };
    for one in &moves {
        let (Some(from), Some(to)) = (ground.get(one.from), ground.get(one.to)) else { continue };
        let slots: Vec<Slot> = one.slots.slots().collect();
        let mut mover = tools.mover(from).await.map_err(unreachable)?;
        let counts = mover.count(&slots).await.map_err(unreachable)?;
        let is_atomic = from.is_atomic() && to.is_atomic();
        foretold.moves.push(MoveJson::of(&ground, one, counts.iter().sum(), is_atomic));
        if is_atomic {
            continue;
        }
        for (slot, keys) in slots.into_iter().zip(counts) {
            foretold.big_keys.extend(big_keys(&mut mover, from, slot, keys).await.map_err(unreachable)?);
        }
    }
    foretold.big_keys.sort_by_key(|key| std::cmp::Reverse(key.bytes));
    Ok(foretold)
}

/// The server lists the names of a slot in one go; beyond this many it is not asked to.
const MOST_NAMES: u64 = 100_000;

async fn big_keys(mover: &mut Mover, from: &Primary, slot: Slot, keys: u64) -> Result<Vec<BigJson>, MoveError> {
    let most = usize::try_from(keys.min(MOST_NAMES)).unwrap_or(usize::MAX);
    if most == 0 {
        return Ok(Vec::new());
    }
    let names = mover.keys(&[slot], most).await?.concat();
    let sizes = mover.sizes(names.iter()).await?;
    let big = names.into_iter().zip(sizes).filter_map(|(name, bytes)| Some((name, bytes.filter(|b| *b >= BIG)?)));
    Ok(big
        .map(|(name, bytes)| BigJson {
            key: String::from_utf8_lossy(&name).into_owned(),
            slot: slot.number(),
            primary: from.label.to_string(),
            bytes,
            blocks_ms: milliseconds(blocks_for(bytes)),
        })
        .collect())
}

impl MoveJson {
    fn of(ground: &Ground, one: &Move, keys: u64, is_atomic: bool) -> Self {
        Self {
            from: ground.label(one.from),
            to: ground.label(one.to),
            slots: one.slots.len(),
            ranges: one
                .slots
                .ranges()
                .into_iter()
                .map(|range| [range.first().number(), range.last().number()])
                .collect(),
            keys,
            way: if is_atomic { "atomic" } else { "by key" },
        }
    }
}

impl Foretold {
    pub(super) fn print(&self, output: Output) -> Result<String, Failure> {
        if output == Output::Json {
            return render::json(self);
        }
        if self.moves.is_empty() {
            return Ok("nothing would be moved\n".to_owned());
        }
        let moves = self.moves.iter().map(|one| {
            [one.from.clone(), one.to.clone(), one.slots.to_string(), one.keys.to_string(), one.way.to_owned()]
        });
        let mut text = render::table(["FROM", "TO", "SLOTS", "KEYS", "WAY"], moves);
        if !self.big_keys.is_empty() {
            text.push_str("\nmoved alone, and blocking their primary for about\n");
            let keys = self.big_keys.iter().map(|key| {
                [key.key.clone(), key.primary.clone(), render::bytes(key.bytes), format!("{} ms", key.blocks_ms)]
            });
            text.push_str(&render::table(["KEY", "PRIMARY", "SIZE", "TIME"], keys));
        }
        Ok(text)
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
