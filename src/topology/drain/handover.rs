//! Handing over: who is the heir, when to ask it, and when it has come about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Drain, Peer, Phase, Step, Waiting};
use crate::topology::membership::Label;
use crate::topology::node::{NodeEntry, NodeId, Role};
use crate::topology::observation::Silence;
use crate::topology::order::Order;
use crate::topology::server::ServerReport;

/// How long one attempt may take: the server gives a manual failover up after five seconds
/// (`CLUSTER_MF_TIMEOUT` in `cluster_legacy.c`), and to ask again before then would begin it anew.
const ATTEMPT: Duration = Duration::from_secs(6);

/// What handing over gets at least, however late it begins: a replica in sync needs a fraction of it.
const LEAST: Duration = Duration::from_secs(2);

/// How long to wait before a replica is asked again that said no.
const REFUSED: Duration = Duration::from_secs(1);

/// How long a former primary waits for its link to the heir.
const FOLLOW: Duration = Duration::from_secs(3);

/// How far behind an heir may be when it is asked, in bytes of the replication stream. The primary holds writes back
/// until it has caught up; under load an answer is always a little behind.
const LITTLE: u64 = 1 << 20;

/// How long after its start a replica may lack links. A primary sends its vote over its own link to the candidate, makes
/// a lost link anew only now and then, and a vote that cannot be sent is lost: the attempt would fail after its five
/// seconds, with writes held back meanwhile.
const YOUNG: Duration = Duration::from_secs(60);

/// How often to look: closely while an attempt runs, as the next phase begins when it has ended.
const CLOSELY: Duration = Duration::from_millis(10);
const OFTEN: Duration = Duration::from_millis(50);

/// What is remembered of handing over.
#[derive(Clone, Debug, Default)]
pub(super) struct Handover {
    /// Since when slots have to be handed over, until the node follows its heir.
    begun: Option<Duration>,
    asked: Option<Attempt>,
    /// Who was asked in vain, and when it may be asked again.
    failed: BTreeMap<NodeId, Duration>,
    /// Who said that it is leaving; it may have ended since.
    leaving: BTreeSet<NodeId>,
    /// Who does not answer, and since when.
    silent: BTreeMap<NodeId, Duration>,
    /// A replica has just been started: primaries may have no link to it yet.
    is_young: bool,
    cancelled: bool,
    pub(super) attempts: u32,
    pub(super) heir: Option<(NodeId, Label)>,
    /// When it was asked, and when it had taken over.
    pub(super) took: Option<(Duration, Duration)>,
    pub(super) given_up: Option<String>,
}

#[derive(Clone, Debug)]
struct Attempt {
    label: Label,
    heir: NodeId,
    at: Duration,
    until: Duration,
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
    /// Whether the node has yet to follow an heir.
    pub(super) fn is_open(&self) -> bool {
        self.begun.is_some()
    }

    /// Whether a replica was asked and has not taken over yet.
    pub(super) fn is_under_way(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether a replica has just been started, so that it matters who has a link to it.
    pub(super) fn is_young(&self) -> bool {
        self.is_young
    }

    /// The heir would not be asked: another one is tried, or the same one later.
    pub(super) fn refused(&mut self, now: Duration) {
        self.failed(now + REFUSED);
    }

    pub(super) fn cancelled(&mut self) {
        self.cancelled = true;
    }

    fn failed(&mut self, again: Duration) {
        if let Some(attempt) = self.asked.take() {
            self.failed.insert(attempt.heir, again);
        }
    }
}

impl Drain {
    pub(super) fn hand_over(&mut self, now: Duration, own: &ServerReport, peers: &[Peer]) -> Option<Step> {
        if !self.policy.cluster || !own.owns_slots() || self.handover.given_up.is_some() {
            return None;
        }
        self.enter(Phase::Handover, now);
        let begun = *self.handover.begun.get_or_insert(now);
        let until = self.policy.budget.handover.max(begun + LEAST).min(self.policy.budget.save);
        // Whoever took over before has handed back.
        self.handover.heir = None;
        if let Some(attempt) = &self.handover.asked {
            if now < attempt.until {
                return Some(Step::Wait(Waiting::TakingOver(attempt.label.clone()), CLOSELY));
            }
            self.handover.failed(now);
        }
        if now >= until {
            return self.give_up("no replica has taken over in time");
        }
        if let Some(step) = self.migrations(now, own) {
            return Some(step);
        }
        self.choose(now, until, own, peers)
    }

    /// The node is a replica now, of whomever: waits until it follows, so that it saves what its heir has.
    pub(super) fn follow(&mut self, now: Duration, own: &ServerReport, peers: &[Peer]) -> Option<Step> {
        let (begun, heir) = (self.handover.begun?, own.primary()?);
        let Some(label) = Label::of(heir) else {
            return self.followed();
        };
        self.enter(Phase::Follow, now);
        if self.handover.heir.is_none() {
            let from = self.handover.asked.take().map_or(begun, |attempt| attempt.at);
            self.handover.heir = Some((heir.id, label.clone()));
            self.handover.took = Some((from, now));
            self.handover.given_up = None;
        }
        let took_over = self.handover.took.map_or(now, |(_, at)| at);
        let confirmed =
            peers.iter().any(|peer| peer.id == heir.id && peer.answer.as_ref().is_ok_and(ServerReport::owns_slots));
        let follows = own.replication.link.as_ref().is_some_and(|link| link.up);
        if (confirmed && follows) || now >= (took_over + FOLLOW).min(self.policy.budget.save) {
            return self.followed();
        }
        Some(Step::Wait(Waiting::Following(label), CLOSELY))
    }

