//! Saving: everything that was acknowledged is to be on disk before the server stops.

use std::time::Duration;

use super::{Drain, Phase, SavePolicy, Step, Verdict, Waiting};
use crate::topology::order::Order;
use crate::topology::server::{Aof, ServerReport};

const OFTEN: Duration = Duration::from_millis(50);
/// A save that was scheduled and has not begun by then, with nothing in its way, was dropped.
const SCHEDULED: Duration = Duration::from_secs(6);
/// How long to wait after a failed save. The server itself waits five seconds for those that it schedules.
const SHORTEST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What is remembered of saving.
#[derive(Clone, Debug, Default)]
pub(super) struct Save {
    begun: Option<Duration>,
    ordered: Option<Ordered>,
    saves_seen: u64,
    failures: u32,
    retry_at: Duration,
    pub(super) is_paused: bool,
    /// We took the guard of writes away, and owe it.
    owes_guard: bool,
    pub(super) outcome: Option<SaveOutcome>,
    pub(super) took: Option<(Duration, Duration)>,
}

/// A save of ours.
#[derive(Clone, Copy, Debug)]
struct Ordered {
    at: Duration,
    /// `rdb_saves` as it was before.
    saves_before: u64,
    /// It was seen to run, or the server said that it began.
    began: bool,
}

/// What came of saving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SaveOutcome {
    /// An RDB was written.
    Saved,
    /// The newest RDB holds everything.
    NothingNew,
    /// The append-only file holds everything.
    Synced,
    /// It was not wanted.
    NotWanted,
    /// Time is up.
    Unfinished,
}

impl Save {
    /// The server took the order, or not.
    pub(super) fn ordered(&mut self, now: Duration, accepted: bool) {
        match accepted {
            true => self.ordered = Some(Ordered { at: now, saves_before: self.saves_seen, began: false }),
            false => self.retry_at = now + SHORTEST_RETRY,
        }
    }

    pub(super) fn paused(&mut self) {
        self.is_paused = true;
    }

    pub(super) fn guarded(&mut self, guard: bool) {
        self.owes_guard = !guard;
    }
}

impl Drain {
    pub(super) fn save(&mut self, now: Duration, own: &ServerReport) -> Option<Step> {
        if self.save.outcome.is_some() {
            return self.give_guard_back();
        }
        self.enter(Phase::Save, now);
        let begun = *self.save.begun.get_or_insert(now);
        // Nobody else will have what this node has when it stops: every second counts, and nothing may be added.
        let is_last = !own.is_replica() && (own.owns_slots() || !self.policy.cluster);
        let deadline = if is_last { self.policy.budget.last } else { self.policy.budget.save };
        let aof = own.persistence.aof.filter(|_| self.policy.save == SavePolicy::Auto);
        let outcome = match self.policy.save {
            SavePolicy::Never => SaveOutcome::NotWanted,
            _ if now >= deadline => self.out_of_time(own),
            _ if is_last && !self.save.is_paused && !self.was_refused(self.pause(now)) => {
                return Some(Step::Own(self.pause(now)));
            }
            _ => match self.progress(now, deadline, own, aof, is_last) {
                Ok(outcome) => outcome,
                Err(step) => return Some(step),
            },
        };
        self.save.outcome = Some(outcome);
        self.save.took = Some((begun, now));
        self.give_guard_back()
    }

    /// The outcome, or the step towards it.
    fn progress(
        &mut self,
        now: Duration,
        deadline: Duration,
        own: &ServerReport,
        aof: Option<Aof>,
        is_last: bool,
    ) -> Result<SaveOutcome, Step> {
        if let Some(aof) = aof {
            // As a replica the node keeps receiving; the server writes the rest when it stops.
            let is_written = aof.last_write_ok && !aof.rewriting && (aof.pending == 0 || !is_last);
            return match is_written {
                true => Ok(SaveOutcome::Synced),
                false if aof.last_write_ok => Err(Step::Wait(Waiting::Syncing, OFTEN)),
                false => Err(Step::Wait(Waiting::SyncFailed { left: deadline.saturating_sub(now) }, OFTEN)),
            };
        }
        let state = &own.persistence;
        self.save.saves_seen = state.saves;
        if let Some(saving) = state.saving {
            if let Some(ordered) = &mut self.save.ordered {
                ordered.began = true;
            }
            let taken = self.save.ordered.map_or(saving.elapsed, |ordered| now.saturating_sub(ordered.at));
            let (foreign, left) = (self.save.ordered.is_none(), deadline.saturating_sub(now));
            let waiting = Waiting::Saving { foreign, percent: saving.percent(), eta: saving.eta(taken), left };
            return Err(Step::Wait(waiting, OFTEN));
        }
        match self.save.ordered {
            Some(ordered) if state.saves > ordered.saves_before && state.last_save_ok => return Ok(SaveOutcome::Saved),
            Some(ordered) if ordered.began || state.saves > ordered.saves_before || !state.last_save_ok => {
                self.failed(now);
            }
            Some(ordered) if now < ordered.at + SCHEDULED => return Err(Step::Wait(Waiting::OtherChild, OFTEN)),
            Some(_) => self.save.ordered = None,
            None => {}
        }
        if state.changes == 0 && state.last_save_ok && state.saves > 0 {
            return Ok(SaveOutcome::NothingNew);
        }
        if now < self.save.retry_at {
            let left = deadline.saturating_sub(now);
            let waiting = match self.save.failures {
                0 => Waiting::OtherChild,
                _ => Waiting::SaveFailed { changes: state.changes, left },
            };
            return Err(Step::Wait(waiting, OFTEN.min(self.save.retry_at - now)));
        }
        Err(Step::Own(match (is_last && own.guards_writes && !self.save.owes_guard, state.other_child) {
            (true, _) if !self.was_refused(Order::GuardWrites(false)) => Order::GuardWrites(false),
            (_, true) => Order::SaveLater,
            (_, false) => Order::Save,
        }))
    }

    fn failed(&mut self, now: Duration) {
        self.save.ordered = None;
        self.save.retry_at = now + (SHORTEST_RETRY * 2_u32.saturating_pow(self.save.failures)).min(LONGEST_RETRY);
        self.save.failures += 1;
    }

    fn out_of_time(&mut self, own: &ServerReport) -> SaveOutcome {
        let state = &own.persistence;
        let how = match (&state.saving, self.save.failures) {
            (Some(saving), _) => format!("the save was at {} %", saving.percent()),
            (None, 0) => "the save could not begin".to_owned(),
            (None, 1) => "the save failed".to_owned(),
            (None, failures) => format!("the save failed {failures} times"),
        };
        self.verdict = Verdict::Unfinished(format!(
            "{how} when the time was up: {} writes are not on disk, where the last complete copy stays ({} keys are in memory)",
            state.changes, own.keys
        ));
        SaveOutcome::Unfinished
    }

    /// For as long as anything of us can still be alive, and a moment more.
    fn pause(&self, now: Duration) -> Order {
        const MORE: Duration = Duration::from_secs(2);
        Order::PauseWrites(self.policy.budget.grace.saturating_sub(now) + MORE)
    }

    fn give_guard_back(&mut self) -> Option<Step> {
        let owes = self.save.owes_guard && !self.was_refused(Order::GuardWrites(true));
        // After a failure the server would refuse writes at once.
        (owes && self.verdict == Verdict::Clean).then_some(Step::Own(Order::GuardWrites(true)))
    }
}
