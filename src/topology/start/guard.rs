//! Whether somebody else holds better data than this node's disk, and is asked to take over before it starts.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::DataFile;
use crate::topology::electorate::{self, Electorate, attempt};
use crate::topology::node::{Endpoint, NodeEntry, NodeId, Role};
use crate::topology::observation::{NodeReport, Silence};
use crate::topology::slot::SlotSet;

/// What this node was when it last wrote its nodes.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its id.
    pub id: NodeId,
    /// The slots it owned; none where it was a replica.
    pub slots: SlotSet,
    /// The epoch of these slots.
    pub config_epoch: u64,
    /// Who copied it.
    pub replicas: Vec<Known>,
    /// The other members.
    pub others: Vec<Known>,
}

/// A node that was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: NodeId,
    /// Where it last answered.
    pub endpoint: Option<Endpoint>,
}

/// An address that was asked, and what came of it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The address.
    pub address: SocketAddr,
    /// What it said.
    pub said: Said,
}

/// What came of asking.
#[derive(Clone, Debug)]
pub enum Said {
    /// A server is up and has loaded its data.
    Report(Box<NodeReport>),
    /// Surely no server is there: the connection was refused. Who starts only now has not been up all along.
    Absent,
    /// It cannot be told what is there: no answer in time, still loading, busy, or somebody who does not let us in.
    Silent(Silence),
    /// A pod of ours, as DNS says now, that does not let us in.
    Locked(Silence),
}

/// How long the start was held back so far, and who was asked to take over.
#[derive(Clone, Copy, Debug)]
pub struct Attempts<'a> {
    /// How long it was held back.
    pub waited: Duration,
    /// How long it may be.
    pub limit: Duration,
    /// Who was asked, and how long ago; one for each time.
    pub asked: &'a [(NodeId, Duration)],
    /// Whether the server runs already, held back: it votes, and is held back for as long as it takes.
    pub runs: bool,
    /// For how long a replica has been answering by now.
    pub answers_for: Duration,
}

/// What to do before the server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartDecision {
    /// Start it: nobody holds better data.
    Go(String),
    /// Ask this replica to take over without its primary (CLUSTER FAILOVER FORCE).
    Ask {
        /// Who.
        replica: NodeId,
        /// Where it answered.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// Ask everybody again in a moment.
    Wait(String),
    /// Start it although somebody holds better data. Worth a warning.
    GoHeldBack(String),
}

/// How long a majority of the primaries is waited for before this one is started to vote. Where most of them have died,
/// each would wait for the others.
const VOTERS_WITHIN: Duration = Duration::from_secs(2);

/// How often, and how many times, it is tried at first where the primaries that are to vote have just been started: from
/// 9.1 on they do not vote in the first two seconds.
const AT_FIRST: Duration = Duration::from_millis(400);
const SOON: usize = 10;

/// The age of a broken link is in whole seconds, rounded, and so is that of an RDB file.
const BLUR: Duration = Duration::from_secs(2);

/// A replica that holds what this node should serve.
#[derive(Clone, Copy, Debug)]
struct Better<'h> {
    address: SocketAddr,
    report: &'h NodeReport,
}

/// What the answers come to.
#[derive(Debug, Default)]
struct Outlook<'h> {
    /// Who could take over.
    better: Vec<Better<'h>>,
    /// Who holds better data and will not take over.
    unwilling: Option<Better<'h>>,
    /// Of whom it cannot be told yet what they hold.
    doubtful: Vec<String>,
    /// The same of who is up and ours, and what has to be mended before it can be told.
    locked: Vec<String>,
    /// Why the others do not count.
    worse: Vec<String>,
    /// Where surely nobody is.
    absent: BTreeSet<SocketAddr>,
}

