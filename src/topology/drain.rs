//! How a node leaves: it hands its shard over, saves, settles and stops.
//!
//! A state machine over what is seen: it is asked for the next step, the step is done, and everything is looked at
//! again. What has come about is read off the servers, so that a second drain finds nothing to do, and a node that is
//! made primary on its way out hands over once more. Only what servers do not tell is remembered here: whom we asked
//! and when, and which save is ours.
//!
//! The order matters. Saving comes after handing over, because a failed save makes a primary refuse writes and a fork
//! slows it down; stopping comes after saving, because a signal kills a save that runs.

mod end;
mod handover;
mod report;
mod save;
mod waiting;

use std::fmt;
use std::mem::discriminant;
use std::time::Duration;

use super::budget::Budget;
use super::membership::Label;
use super::node::{NodeEntry, NodeId};
use super::observation::Silence;
use super::order::Order;
use super::server::ServerReport;

use handover::Handover;
pub(super) use handover::elects;
pub use report::{DrainReport, HandoverReport, PhaseReport, SaveReport};
use save::Save;
pub use waiting::Waiting;

/// What is wanted of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPolicy {
    /// Whether there is a cluster to hand over in.
    pub cluster: bool,
    /// What is to be on disk in the end.
    pub save: SavePolicy,
    /// How the time is split.
    pub budget: Budget,
    /// Whether to stop the server in the end; otherwise somebody else does.
    pub stop: bool,
}

/// What is to be on disk before the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavePolicy {
    /// Everything: in the append-only file where there is one, else in an RDB.
    Auto,
    /// An RDB, whether there is an append-only file or not.
    Always,
    /// What is there.
    Never,
}

/// What one look brought.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The server itself.
    pub own: Result<ServerReport, Silence>,
    /// Those that [`Drain::asks`] named.
    pub peers: Vec<Peer>,
}

/// Another node that was asked.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it should be.
    pub id: NodeId,
    /// Where it was asked.
    pub label: Label,
    /// What answered.
    pub answer: Result<ServerReport, Silence>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this to the server itself, and look again.
    Own(Order),
    /// Send this to that node, and look again.
    Peer(NodeId, Order),
    /// Look again after so long.
    Wait(Waiting, Duration),
    /// Nothing is left to be done.
    Done,
}

/// How a drain ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Whatever was to be saved is saved.
    Clean,
    /// It is not, and this is why.
    Unfinished(String),
}

/// The parts of a drain, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Marking the node as leaving.
    Mark,
    /// Handing the shard over.
    Handover,
    /// Waiting until the node follows its heir.
    Follow,
    /// Saving.
    Save,
    /// Waiting until clients have noticed.
    Settle,
    /// Stopping the server.
    Stop,
}

/// One drain.
#[derive(Clone, Debug)]
pub struct Drain {
    policy: DrainPolicy,
    phases: Vec<(Phase, Duration)>,
    /// What the server would not do, each order once.
    refused: Vec<(Order, String)>,
    handover: Handover,
    save: Save,
    /// When there was nothing left but to settle.
    settled_from: Option<Duration>,
    stop_sent: bool,
    marked: Option<Duration>,
    verdict: Verdict,
    ended: Option<Duration>,
    keys: u64,
}

impl Drain {
    const MARK: Duration = Duration::from_secs(1);

    /// A drain that begins now: all times count from here.
    pub fn new(policy: DrainPolicy) -> Self {
        Self {
            policy,
            phases: Vec::new(),
            refused: Vec::new(),
            handover: Handover::default(),
            save: Save::default(),
            settled_from: None,
            stop_sent: false,
            marked: None,
            verdict: Verdict::Clean,
            ended: None,
            keys: 0,
        }
    }

    /// Who else has to be asked, given what the server itself said: those that may take over, or whoever did.
    pub fn asks<'r>(&self, own: &'r ServerReport) -> Vec<&'r NodeEntry> {
        if !self.policy.cluster {
            return Vec::new();
        }
        match (own.owns_slots(), own.primary()) {
            (true, _) if self.handover.is_under_way() => Vec::new(),
            (true, _) if self.handover.is_young() => own.replicas().chain(own.voters()).collect(),
            (true, _) => own.replicas().collect(),
            (false, Some(heir)) if self.handover.is_open() => vec![heir],
            (false, _) => Vec::new(),
        }
    }

    /// What comes next, `now` after the beginning.
    pub fn next(&mut self, now: Duration, seen: &Seen) -> Step {
        if self.ended.is_some() {
            return Step::Done;
        }
        let own = match &seen.own {
            Ok(own) => own,
            Err(silence) => return self.silent(now, silence),
        };
        self.keys = own.keys;
        if own.loading.is_some() {
            // What is being loaded is on disk, or with the primary.
            return self.stop(now);
        }
        self.mark(now, own)
            .or_else(|| self.resume(own))
            .or_else(|| self.hand_over(now, own, &seen.peers))
            .or_else(|| self.follow(now, own, &seen.peers))
            .or_else(|| self.save(now, own))
            .or_else(|| self.settle(now))
            .unwrap_or_else(|| self.stop(now))
    }

    /// Takes note of what came of a step.
    pub fn answered(&mut self, now: Duration, order: Order, answer: Result<(), String>) {
        match (order, &answer) {
            (Order::Save | Order::SaveLater, _) => self.save.ordered(now, answer.is_ok()),
            (Order::TakeOver, Err(_)) => self.handover.refused(now),
            (Order::PauseWrites(_), Ok(())) => self.save.paused(true),
            (Order::ResumeWrites, Ok(())) => self.save.paused(false),
            (Order::CancelMigrations, _) => self.handover.cancelled(),
            (Order::GuardWrites(guard), Ok(())) => self.save.guarded(guard),
            (Order::Shutdown { .. }, Ok(())) => self.stop_sent = true,
            _ => {}
        }
        if let Err(why) = answer {
            self.refused.retain(|(other, _)| *other != order);
            self.refused.push((order, why));
        }
    }

    /// Takes note that the server will never let us do this.
    pub fn forbidden(&mut self, now: Duration, order: Order, why: String) {
        if matches!(order, Order::Save | Order::SaveLater) {
            self.save.forbidden(&why);
        }
        self.answered(now, order, Err(why));
    }

    /// How it ended, or stands.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Whether the server has taken the order to shut down.
    pub fn has_told_server_to_stop(&self) -> bool {
        self.stop_sent
    }

    /// What there is to tell of it.
    pub fn report(&self, now: Duration) -> DrainReport {
        report::of(self, now)
    }

    fn mark(&mut self, now: Duration, own: &ServerReport) -> Option<Step> {
        if !self.policy.cluster || own.leaving || self.was_refused(Order::MarkLeaving) {
            return None;
        }
        // A server that was started again has lost its mark; one that does not show it is not asked without end.
        if self.marked.is_some_and(|at| now < at + Self::MARK) {
            return None;
        }
        self.enter(Phase::Mark, now);
        self.marked = Some(now);
        Some(Step::Own(Order::MarkLeaving))
    }

    fn enter(&mut self, phase: Phase, now: Duration) {
        if self.phases.last().is_none_or(|(last, _)| *last != phase) {
            self.phases.push((phase, now));
        }
    }

    fn was_refused(&self, order: Order) -> bool {
        self.refused.iter().any(|(refused, _)| discriminant(refused) == discriminant(&order))
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mark => "mark",
            Self::Handover => "handover",
            Self::Follow => "follow",
            Self::Save => "save",
            Self::Settle => "settle",
            Self::Stop => "stop",
        })
    }
}
