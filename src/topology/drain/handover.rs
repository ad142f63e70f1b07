//! Handing over: who is the heir, when to ask it, and when it has come about.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Drain, Peer, Phase, Step, Waiting};
use crate::topology::membership::Label;
use crate::topology::node::{NodeEntry, NodeId};
use crate::topology::observation::Silence;
use crate::topology::order::Order;
use crate::topology::server::ServerReport;

/// How long one attempt may take: the server gives a manual failover up after five seconds
/// (`CLUSTER_MF_TIMEOUT` in `cluster_legacy.c`), and to ask again before then would begin it anew.
const ATTEMPT: Duration = Duration::from_secs(6);

/// How far behind an heir may be when it is asked, in bytes of the replication stream. The primary holds writes back
/// until it has caught up; under load an answer is always a little behind.
const LITTLE: u64 = 1 << 20;

/// How often to look: closely while an attempt runs, as the next phase begins when it has ended.
const CLOSELY: Duration = Duration::from_millis(10);
const OFTEN: Duration = Duration::from_millis(50);

/// What is remembered of handing over.
#[derive(Clone, Debug, Default)]
pub(super) struct Handover {
    asked: Option<Attempt>,
    /// Who was asked in vain.
    failed: BTreeSet<NodeId>,
    /// Who said that it is leaving; it may have ended since.
    leaving: BTreeSet<NodeId>,
    pub(super) attempts: u32,
    pub(super) heir: Option<(NodeId, Label)>,
    /// When it was asked, and when it had taken over.
    pub(super) took: Option<(Duration, Duration)>,
    pub(super) given_up: Option<String>,
    followed: bool,
}

#[derive(Clone, Debug)]
struct Attempt {
    heir: NodeId,
    label: Label,
    at: Duration,
}

/// What can be said of a replica.
enum Prospect {
    /// It can take over; so far behind.
    Ready(u64),
    /// It cannot yet.
    Later(String),
    /// It never will.
    Never,
}

impl Handover {
    /// Who has taken over.
    pub(super) fn heir(&self) -> Option<NodeId> {
        self.heir.as_ref().map(|(heir, _)| *heir)
    }

    /// Whether a replica was asked and has not taken over yet.
    pub(super) fn is_under_way(&self) -> bool {
        self.asked.is_some()
    }

    /// The heir would not be asked: another one is tried, or the same one later.
    pub(super) fn refused(&mut self) {
        if let Some(attempt) = self.asked.take() {
            self.failed.insert(attempt.heir);
        }
    }
}

impl Drain {
    pub(super) fn hand_over(&mut self, now: Duration, own: &ServerReport, peers: &[Peer]) -> Option<Step> {
        if !self.policy.cluster || !own.owns_slots() || self.handover.given_up.is_some() {
            return None;
        }
        self.enter(Phase::Handover, now);
        // Whatever was done as a replica has to be done again.
        self.handover.heir = None;
        self.handover.followed = false;
        if let Some(attempt) = &self.handover.asked {
            if now < attempt.at + ATTEMPT {
                return Some(Step::Wait(Waiting::TakingOver(attempt.label.clone()), CLOSELY));
            }
            self.handover.refused();
        }
        if now >= self.policy.budget.handover {
            return self.give_up("no replica has taken over in time");
        }
        if let Some(step) = self.migrations(now, own) {
            return Some(step);
        }
        self.choose(now, own, peers)
    }

    /// The node is a replica now: waits until it follows, so that it saves what its heir has.
    pub(super) fn follow(&mut self, now: Duration, own: &ServerReport, peers: &[Peer]) -> Option<Step> {
        if let Some(attempt) = self.handover.asked.take() {
            self.handover.heir = Some((attempt.heir, attempt.label));
            self.handover.took = Some((attempt.at, now));
        }
        let (heir, label) = self.handover.heir.clone().filter(|_| !self.handover.followed)?;
        self.enter(Phase::Follow, now);
        let confirmed =
            peers.iter().any(|peer| peer.id == heir && peer.answer.as_ref().is_ok_and(ServerReport::owns_slots));
        let follows = own.replication.link.as_ref().is_some_and(|link| link.up);
        if (confirmed && follows) || now >= self.policy.budget.handover + ATTEMPT / 2 {
            self.handover.followed = true;
            return None;
        }
        Some(Step::Wait(Waiting::Following(label), CLOSELY))
    }