impl Former {
    /// Reads the nodes of nodes.conf; none where it does not name the node itself.
    pub fn of(entries: &[NodeEntry]) -> Option<Self> {
        let myself = entries.iter().find(|entry| entry.flags.myself)?;
        let others = entries.iter().filter(|entry| entry.id != myself.id && entry.is_known());
        let (replicas, others): (Vec<_>, Vec<_>) =
            others.partition(|entry| entry.role == Role::Replica(Some(myself.id)));
        let known = |entry: &NodeEntry| Known { id: entry.id, endpoint: entry.endpoint() };
        let is_primary = myself.role.is_primary();
        Some(Self {
            id: myself.id,
            slots: if is_primary { myself.slot_set() } else { SlotSet::EMPTY },
            config_epoch: myself.config_epoch,
            replicas: replicas.into_iter().map(known).collect(),
            others: others.into_iter().map(known).collect(),
        })
    }

    /// Whether a node copies it.
    pub fn is_copied_by(&self, report: &NodeReport) -> bool {
        report.myself().role == Role::Replica(Some(self.id))
    }

    /// Who owns all of its slots by now, in the eyes of anybody that answers. The bus settles by epoch whose a slot is.
    fn heir(&self, heard: &[Heard]) -> Option<NodeId> {
        let mut left = self.slots.clone();
        let mut heir = None;
        for (_, report) in reports(heard) {
            let is_mine = |id| self.replicas.iter().any(|replica| replica.id == id);
            let promoted = report.myself().role.is_primary() && is_mine(report.id());
            if promoted && !report.myself().slot_set().and(&self.slots).is_empty() {
                return Some(report.id());
            }
            let others = report.view.entries().iter().filter(|entry| entry.id != self.id && entry.role.is_primary());
            for owner in others.filter(|entry| entry.config_epoch > self.config_epoch) {
                let taken = owner.slot_set();
                if !left.and(&taken).is_empty() {
                    heir = Some(owner.id);
                    left = left.without(&taken);
                }
            }
        }
        heir.filter(|_| left.is_empty())
    }
}

/// What to do before the server of a node with a nodes.conf is started. `own` is the data that it will read.
///
/// `heard` is what every address said that a replica may answer at. A replica at whose last known address nobody was
/// asked yet is waited for.
pub fn decide(former: &Former, own: Option<&DataFile>, heard: &[Heard], attempts: &Attempts<'_>) -> StartDecision {
    if former.slots.is_empty() {
        return StartDecision::Go("this node was no primary with slots: nobody copies it".to_owned());
    }
    if let Some(heir) = former.heir(heard) {
        let reason = format!("{} owns the slots of this node by now: it comes back as a replica", heir.short());
        // The server itself has to hear of it.
        return if attempts.runs { StartDecision::Wait(reason) } else { StartDecision::Go(reason) };
    }
    let own = own.filter(|data| !data.empty);
    let mut outlook = Outlook { absent: absent(heard), ..Outlook::default() };
    let mut answered = BTreeSet::new();
    for (address, report) in reports(heard) {
        answered.insert(report.id());
        if former.is_copied_by(report) {
            outlook.weigh(Better { address, report }, own);
        } else if former.replicas.iter().any(|replica| replica.id == report.id()) {
            outlook.worse.push(format!("{} follows this node no longer", report.id().short()));
        }
    }
    for replica in former.replicas.iter().filter(|replica| !answered.contains(&replica.id)) {
        outlook.miss(replica, heard);
    }
    outlook.decide(attempts)
}

/// Whether a node copies whoever is at an address.
pub fn is_address_copied_by(address: SocketAddr, report: &NodeReport) -> bool {
    let primary = match report.myself().role {
        Role::Replica(Some(id)) => report.view.get(id).and_then(NodeEntry::endpoint),
        _ => None,
    };
    primary.is_some_and(|endpoint| SocketAddr::new(endpoint.ip, endpoint.port) == address)
}

/// What to do before a node with an empty disk is started at an address. Replication goes by address and not by id: a
/// replica whose primary was here before would copy the empty server.
pub fn decide_blank(own: SocketAddr, heard: &[Heard], attempts: &Attempts<'_>) -> StartDecision {
    let mut outlook = Outlook { absent: absent(heard), ..Outlook::default() };
    for Heard { address, said } in heard {
        match said {
            Said::Report(report) => {
                if is_address_copied_by(own, report) {
                    outlook.weigh(Better { address: *address, report }, None);
                }
            }
            Said::Silent(silence) | Said::Locked(silence) if *address != own => {
                outlook.doubtful.push(format!("{address} {silence}"));
            }
            Said::Absent | Said::Silent(_) | Said::Locked(_) => {}
        }
    }
    outlook.decide(attempts)
}

