//! Saving: everything that was acknowledged is to be on disk before the server stops.

use std::time::Duration;

use super::{Drain, Phase, SavePolicy, Step, Verdict, Waiting};
use crate::topology::order::Order;
use crate::topology::server::{Aof, Persistence, ServerReport};

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
    /// What the last look brought.
    seen: Persistence,
    failures: u32,
    retry_at: Duration,
    pub(super) is_paused: bool,
    /// The server will never let us save, and this is why.
    forbidden: Option<String>,
    /// We took the guard of writes away, and owe it.
    owes_guard: bool,
    pub(super) outcome: Option<SaveOutcome>,
    /// Whether that was done as the last copy, with writes held back.
    as_last: bool,
    pub(super) took: Option<(Duration, Duration)>,
}

/// A save of ours.
#[derive(Clone, Debug)]
struct Ordered {
    at: Duration,
    /// What there was before.
    before: Persistence,
    /// When it was first seen to run.
    began: Option<Duration>,
    /// Whether writes were held back when it was ordered, and ever since.
    held_back: bool,
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
            true => {
                let (before, held_back) = (self.seen.clone(), self.is_paused);
                self.ordered = Some(Ordered { at: now, before, began: None, held_back });
            }
            false => self.retry_at = now + SHORTEST_RETRY,
        }
    }

    pub(super) fn forbidden(&mut self, why: &str) {
        self.forbidden = Some(why.to_owned());
    }

    pub(super) fn paused(&mut self, paused: bool) {
        self.is_paused = paused;
        if let Some(ordered) = &mut self.ordered {
            ordered.held_back &= paused;
        }
    }

    pub(super) fn guarded(&mut self, guard: bool) {
        self.owes_guard = !guard;
    }

    fn failed(&mut self, now: Duration) {
        self.ordered = None;
        self.retry_at = now + (SHORTEST_RETRY * 2_u32.saturating_pow(self.failures)).min(LONGEST_RETRY);
        self.failures += 1;
    }
}

impl Ordered {
    fn has_begun(&self, now: &Persistence) -> bool {
        now.saves > self.before.saves
    }

    /// Whether it is on disk. The count and the status alone do not tell: a save that is cut off changes the one and
    /// leaves the other. A doubt within the second is settled by another save.
    fn is_written(&self, now: &Persistence) -> bool {
        let ended = now.last_save > self.before.last_save || now.changes < self.before.changes;
        self.has_begun(now) && now.last_save_ok && ended
    }
}

impl Drain {
    pub(super) fn save(&mut self, now: Duration, own: &ServerReport) -> Option<Step> {
        // Nobody else will have what this node has when it stops: every second counts, and nothing may be added.
        let is_last = !own.is_replica() && (own.owns_slots() || !self.policy.cluster);
        let has_changed_hands = is_last && !self.save.as_last;
        self.save.as_last &= is_last;
        match self.save.outcome {
            // It was made primary since, and nobody has what it took then.
            Some(outcome) if has_changed_hands && outcome != SaveOutcome::NotWanted => {
                self.save = Save { begun: self.save.begun, owes_guard: self.save.owes_guard, ..Save::default() };
                self.verdict = Verdict::Clean;
            }
            Some(_) => return self.give_guard_back(),
            None => {}
        }
        self.enter(Phase::Save, now);
        let begun = *self.save.begun.get_or_insert(now);
        let deadline = if is_last { self.policy.budget.last } else { self.policy.budget.save };
        let aof = own.persistence.aof.filter(|_| self.policy.save == SavePolicy::Auto);
        let outcome = match (self.policy.save, &self.save.forbidden) {
            (SavePolicy::Never, _) => SaveOutcome::NotWanted,
            (_, Some(why)) => {
                let changes = own.persistence.changes;
                self.verdict = Verdict::Unfinished(format!(
                    "we may not save ({why}): {changes} writes since the last complete save are not on disk"
                ));
                SaveOutcome::Unfinished
            }
            _ if now >= deadline => self.out_of_time(own, aof),
            _ if is_last && !self.save.is_paused && !self.was_refused(self.pause(now)) => {
                return Some(Step::Own(self.pause(now)));
            }
            _ => match self.progress(now, deadline, own, aof, is_last) {
                Ok(outcome) => outcome,
                Err(step) => return Some(step),
            },
        };
        self.save.outcome = Some(outcome);
        self.save.as_last = is_last;
        self.save.took = Some((begun, now));
        self.give_guard_back()
    }