    fn choose(&mut self, now: Duration, own: &ServerReport, peers: &[Peer]) -> Option<Step> {
        let (mut ready, mut later) = (Vec::new(), None);
        for replica in own.replicas() {
            let peer = peers.iter().find(|peer| peer.id == replica.id);
            match self.prospect(own, replica, peer) {
                Prospect::Ready(behind) => {
                    let label = peer.map(|peer| peer.label.clone());
                    ready.extend(
                        label.map(|label| (self.handover.failed.contains(&replica.id), behind, replica.id, label)),
                    );
                }
                Prospect::Later(why) => later = later.or(Some(why)),
                Prospect::Never => {}
            }
        }
        ready.sort();
        // Near the end of the time a replica that is far behind is better than none.
        let in_a_hurry = now >= self.policy.budget.handover / 2;
        match ready.into_iter().next() {
            Some((_, behind, heir, label)) if behind <= LITTLE || in_a_hurry => {
                self.handover.attempts += 1;
                self.handover.asked = Some(Attempt { heir, label, at: now });
                Some(Step::Peer(heir, Order::TakeOver))
            }
            Some((_, behind, _, label)) => {
                Some(Step::Wait(Waiting::Heir(format!("{label} is {behind} bytes behind")), OFTEN))
            }
            None => match later {
                Some(why) => Some(Step::Wait(Waiting::Heir(why), OFTEN)),
                None => self.give_up("it has no replica that stays"),
            },
        }
    }

    fn prospect(&mut self, own: &ServerReport, replica: &NodeEntry, peer: Option<&Peer>) -> Prospect {
        let Some(peer) = peer else {
            return Prospect::Later(format!("{} has no address", replica.id.short()));
        };
        let report = match &peer.answer {
            Ok(report) => report,
            // Whoever was leaving when it was last heard of will not come back in time.
            Err(Silence::Refused) if replica.flags.no_failover || self.handover.leaving.contains(&replica.id) => {
                return Prospect::Never;
            }
            Err(_) if replica.flags.failed => return Prospect::Never,
            Err(silence) => return Prospect::Later(format!("{} {silence}", peer.label)),
        };
        if report.leaving {
            self.handover.leaving.insert(replica.id);
            return Prospect::Never;
        }
        self.handover.leaving.remove(&replica.id);
        if report.loading.is_some() {
            return Prospect::Later(format!("{} is loading its data", peer.label));
        }
        if report.id() != Some(replica.id) {
            return Prospect::Later(format!("another node answers at {}", peer.label.address));
        }
        match &report.replication.link {
            Some(link) if link.syncing => Prospect::Later(format!("{} receives its first copy", peer.label)),
            Some(link) if !link.up => Prospect::Later(format!("{} has no link to us", peer.label)),
            Some(_) => Prospect::Ready(own.replication.offset.saturating_sub(report.replication.offset)),
            None => Prospect::Later(format!("{} does not follow us", peer.label)),
        }
    }

    /// A slot migration is let end, for a third of the time, and is cancelled then. One that a client drives key by key
    /// cannot be cancelled; its state goes over to the heir.
    fn migrations(&mut self, now: Duration, own: &ServerReport) -> Option<Step> {
        let is_moving = own.migrations > 0 || own.myself().is_some_and(|myself| !myself.moving.is_empty());
        if !is_moving {
            return None;
        }
        if now < self.policy.budget.handover / 3 {
            return Some(Step::Wait(Waiting::Migration, OFTEN));
        }
        (own.migrations > 0 && !self.was_refused(Order::CancelMigrations)).then_some(Step::Own(Order::CancelMigrations))
    }

    fn give_up(&mut self, why: &str) -> Option<Step> {
        self.handover.given_up = Some(why.to_owned());
        None
    }
}
