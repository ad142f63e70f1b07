//! Beside a server that runs: what it last said of itself is kept for the moment when it cannot say any more, and when
//! it is a replica, its primary is held on to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::command::drain::labelled;
use crate::config::Credentials;
use crate::topology::drain::Peer;
use crate::topology::membership::Label;
use crate::topology::node::{NodeEntry, NodeId, Role};
use crate::topology::order::Order;
use crate::topology::server::ServerReport;
use crate::topology::succession::{Claim, Succession, heirs};
use crate::valkey::{Lifeline, Outcome, Server};

/// How often the server is asked how it is.
const OFTEN: Duration = Duration::from_secs(1);
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
}

/// The primary that is held on to.
struct Primary {
    id: NodeId,
    address: SocketAddr,
    bus_port: u16,
    lifeline: Lifeline,
}

impl Watch<'_> {
    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        let mut primary: Option<Primary> = None;
        loop {
            if let Ok(report) = self.server.report().await {
                primary = self.hold_on(&report, primary).await;
                self.last.send_replace(Some(report));
            }
            match &primary {
                Some(held) if timeout(OFTEN, held.lifeline.broken()).await.is_ok() => {
                    if Lifeline::is_dead(held.address, held.bus_port).await {
                        self.succeed(held).await;
                    }
                    primary = None;
                    // A server that throws us out is not asked in a tight loop.
                    sleep(OFTEN).await;
                }
                Some(_) => {}
                None => sleep(OFTEN).await,
            }
        }
    }

    /// Holds on to the primary that the server follows by now.
    async fn hold_on(&self, report: &ServerReport, held: Option<Primary>) -> Option<Primary> {
        if !self.takes_over {
            return None;
        }
        let Role::Replica(Some(id)) = report.myself()?.role else {
            return None;
        };
        let entry = report.cluster.as_ref()?.view.get(id)?;
        let (_, Label { address, .. }) = labelled(entry)?;
        match held {
            Some(held) if held.id == id && held.address == address => Some(held),
            _ => {
                let lifeline = Lifeline::hold(address).await.ok()?;
                Some(Primary { id, address, bus_port: entry.bus_port, lifeline })
            }
        }
    }

    /// The primary's process is dead: takes over, unless another replica is better.
    async fn succeed(&mut self, dead: &Primary) {
        let started = Instant::now();
        let mut succession = Succession::default();
        let mut siblings = BTreeMap::new();
        while started.elapsed() < PATIENCE {
            let Ok(own) = self.server.report().await else {
                return;
            };
            let others = own.cluster.iter().flat_map(|cluster| cluster.view.others());
            let asked = others.filter(|entry| entry.role == Role::Replica(Some(dead.id))).collect();
            let peers = ask(&mut siblings, asked, self.credentials).await;
            match succession.next(started.elapsed(), dead.id, &own, &peers) {
                Claim::TakeOver => {
                    tracing::warn!("the primary at {} is dead; this replica takes over", dead.address);
                    if let Outcome::Failed(why) | Outcome::Unanswered(why) | Outcome::Forbidden(why) =
                        self.server.order(Order::TakeOverFromDead).await
                    {
                        tracing::warn!("the server does not take over: {why}");
                    }
                }
                Claim::Wait(time) => sleep(time).await,
                Claim::Leave(why) => {
                    tracing::info!("the primary at {} was lost: {why}", dead.address);
                    return;
                }
            }
            // Whoever came back meanwhile knows what it has.
            if !Lifeline::is_dead(dead.address, dead.bus_port).await && !own.owns_slots() {
                tracing::info!("the primary at {} is back before it was replaced", dead.address);
                return;
            }
        }
        tracing::warn!("no succession within {} s; it is left to Valkey's own failover", PATIENCE.as_secs());
    }
}

/// The server has ended by itself: if it was a primary with slots, its heir is asked at once. Over when somebody else
/// owns them, or nobody can be asked.
pub(super) async fn hand_over_from_dead(last: Option<ServerReport>, credentials: &Credentials) {
    const OFTEN: Duration = Duration::from_millis(10);
    const ATTEMPT: Duration = Duration::from_secs(6);
    let Some(last) = last.filter(ServerReport::owns_slots) else {
        return;
    };
    let Some(dead) = last.id() else {
        return;
    };
    let mut replicas = BTreeMap::new();
    let mut asked: Option<(NodeId, Instant)> = None;
    loop {
        let peers = ask(&mut replicas, last.replicas().collect(), credentials).await;
        let reports = || peers.iter().filter_map(|peer| Some((peer.id, peer.answer.as_ref().ok()?)));
        if let Some((heir, _)) = reports().find(|(_, report)| report.owns_slots()) {
            let label = peers.iter().find(|peer| peer.id == heir).map(|peer| peer.label.to_string());
            tracing::info!("{} has taken over", label.unwrap_or_default());
            return;
        }
        if asked.is_none_or(|(_, at)| at.elapsed() >= ATTEMPT) {
            let Some(peer) = heirs(dead, reports()).first().and_then(|heir| peers.iter().find(|peer| peer.id == *heir))
            else {
                tracing::warn!("no replica holds a fresh copy of this primary: nobody is asked to take over");
                return;
            };
            asked = Some((peer.id, Instant::now()));
            let outcome = match replicas.get_mut(&peer.label.address) {
                Some(server) => server.order(Order::TakeOverFromDead).await,
                None => return,
            };
            tracing::warn!("the server has died; {} is told to take over: {outcome:?}", peer.label);
        }
        sleep(OFTEN).await;
    }
}

/// Asks nodes, all at once and briefly: whoever does not answer now is not the heir.
async fn ask(
    servers: &mut BTreeMap<SocketAddr, Server>,
    entries: Vec<&NodeEntry>,
    credentials: &Credentials,
) -> Vec<Peer> {
    let asked: BTreeMap<SocketAddr, (NodeId, Label)> =
        entries.into_iter().filter_map(labelled).map(|(id, label)| (label.address, (id, label))).collect();
    servers.retain(|address, _| asked.contains_key(address));
    for address in asked.keys() {
        servers.entry(*address).or_insert_with(|| Server::at(*address, credentials.clone(), true));
    }
    let answers = join_all(
        servers.iter_mut().map(|(address, server)| async { (*address, timeout(QUICKLY, server.report()).await) }),
    );
    let answers = answers.await.into_iter().filter_map(|(address, answer)| {
        let (id, label) = asked.get(&address).cloned()?;
        Some(Peer { id, label, answer: answer.ok()? })
    });
    answers.collect()
}