    /// Writes are no longer held back once another node takes them: clients are to be sent there.
    pub(super) fn resume(&self, own: &ServerReport) -> Option<Step> {
        let is_due = self.save.is_paused && own.is_replica() && !self.was_refused(Order::ResumeWrites);
        is_due.then_some(Step::Own(Order::ResumeWrites))
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
            let is_written = aof.last_write_ok && !aof.incomplete && (aof.pending == 0 || !is_last);
            return match is_written {
                true => Ok(SaveOutcome::Synced),
                false if aof.last_write_ok => Err(Step::Wait(Waiting::Syncing, OFTEN)),
                false => Err(Step::Wait(Waiting::SyncFailed { left: deadline.saturating_sub(now) }, OFTEN)),
            };
        }
        let state = &own.persistence;
        let left = deadline.saturating_sub(now);
        self.save.seen = state.clone();
        if let Some(saving) = state.saving {
            let ours = self.save.ordered.as_mut().filter(|ordered| ordered.has_begun(state));
            let foreign = ours.is_none();
            let began = ours.map(|ordered| *ordered.began.get_or_insert(now));
            let taken = began.map_or(saving.elapsed, |began| now.saturating_sub(began));
            let waiting = Waiting::Saving { foreign, percent: saving.percent(), eta: saving.eta(taken), left };
            return Err(Step::Wait(waiting, OFTEN));
        }
        match &self.save.ordered {
            // Begun as a replica that was made primary since: it does not hold what that took.
            Some(ordered) if self.save.is_paused && !ordered.held_back && state.changes > 0 => self.save.ordered = None,
            Some(ordered) if ordered.is_written(state) => return Ok(SaveOutcome::Saved),
            Some(ordered) if ordered.has_begun(state) => self.save.failed(now),
            Some(ordered) if now < ordered.at + SCHEDULED => return Err(Step::Wait(Waiting::OtherChild, OFTEN)),
            Some(_) => self.save.ordered = None,
            None => {}
        }
        if state.changes == 0 && state.last_save_ok && state.saves > 0 && self.save.failures == 0 {
            return Ok(SaveOutcome::NothingNew);
        }
        if now < self.save.retry_at {
            let waiting = match state.last_save_ok && self.save.failures == 0 {
                true => Waiting::OtherChild,
                false => Waiting::SaveFailed { changes: state.changes, left },
            };
            return Err(Step::Wait(waiting, OFTEN.min(self.save.retry_at - now)));
        }
        Err(Step::Own(match (is_last && own.guards_writes && !self.save.owes_guard, state.other_child) {
            (true, _) if !self.was_refused(Order::GuardWrites(false)) => Order::GuardWrites(false),
            (_, true) => Order::SaveLater,
            (_, false) => Order::Save,
        }))
    }

    fn out_of_time(&mut self, own: &ServerReport, aof: Option<Aof>) -> SaveOutcome {
        let state = &own.persistence;
        let refused = self.refused.iter().find(|(order, _)| matches!(order, Order::Save | Order::SaveLater));
        let how = match (&state.saving, self.save.failures, refused) {
            (Some(saving), ..) => format!("the save was at {} %", saving.percent()),
            (None, 0, Some((_, why))) => format!("the save could not begin ({why})"),
            (None, 0, None) => "the save had not begun".to_owned(),
            (None, 1, _) => "the save failed".to_owned(),
            (None, failures, _) => format!("the save failed {failures} times"),
        };
        self.verdict = Verdict::Unfinished(match aof {
            Some(aof) if aof.last_write_ok => "the append-only file was not complete when the time was up".to_owned(),
            Some(_) => "the append-only file could not be written before the time was up".to_owned(),
            None => format!(
                "{how} when the time was up: {} writes since the last complete save, whose file stays, are not on disk \
                 ({} keys are in memory)",
                state.changes, own.keys
            ),
        });
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