impl Better<'_> {
    /// Who can elect it; its primary only if that one `runs`.
    fn electorate(&self, runs: bool, absent: &BTreeSet<SocketAddr>) -> Electorate {
        let dead = match self.report.myself().role {
            Role::Replica(primary) if !runs => primary,
            _ => None,
        };
        let gone = self.report.view.entries().iter().filter(|entry| {
            entry.endpoint().is_some_and(|endpoint| absent.contains(&SocketAddr::new(endpoint.ip, endpoint.port)))
        });
        Electorate::of(&self.report.view, dead, &gone.map(|entry| entry.id).collect::<Vec<_>>())
    }

    /// How long the heirs of other primaries that were started with this one go first.
    fn turn(&self) -> Duration {
        let Role::Replica(Some(own)) = self.report.myself().role else {
            return Duration::ZERO;
        };
        let voters = self.report.view.entries().iter().filter(|entry| entry.owns_slots());
        let before = voters.filter(|voter| voter.id < own).count();
        electorate::TURN.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX))
    }
}

impl StartDecision {
    /// Why.
    pub fn reason(&self) -> &str {
        match self {
            Self::Go(reason) | Self::Ask { reason, .. } | Self::Wait(reason) | Self::GoHeldBack(reason) => reason,
        }
    }
}

impl<'h> Outlook<'h> {
    /// What a replica of this node is worth that has loaded its data.
    fn weigh(&mut self, replica: Better<'h>, own: Option<&DataFile>) {
        let short = replica.report.id().short();
        let Some(link) = &replica.report.replication.link else {
            return self.doubtful.push(format!("{short} does not tell of its link"));
        };
        if link.syncing {
            return self.worse.push(format!("{short} is in a full sync and holds no whole copy"));
        }
        if replica.report.keys == 0 {
            return self.worse.push(format!("{short} holds no keys"));
        }
        let broken_for = match (link.up, link.down_for) {
            (true, _) => Duration::ZERO,
            (false, Some(broken_for)) => broken_for,
            // Its data is from its own disk. That is better than none.
            (false, None) if own.is_none() => Duration::ZERO,
            (false, None) => {
                return self.worse.push(format!("{short} was itself restarted and has not been in sync since"));
            }
        };
        if own.and_then(|own| own.age).is_some_and(|age| age.saturating_add(BLUR) < broken_for) {
            return self.worse.push(format!(
                "the data on this disk is newer than that of {short}, whose link broke {} s ago",
                broken_for.as_secs()
            ));
        }
        match replica.report.myself().flags.no_failover {
            true => self.unwilling = Some(replica),
            false => self.better.push(replica),
        }
    }

    /// What is to be thought of a former replica that no answer came from.
    fn miss(&mut self, replica: &Known, heard: &[Heard]) {
        let short = replica.id.short();
        let Some(endpoint) = replica.endpoint else {
            return self.worse.push(format!("nobody knows where {short} is"));
        };
        let address = SocketAddr::new(endpoint.ip, endpoint.port);
        let there = heard.iter().find(|heard| heard.address == address);
        match there.map(|heard| &heard.said) {
            None => self.doubtful.push(format!("{short} at {address} was not asked yet")),
            Some(Said::Absent) => self.worse.push(format!("{short} at {address} is not up")),
            Some(Said::Silent(silence)) => self.doubtful.push(format!("{short} at {address} {silence}")),
            Some(Said::Locked(silence)) => self.locked.push(format!("{short} at {address} {silence}")),
            Some(Said::Report(other)) => {
                self.worse.push(format!("{} answers at {address}, where {short} was", other.id().short()));
            }
        }
    }

