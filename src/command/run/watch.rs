//! Beside a server that runs: what it last said of itself is kept for the moment when it cannot say any more, and when
//! it is a replica, its primary is held on to.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::metrics::{Count, Tally};
use crate::command::peers::Peers;
use crate::config::Credentials;
use crate::datadir::Changes;
use crate::topology::drain::Peer;
use crate::topology::electorate::attempt;
use crate::topology::membership::Label;
use crate::topology::node::{NodeId, Role};
use crate::topology::observation::Silence;
use crate::topology::order::Order;
use crate::topology::server::ServerReport;
use crate::topology::succession::{Claim, Succession, heirs, may_still_read};
use crate::valkey::{Lifeline, Outcome, Server};

/// How often the server is asked how it is.
const OFTEN: Duration = Duration::from_secs(1);
/// How long a server may go on noting down changes before it is asked: a cluster that forms is one change.
const SETTLED: Duration = Duration::from_millis(10);
/// How long a replica's part in a succession goes on before it is left to Valkey's own failover.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a replica may take to answer when its primary has died.
const QUICKLY: Duration = Duration::from_millis(300);

/// What the server last said of itself.
pub(super) type LastReport = watch::Sender<Option<ServerReport>>;

/// Watches the server, and with `takes_over` its primary.
pub(super) struct Watch<'p> {
    /// The server.
    pub(super) server: Server,
    /// What lets us into other servers.
    pub(super) credentials: &'p Credentials,
    /// Whether a dead primary is replaced at once.
    pub(super) takes_over: bool,
    /// Where what it says is kept.
    pub(super) last: &'p LastReport,
    /// What is counted of it.
    pub(super) tally: &'p Tally,
    /// The file that the server replaces when its role changes, or anybody's; none where it is not known.
    pub(super) nodes_conf: Option<&'p Path>,
}

/// The primary that the server follows.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Primary {
    id: NodeId,
    address: SocketAddr,
    bus_port: u16,
}

impl Watch<'_> {
    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        let mut changes = self.nodes_conf.map(Changes::of);
        let mut follows: Option<Primary> = None;
        let mut held: Option<(Primary, Lifeline)> = None;
        let mut told = String::new();
        loop {
            // A server that does not answer has not changed its primary.
            let report = self.server.report().await;
            self.tally.answers.store(report.is_ok(), Ordering::Relaxed);
            if let Ok(report) = report {
                follows = followed(&report).filter(|_| self.takes_over);
                self.last.send_replace(Some(report));
            }
            held = match (held, follows) {
                (Some((before, lifeline)), Some(now)) if before == now => Some((before, lifeline)),
                (_, Some(now)) => Lifeline::hold(now.address).await.ok().map(|lifeline| (now, lifeline)),
                (_, None) => None,
            };
            let is_held = match &held {
                Some((_, lifeline)) => tokio::select! {
                    () = lifeline.broken() => false,
                    () = a_while(changes.as_mut()) => true,
                },
                None => false,
            };
            match follows.filter(|_| !is_held) {
                // It may also have died while nobody held on to it.
                Some(primary) => {
                    held = None;
                    if Lifeline::has_died(primary.address, primary.bus_port).await {
                        let end = self.succeed(&primary).await;
                        if end != told {
                            tracing::info!("the primary at {} was lost: {end}", primary.address);
                            told = end;
                        }
                    }
                    // A server that throws us out is not asked in a tight loop.
                    a_while(changes.as_mut()).await;
                }
                None if is_held => told.clear(),
                None => a_while(changes.as_mut()).await,
            }
        }
    }

    /// The primary's process is dead: takes over, unless another replica is better. Says how it ended.
    async fn succeed(&mut self, dead: &Primary) -> String {
        let started = Instant::now();
        let mut succession = Succession::default();
        let mut siblings = Peers::new(self.credentials.clone());
        while started.elapsed() < PATIENCE {
            let own = match self.server.report().await {
                Ok(own) => own,
                Err(silence) => return format!("this replica cannot be asked: it {silence}"),
            };
            let others = own.cluster.iter().flat_map(|cluster| cluster.view.others());
            let asked = others.filter(|entry| entry.role == Role::Replica(Some(dead.id)));
            let peers = siblings.ask(asked, Some(QUICKLY)).await;
            let gone = gone(&own).await;
            match succession.next(started.elapsed(), dead.id, &own, &peers, &gone) {
                Claim::TakeOver => {
                    tracing::warn!("the primary at {} is dead; this replica takes over", dead.address);
                    self.tally.takeovers.add_one();
                    if let Outcome::Failed(why) | Outcome::Unanswered(why) | Outcome::Forbidden(why) =
                        self.server.order(Order::TakeOverFromDead).await
                    {
                        tracing::warn!("the server does not take over: {why}");
                    }
                }
                Claim::Wait(time) => sleep(time).await,
                Claim::Leave(why) => {
                    self.last.send_replace(Some(own));
                    return why.to_owned();
                }
            }
            // Whoever came back meanwhile knows what it has.
            if !Lifeline::is_dead(dead.address, dead.bus_port).await && !own.owns_slots() {
                return "it is back before it was replaced".to_owned();
            }
        }
        format!(
            "nobody was elected within {} s, which takes a majority of the primaries; Valkey's own failover goes on",
            PATIENCE.as_secs()
        )
    }
}

