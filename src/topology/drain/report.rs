//! What there is to tell of a drain, for logs and for the next start.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::save::SaveOutcome;
use super::{Drain, Verdict};

/// A drain, told; all times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// `clean`, or `unfinished`: then something that was to be saved is not.
    pub outcome: String,
    /// Why it is unfinished.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// The grace period, and how much of it was used.
    pub grace_ms: u64,
    /// How much of the grace period was used.
    pub used_ms: u64,
    /// The parts, in the order in which they came.
    pub phases: Vec<PhaseReport>,
    /// Whether and how the shard was handed over.
    pub handover: HandoverReport,
    /// What was saved.
    pub save: SaveReport,
}

impl DrainReport {
    /// The outcome of one after which nothing is left to be done.
    pub const CLEAN: &str = "clean";
}

/// One part of a drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Its name.
    pub phase: String,
    /// When it began.
    pub from_ms: u64,
    /// How long it took.
    pub took_ms: u64,
}

/// How the shard was handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverReport {
    /// Who took over; none where there was nothing to hand over, or nobody to hand over to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub heir: Option<String>,
    /// From asking the heir until the node was its replica.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub took_ms: Option<u64>,
    /// How often a replica was asked.
    pub attempts: u32,
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub given_up: Option<String>,
}

/// What was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveReport {
    /// `saved`, `nothing new`, `append-only file`, `not wanted`, `unfinished`, or `none` where it did not come to it.
    pub outcome: String,
    /// How many keys the node held.
    pub keys: u64,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub took_ms: Option<u64>,
    /// Whether writes were held back meanwhile.
    pub writes_paused: bool,
}

pub(super) fn of(drain: &Drain, now: Duration) -> DrainReport {
    let end = drain.ended.unwrap_or(now);
    let ends = drain.phases.iter().skip(1).map(|(_, from)| *from).chain([end]);
    let phases = drain.phases.iter().zip(ends).map(|((phase, from), to)| PhaseReport {
        phase: phase.to_string(),
        from_ms: ms(*from),
        took_ms: ms(to.saturating_sub(*from)),
    });
    let took = |took: Option<(Duration, Duration)>| took.map(|(from, to)| ms(to.saturating_sub(from)));
    DrainReport {
        outcome: if drain.verdict == Verdict::Clean { DrainReport::CLEAN } else { "unfinished" }.to_owned(),
        why: match &drain.verdict {
            Verdict::Clean => None,
            Verdict::Unfinished(why) => Some(why.clone()),
        },
        grace_ms: ms(drain.policy.budget.grace),
        used_ms: ms(end),
        phases: phases.collect(),
        handover: HandoverReport {
            heir: drain.handover.heir.as_ref().map(|(_, label)| label.to_string()),
            took_ms: took(drain.handover.took),
            attempts: drain.handover.attempts,
            given_up: drain.handover.given_up.clone(),
        },
        save: SaveReport {
            outcome: match drain.save.outcome {
                Some(SaveOutcome::Saved) => "saved",
                Some(SaveOutcome::NothingNew) => "nothing new",
                Some(SaveOutcome::Synced) => "append-only file",
                Some(SaveOutcome::NotWanted) => "not wanted",
                Some(SaveOutcome::Unfinished) => "unfinished",
                None => "none",
            }
            .to_owned(),
            keys: drain.keys,
            took_ms: took(drain.save.took),
            writes_paused: drain.save.is_paused,
        },
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