    fn followed(&mut self) -> Option<Step> {
        self.handover.begun = None;
        None
    }

    fn choose(&mut self, now: Duration, until: Duration, own: &ServerReport, peers: &[Peer]) -> Option<Step> {
        let (mut ready, mut later) = (Vec::new(), None);
        for replica in own.replicas() {
            match self.prospect(now, own, replica, peers) {
                Prospect::Ready(behind) => {
                    let label = peers.iter().find(|peer| peer.id == replica.id).map(|peer| peer.label.clone());
                    let failed = self.handover.failed.contains_key(&replica.id);
                    ready.extend(label.map(|label| (failed, behind, replica.id, label)));
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
                // Two attempts fit where the grace period is long. Where it is short, time is left to save.
                let until =
                    (now + ATTEMPT).min(until.max(now + LEAST)).min(self.policy.budget.save.max(now + LEAST / 4));
                self.handover.asked = Some(Attempt { label, heir, at: now, until });
                Some(Step::Peer(heir, Order::TakeOver))
            }
            Some((_, behind, _, label)) => {
                Some(Step::Wait(Waiting::Heir(format!("{label} is {behind} bytes behind")), OFTEN))
            }
            None => match later {
                Some(why) => Some(Step::Wait(Waiting::Heir(why), OFTEN)),
                None => self.give_up("no replica stays, answers and follows us"),
            },
        }
    }

    fn prospect(&mut self, now: Duration, own: &ServerReport, replica: &NodeEntry, peers: &[Peer]) -> Prospect {
        let peer = peers.iter().find(|peer| peer.id == replica.id);
        let answer = match peer {
            Some(peer) => peer.answer.as_ref().map_err(|silence| format!("{} {silence}", peer.label)),
            None => Err(format!("{} has no address", replica.id.short())),
        };
        let (Ok(report), Some(peer)) = (&answer, peer) else {
            return self.silent_replica(now, replica, peer, answer.err().unwrap_or_default());
        };
        self.handover.silent.remove(&replica.id);
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
        if report.myself().map(|myself| myself.role) != Some(Role::Replica(own.id())) {
            return Prospect::Later(format!("{} follows another node", peer.label));
        }
        if self.handover.failed.get(&replica.id).is_some_and(|again| now < *again) {
            return Prospect::Later(format!("{} would not take over", peer.label));
        }
        if report.uptime < YOUNG && now < self.policy.budget.handover / 2 {
            self.handover.is_young = true;
            if !elects(own, replica.id, peers) {
                return Prospect::Later(format!(
                    "{} was just started, and too few primaries have a link to it",
                    peer.label
                ));
            }
        }
        match &report.replication.link {
            Some(link) if link.syncing => Prospect::Later(format!("{} receives its first copy", peer.label)),
            Some(link) if !link.up => Prospect::Later(format!("{} has no link to us", peer.label)),
            Some(_) => Prospect::Ready(own.replication.offset.saturating_sub(report.replication.offset)),
            None => Prospect::Later(format!("{} does not follow us", peer.label)),
        }
    }

    /// A replica that does not answer may be starting again; it is not waited for as long as for one that lags.
    fn silent_replica(&mut self, now: Duration, replica: &NodeEntry, peer: Option<&Peer>, why: String) -> Prospect {
        let is_dead = peer.is_some_and(|peer| peer.answer.as_ref().is_err_and(|silence| *silence == Silence::Refused));
        // Whoever was leaving when it was last heard of will not come back in time.
        let was_leaving = replica.flags.no_failover || self.handover.leaving.contains(&replica.id);
        let since = *self.handover.silent.entry(replica.id).or_insert(now);
        let for_long = now >= since + self.policy.budget.handover / 3;
        match (is_dead && was_leaving) || replica.flags.failed || for_long {
            true => Prospect::Never,
            false => Prospect::Later(why),
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
        // Only those that leave this node can be cancelled, and once is enough.
        (own.migrations > 0 && !self.handover.cancelled).then_some(Step::Own(Order::CancelMigrations))
    }

    fn give_up(&mut self, why: &str) -> Option<Step> {
        self.handover.given_up = Some(why.to_owned());
        None
    }
}

/// Whether a majority of the primaries has a link to the candidate.
pub(in crate::topology) fn elects(own: &ServerReport, candidate: NodeId, peers: &[Peer]) -> bool {
    let others = own.voters().filter(|voter| {
        let peer = peers.iter().find(|peer| peer.id == voter.id);
        peer.is_some_and(|peer| peer.answer.as_ref().is_ok_and(|report| report.is_linked_to(candidate)))
    });
    let votes = others.count() + usize::from(own.is_linked_to(candidate));
    votes * 2 > own.voters().count() + 1
}