/// The primary that a replica follows.
fn followed(report: &ServerReport) -> Option<Primary> {
    let Role::Replica(Some(id)) = report.myself()?.role else {
        return None;
    };
    let entry = report.cluster.as_ref()?.view.get(id)?;
    Some(Primary { id, address: Label::of(entry)?.address, bus_port: entry.bus_port })
}

/// Waits until it is time to look again: soon where the server has just noted down a change.
async fn a_while(changes: Option<&mut Changes>) {
    let changed = async {
        match changes {
            Some(changes) => changes.next().await,
            None => pending().await,
        }
        sleep(SETTLED).await;
    };
    // Either way it is time.
    drop(timeout(OFTEN, changed).await);
}

/// The server has ended by itself: if it was a primary with slots, its heir is asked at once. Over when somebody else
/// owns them, or nobody can be asked.
pub(super) async fn hand_over_from_dead(last: Option<ServerReport>, credentials: &Credentials, asked: &Count) {
    const OFTEN: Duration = Duration::from_millis(10);
    /// Where most primaries have died at once, each would wait for the others to come back.
    const VOTERS_WITHIN: Duration = Duration::from_secs(1);
    /// A replica that lacks processors for a moment is not gone.
    const SILENT_FOR: Duration = Duration::from_secs(2);
    /// Whoever was told has a file to sync before it answers again; so long the server lets an attempt last.
    const TOLD_FOR: Duration = Duration::from_secs(5);
    let Some(last) = last.filter(ServerReport::owns_slots) else {
        return;
    };
    let Some(dead) = last.id() else {
        return;
    };
    let started = Instant::now();
    let mut replicas = Peers::new(credentials.clone());
    let mut attempts: usize = 0;
    let mut asked_at: Option<Instant> = None;
    loop {
        let peers = replicas.ask(last.replicas(), Some(QUICKLY)).await;
        let reports = || peers.iter().filter_map(|peer| Some((peer.id, peer.answer.as_ref().ok()?)));
        if let Some(heir) = peers.iter().find(|peer| peer.answer.as_ref().is_ok_and(ServerReport::owns_slots)) {
            tracing::info!("{} has taken over", heir.label);
            return;
        }
        let heirs = heirs(dead, started.elapsed(), reports());
        // The next time the next best: the first may have been asked in vain for a reason of its own.
        let turn = attempts.checked_rem(heirs.len()).and_then(|turn| heirs.get(turn));
        let Some((peer, heir)) = turn.and_then(|heir| {
            peers.iter().filter(|peer| peer.id == *heir).find_map(|peer| Some((peer, peer.answer.as_ref().ok()?)))
        }) else {
            let may_answer = |peer: &Peer| matches!(peer.answer, Err(Silence::Unreachable(_) | Silence::NotReady(_)));
            let (since, patience) = asked_at.map_or((started, SILENT_FOR), |at| (at, TOLD_FOR));
            if peers.iter().any(may_answer) && since.elapsed() < patience {
                sleep(OFTEN).await;
                continue;
            }
            match attempts {
                0 => tracing::warn!(
                    "the server has ended and no replica holds a fresh copy: nobody is asked to take over"
                ),
                _ => tracing::warn!("the server has ended, and nobody who could take over gives an answer any more"),
            }
            return;
        };
        let is_due = asked_at.is_none_or(|at| at.elapsed() >= attempt(attempts));
        if !is_due || may_still_read(dead, started.elapsed(), reports()) {
            // The attempt has its time, and so has whoever reads the last that was sent.
        } else if !heir.can_be_elected(Some(dead), &gone(heir).await) {
            if started.elapsed() >= VOTERS_WITHIN && attempts == 0 {
                tracing::warn!(
                    "the server has ended and {} cannot be elected, as most primaries are down; it is asked again before \
                     this server starts again",
                    peer.label
                );
                return;
            }
        } else {
            asked.add_one();
            let outcome = replicas.order(peer, Order::TakeOverFromDead).await;
            asked_at = Some(Instant::now());
            attempts += 1;
            match outcome {
                Outcome::Done => tracing::warn!("the server has ended; {} is told to take over", peer.label),
                Outcome::Moot(why) | Outcome::Failed(why) | Outcome::Unanswered(why) | Outcome::Forbidden(why) => {
                    tracing::warn!("the server has ended, and {} does not take over: {why}", peer.label);
                }
            }
        }
        sleep(OFTEN).await;
    }
}

/// The primaries that are dead for certain, of those that could vote. To be elected takes them.
async fn gone(replica: &ServerReport) -> Vec<NodeId> {
    let entries = replica.cluster.iter().flat_map(|cluster| cluster.view.others());
    let voters = entries.filter(|entry| entry.owns_slots());
    let asked = voters
        .filter_map(|voter| Some((voter.id, Label::of(voter)?.address, voter.bus_port)))
        .map(|(id, address, bus_port)| async move { Lifeline::is_dead(address, bus_port).await.then_some(id) });
    join_all(asked).await.into_iter().flatten().collect()
}
