//! How a node leaves: it hands its shard over, saves, settles and stops.
//!
//! A state machine over what is seen: it is asked for the next step, the step is done, and everything is looked at
//! again. What has come about is read off the servers, so that a second drain finds nothing to do, and a node that is
//! made primary on its way out hands over once more. Only what servers do not tell is remembered here: whom we asked
//! and when, and which save is ours.
//!
//! The order matters. Saving comes after handing over, because a failed save makes a primary refuse writes and a fork
//! slows it down; stopping comes after saving, because a signal kills a save that runs.

mod handover;
mod report;
mod save;

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
pub use report::{DrainReport, HandoverReport, PhaseReport, SaveReport};
use save::Save;

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

/// What a drain waits for: one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The server does not answer.
    Server(Silence),
    /// Slots are on their way to another node.
    Migration,
    /// No replica can take over yet.
    Heir(String),
    /// A replica was asked.
    TakingOver(Label),
    /// The node is to follow its heir.
    Following(Label),
    /// A child that is in the way of our save.
    OtherChild,
    /// A save runs.
    Saving {
        /// Whether it was begun for somebody else, and another one has to follow.
        foreign: bool,
        /// How far it is.
        percent: u64,
        /// How long it will still take.
        eta: Option<Duration>,
        /// How much time is left for it.
        left: Duration,
    },
    /// A save failed, and is tried again.
    SaveFailed {
        /// How many writes are not on disk.
        changes: u64,
        /// How much time is left.
        left: Duration,
    },
    /// The append-only file is being written.
    Syncing,
    /// The append-only file cannot be written.
    SyncFailed {
        /// How much time is left.
        left: Duration,
    },
    /// Clients are to notice.
    Settling,
    /// The server does not stop yet.
    Stopping(String),
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
    verdict: Verdict,
    ended: Option<Duration>,
    keys: u64,
}

impl Drain {
    const ANSWER: Duration = Duration::from_millis(100);
    const STOP: Duration = Duration::from_millis(200);

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
        match own.owns_slots() {
            true if self.handover.is_under_way() => Vec::new(),
            true => own.replicas().collect(),
            false => self.handover.heir().and_then(|heir| own.cluster.as_ref()?.view.get(heir)).into_iter().collect(),
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
            (Order::TakeOver, Err(_)) => self.handover.refused(),
            (Order::PauseWrites(_), Ok(())) => self.save.paused(),
            (Order::GuardWrites(guard), Ok(())) => self.save.guarded(guard),
            (Order::Shutdown { .. }, Ok(())) => self.stop_sent = true,
            _ => {}
        }
        if let Err(why) = answer {
            self.refused.retain(|(other, _)| *other != order);
            self.refused.push((order, why));
        }
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
        self.enter(Phase::Mark, now);
        Some(Step::Own(Order::MarkLeaving))
    }

    fn settle(&mut self, now: Duration) -> Option<Step> {
        self.enter(Phase::Settle, now);
        let from = *self.settled_from.get_or_insert(now);
        let until = (from + self.policy.budget.delay).min(self.policy.budget.last);
        (now < until).then(|| Step::Wait(Waiting::Settling, (until - now).min(Self::ANSWER)))
    }

    fn stop(&mut self, now: Duration) -> Step {
        if !self.policy.stop || self.stop_sent {
            return self.end(now);
        }
        self.enter(Phase::Stop, now);
        let force = now >= self.policy.budget.last || self.verdict != Verdict::Clean;
        let order = Order::Shutdown { force };
        match self.refused.iter().position(|(refused, _)| *refused == order) {
            Some(_) if force => self.end(now),
            Some(place) => {
                let (_, why) = self.refused.swap_remove(place);
                Step::Wait(Waiting::Stopping(why), Self::STOP)
            }
            None => Step::Own(order),
        }
    }

    /// A server that does not answer may be busy, and is waited for until the last second; one that is gone needs
    /// nothing any more.
    fn silent(&mut self, now: Duration, silence: &Silence) -> Step {
        let is_final = matches!(silence, Silence::Refused | Silence::Denied(_) | Silence::Unusable(_));
        if self.stop_sent {
            return self.end(now);
        }
        if is_final || now >= self.policy.budget.last {
            if self.save.outcome.is_none() {
                self.verdict = Verdict::Unfinished(format!("the server {silence}"));
            }
            return self.end(now);
        }
        Step::Wait(Waiting::Server(silence.clone()), Self::ANSWER)
    }

    fn end(&mut self, now: Duration) -> Step {
        self.ended = Some(now);
        Step::Done
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

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(silence) => write!(f, "waiting for the server, which {silence}"),
            Self::Migration => f.write_str("waiting for slots that are on their way to another node"),
            Self::Heir(why) => write!(f, "waiting for a replica that can take over: {why}"),
            Self::TakingOver(heir) => write!(f, "{heir} takes over"),
            Self::Following(heir) => write!(f, "waiting to follow {heir}"),
            Self::OtherChild => f.write_str("waiting until another child of the server lets it save"),
            Self::Saving { foreign, percent, eta, left } => {
                let whose = if *foreign { "waiting for a save that ran already" } else { "saving" };
                write!(f, "{whose}: {percent} %")?;
                match eta {
                    Some(eta) if eta > left => write!(
                        f,
                        ", {:.0} s to go, but only {:.0} s of the grace period are left: the save will not be complete; give more \
                         with terminationGracePeriodSeconds and --grace-period",
                        eta.as_secs_f64().ceil(),
                        left.as_secs_f64()
                    ),
                    Some(eta) => write!(f, ", {:.0} s to go", eta.as_secs_f64().ceil()),
                    None => Ok(()),
                }
            }
            Self::SaveFailed { changes, left } => write!(
                f,
                "the save failed, see the server's log: is the disk full, or memory short? {changes} writes are not on disk; \
                 trying again for {:.0} s",
                left.as_secs_f64()
            ),
            Self::Syncing => f.write_str("waiting until the append-only file is on disk"),
            Self::SyncFailed { left } => write!(
                f,
                "the append-only file cannot be written, see the server's log: is the disk full? Trying again for {:.0} s",
                left.as_secs_f64()
            ),
            Self::Settling => f.write_str("waiting for clients to notice"),
            Self::Stopping(why) => write!(f, "the server does not stop yet: {why}"),
        }
    }
}

impl Waiting {
    /// Whether somebody should look now rather than later.
    pub fn is_alarming(&self) -> bool {
        match self {
            Self::SaveFailed { .. } | Self::SyncFailed { .. } => true,
            Self::Saving { eta: Some(eta), left, .. } => eta > left,
            _ => false,
        }
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