    fn decide(self, attempts: &Attempts<'_>) -> StartDecision {
        let times = |id| attempts.asked.iter().filter(|(asked, _)| *asked == id).count();
        // The one asked least often, so that one that cannot win gives way; of these the one that has most.
        let best = self.better.iter().min_by_key(|replica| {
            let report = replica.report;
            (times(report.id()), std::cmp::Reverse(report.replication.offset), report.id())
        });
        let is_over = !attempts.runs && attempts.waited >= attempts.limit;
        let [waited, limit] = [attempts.waited, attempts.limit].map(|time| time.as_secs());
        if let Some(best) = best {
            let id = best.report.id();
            if is_over {
                return StartDecision::GoHeldBack(format!(
                    "{} holds better data and has not taken over within {limit} s",
                    id.short()
                ));
            }
            let electorate = best.electorate(attempts.runs, &self.absent);
            if !electorate.can_elect() {
                let reason = format!("{} holds better data and cannot be elected: {electorate}", id.short());
                return match !attempts.runs && attempts.waited >= VOTERS_WITHIN {
                    true => StartDecision::GoHeldBack(format!("{reason}, and this one is needed")),
                    false => StartDecision::Wait(reason),
                };
            }
            if attempts.runs && attempts.answers_for < best.turn() {
                return StartDecision::Wait(format!("{} waits for its turn", id.short()));
            }
            let patience = match attempts.asked.len() {
                tries if attempts.runs && tries <= SOON => AT_FIRST,
                tries => attempt(tries),
            };
            let last = attempts.asked.iter().min_by_key(|(_, ago)| *ago);
            return match last.filter(|(_, ago)| *ago < patience) {
                Some((asked, _)) => StartDecision::Wait(format!("{} was asked to take over", asked.short())),
                None => StartDecision::Ask {
                    replica: id,
                    address: best.address,
                    reason: format!("it holds {}, and this disk nothing newer", keys(best.report.keys)),
                },
            };
        }
        // While this node is down the others may replace it by themselves; once it is up they would not.
        if !self.locked.is_empty() {
            return StartDecision::Wait(format!(
                "a replica may hold better data: {}; give all pods the same passwords and certificate authority",
                self.locked.join("; ")
            ));
        }
        let doubt = self.doubtful.join("; ");
        if !doubt.is_empty() && attempts.waited < attempts.limit {
            return StartDecision::Wait(format!("a replica may hold better data: {doubt}"));
        }
        if let Some(unwilling) = self.unwilling {
            let id = unwilling.report.id();
            return StartDecision::GoHeldBack(format!("{} holds better data and will not take over", id.short()));
        }
        StartDecision::Go(match (doubt.is_empty(), self.worse.is_empty()) {
            (false, _) => format!("after {waited} s nobody is known to hold better data: {doubt}"),
            (true, true) => "no replica copies this node".to_owned(),
            (true, false) => format!("no replica holds better data: {}", self.worse.join("; ")),
        })
    }
}

fn keys(count: u64) -> String {
    match count {
        1 => "1 key".to_owned(),
        _ => format!("{count} keys"),
    }
}

fn absent(heard: &[Heard]) -> BTreeSet<SocketAddr> {
    heard.iter().filter(|heard| matches!(heard.said, Said::Absent)).map(|heard| heard.address).collect()
}

fn reports(heard: &[Heard]) -> impl Iterator<Item = (SocketAddr, &NodeReport)> {
    heard.iter().filter_map(|heard| match &heard.said {
        Said::Report(report) => Some((heard.address, report.as_ref())),
        Said::Absent | Said::Silent(_) | Said::Locked(_) => None,
    })
}

impl fmt::Display for StartDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Go(reason) => write!(f, "start the server: {reason}"),
            Self::Ask { replica, address, reason } => {
                write!(f, "ask {} at {address} to take over first: {reason}", replica.short())
            }
            Self::Wait(reason) => write!(f, "wait before the start: {reason}"),
            Self::GoHeldBack(reason) => write!(f, "start the server, and data may be lost: {reason}"),
        }
    }
}
