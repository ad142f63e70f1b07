//! Who takes over from a primary whose process is dead, before the others have noticed.
//!
//! Asked by whoever knows it for certain: the `run` that saw its server end, and the `run` of a replica whose machine of
//! a primary answers that nobody listens any more. A partition, a slow or a hung primary is none of that: there Valkey's
//! own failover decides, by majority and time.

use std::cmp::Reverse;
use std::time::Duration;

use super::drain::Peer;
use super::electorate::{self, Electorate, attempt};
use super::node::{NodeId, Role};
use super::observation::Silence;
use super::server::ServerReport;

/// How long a copy may have been without its primary to count as whole: it is asked within moments of the death.
const RECENT: Duration = Duration::from_secs(5);
/// How long a replica may take to read the last that its dead primary has sent: it sees the end only after that, and what
/// it has not read when it takes over is lost.
const READS_FOR: Duration = Duration::from_millis(500);
/// How soon to look whether it has.
const SOON: Duration = Duration::from_millis(5);
/// How long the second best waits for the best, and the third for the second.
const TURN: Duration = Duration::from_millis(300);
/// How soon to look again.
const AGAIN: Duration = Duration::from_millis(50);
/// The other one who may know asks the same heir; asked twice it begins anew.
const COURTESY: Duration = Duration::from_millis(30);

/// A replica's own part in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Succession {
    asked_at: Option<Duration>,
    attempts: usize,
}

/// What a replica does about its dead primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Take over.
    TakeOver,
    /// Look again after so long.
    Wait(Duration),
    /// It is nothing to us, and this is why.
    Leave(&'static str),
}

/// Those that hold what the primary had that was found dead so long ago, the best first: the highest offset, ties by id.
pub fn heirs<'a>(
    primary: NodeId,
    ago: Duration,
    replicas: impl IntoIterator<Item = (NodeId, &'a ServerReport)>,
) -> Vec<NodeId> {
    let mut heirs: Vec<_> = replicas
        .into_iter()
        .filter(|(id, report)| report.id() == Some(*id) && holds_copy(primary, ago, report))
        .map(|(id, report)| (Reverse(report.replication.offset), id))
        .collect();
    heirs.sort();
    heirs.into_iter().map(|(_, id)| id).collect()
}

/// Whether anybody may still read what the primary had sent that was found dead so long ago: to be waited for, as nobody
/// else holds it.
pub fn may_still_read<'a>(
    primary: NodeId,
    ago: Duration,
    replicas: impl IntoIterator<Item = (NodeId, &'a ServerReport)>,
) -> bool {
    let reads = |report: &ServerReport| report.replication.link.as_ref().is_some_and(|link| link.up);
    ago < READS_FOR && replicas.into_iter().any(|(_, report)| holds_copy(primary, ago, report) && reads(report))
}

/// Whether this replica's copy is whole and fresh, and it means to stay.
fn holds_copy(primary: NodeId, ago: Duration, report: &ServerReport) -> bool {
    let follows = report.myself().is_some_and(|myself| myself.role == Role::Replica(Some(primary)));
    let is_whole = report.replication.link.as_ref().is_some_and(|link| {
        !link.syncing && (link.up || link.down_for.is_some_and(|time| time <= RECENT.saturating_add(ago)))
    });
    follows && is_whole && report.loading.is_none() && !report.leaving
}

impl Succession {
    /// What comes next, `now` after the primary was found dead, given what this replica and its siblings say, and which
    /// other primaries are known to be gone.
    pub fn next(
        &mut self,
        now: Duration,
        primary: NodeId,
        own: &ServerReport,
        siblings: &[Peer],
        gone: &[NodeId],
    ) -> Claim {
        let Some(id) = own.id() else {
            return Claim::Leave("the server is in no cluster");
        };
        if own.owns_slots() {
            return Claim::Leave("it has taken over");
        }
        if own.myself().is_none_or(|myself| myself.role != Role::Replica(Some(primary))) {
            return Claim::Leave("it follows another primary by now");
        }
        let owned = own.cluster.as_ref().and_then(|cluster| cluster.view.get(primary)).map(|entry| &entry.slots);
        if owned.is_none_or(Vec::is_empty) {
            return Claim::Leave("the dead node owned no slots");
        }
        let reports = siblings.iter().filter_map(|peer| Some((peer.id, peer.answer.as_ref().ok()?)));
        // Our server need not have heard of it. Told to take over by force it would, from the one that serves by now.
        if reports.clone().any(|(_, report)| report.owns_slots()) {
            return Claim::Leave("another replica has taken over");
        }
        let reports = reports.chain([(id, own)]);
        let heirs = heirs(primary, now, reports.clone());
        let Some(rank) = heirs.iter().position(|heir| *heir == id) else {
            return Claim::Leave("its copy is not whole and fresh, or it is leaving");
        };
        let electorate = own.cluster.as_ref().map(|cluster| Electorate::of(&cluster.view, Some(primary), gone));
        let Some(electorate) = electorate.filter(|electorate| electorate.can_elect()) else {
            return Claim::Wait(AGAIN);
        };
        let before = u32::try_from(electorate.before).unwrap_or(u32::MAX);
        // Who gives no answer may be the best, or have taken over: to be asked then would be to take over from it.
        let is_silent = |peer: &&Peer| peer.answer.as_ref().is_err_and(|silence| *silence != Silence::Refused);
        let rank = rank + siblings.iter().filter(is_silent).count();
        let turn = electorate::TURN.saturating_mul(before) + COURTESY + TURN * u32::try_from(rank).unwrap_or(u32::MAX);
        match self.asked_at {
            Some(at) if now < at + attempt(self.attempts) => Claim::Wait(AGAIN),
            None if now < turn => Claim::Wait(turn - now),
            None if may_still_read(primary, now, reports) => Claim::Wait(SOON),
            _ => {
                self.asked_at = Some(now);
                self.attempts += 1;
                Claim::TakeOver
            }
        }
    }
}
