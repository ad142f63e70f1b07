//! Before a server starts: whoever holds better data than its disk takes over first.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Credentials, Reach};
use crate::discovery::{Discovery, Found};
use crate::exit::Failure;
use crate::topology::node::{NodeEntry, NodeId, Role};
use crate::topology::observation::{NodeReport, Silence};
use crate::topology::order::{HeldBack, Order};
use crate::topology::parse::ServerConfig;
use crate::topology::probe::Life;
use crate::topology::start::{
    Attempts, DataFile, Former, Heard, NodesConf, OnDisk, Said, StartDecision, decide, decide_blank,
    is_address_copied_by,
};
use crate::valkey::{Candidate, Door, Fleet, Lost, Outcome, Server};

const OFTEN: Duration = Duration::from_millis(50);
const DNS_OFTEN: Duration = Duration::from_secs(1);

/// How long until what lasts is said again.
const PATIENT: Duration = Duration::from_secs(30);

/// Who asks, and how.
#[derive(Clone, Copy)]
pub(super) struct Guard<'p> {
    pub(super) own: SocketAddr,
    pub(super) credentials: &'p Credentials,
    pub(super) reach: Option<&'p Reach>,
    /// How many members the cluster is to have.
    pub(super) members: usize,
    pub(super) limit: Duration,
    /// Where it is told what is waited for.
    pub(super) life: &'p watch::Sender<Life>,
}

/// How the server may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Opened {
    /// A replica holds better data and has not taken over: the server must not be copied nor written to.
    pub(super) held_back: bool,
}

/// The questions before one start.
struct Inquiry<'p> {
    guard: Guard<'p>,
    former: Option<Former>,
    data: Option<DataFile>,
    fleet: Fleet,
    discovery: Option<Discovery>,
    asking: JoinSet<Found>,
    asked_dns: Option<Instant>,
    found: Option<Found>,
    asked: Vec<(NodeId, Instant)>,
    started: Instant,
    /// Whether the server runs, held back.
    runs: bool,
    /// Since when anybody who copies this node has been answering.
    answering_since: Option<Instant>,
}

/// Asks around until the server may start; not for longer than the limit.
pub(super) async fn before_start(guard: &Guard<'_>, disk: &OnDisk, config: &ServerConfig) -> Result<Opened, Failure> {
    let mut inquiry = Inquiry::new(guard, disk, config)?;
    let mut told = String::new();
    let mut again = Instant::now() + guard.limit;
    loop {
        let decision = inquiry.round().await;
        let sentence = decision.to_string();
        let takes_long = Instant::now() >= again;
        if sentence != told || takes_long {
            match decision {
                StartDecision::Wait(_) if takes_long => tracing::warn!("{sentence}"),
                StartDecision::GoHeldBack(_) => tracing::warn!("{sentence}"),
                _ => tracing::info!("{sentence}"),
            }
            guard.life.send_replace(Life::Guarding(sentence.clone()));
            told = sentence;
            if takes_long {
                again = Instant::now() + PATIENT;
            }
        }
        match decision {
            StartDecision::Go(_) => return Ok(Opened::default()),
            StartDecision::GoHeldBack(_) => return Ok(Opened { held_back: true }),
            StartDecision::Ask { replica, address, .. } => inquiry.ask(replica, address).await,
            StartDecision::Wait(_) => sleep(OFTEN).await,
        }
    }
}

/// The server runs held back, and has answered: nobody is let in who could read what it holds.
///
/// For two seconds after its start it serves nobody (`CLUSTER_WRITABLE_DELAY` in `cluster_legacy.c`), and 9.1 votes no
/// sooner either: by the time its replica can be elected it would serve. None where it has no slots to serve.
pub(super) async fn shut(address: SocketAddr, guard: &Guard<'_>, disk: &OnDisk) -> Option<Door> {
    Inquiry::former(disk).filter(|former| !former.slots.is_empty())?;
    match Door::shut(address, guard.credentials, PATIENT).await {
        Ok(door) => Some(door),
        Err(silence) => {
            tracing::warn!("the server, which is held back, may be read before a replica has taken over: it {silence}");
            None
        }
    }
}

/// The server runs held back: goes on asking until a replica has taken over, and then lets the server go.
///
/// It takes no writes and is not copied meanwhile. Where all primaries died at once their votes are needed, which is
/// why they run at all. When for as long as a start is held back nobody has held anything better, it is let go as well.
pub(super) async fn release(
    door: &mut Option<Door>,
    server: &mut Server,
    guard: &Guard<'_>,
    disk: &OnDisk,
    config: &ServerConfig,
) -> Result<(), Lost> {
    let Ok(mut inquiry) = Inquiry::new(guard, disk, config) else {
        return Ok(());
    };
    let had_slots = inquiry.former.as_ref().is_some_and(|former| !former.slots.is_empty());
    let alone = tokio::select! {
        replaced = until_it_is_replaced(door.as_mut(), server, had_slots) => {
            replaced?;
            None
        }
        why = inquiry.until_nobody_holds_better() => Some(why),
    };
    if let Some(shut) = door {
        while !shut.open().await? {
            sleep(OFTEN).await;
        }
        *door = None;
    }
    loop {
        super::pod::answer(server).await;
        if let_go(server, config).await {
            break;
        }
        sleep(OFTEN).await;
    }
    match alone {
        None => tracing::info!("the replica that held better data has taken over: this node is held back no longer"),
        Some(why) => tracing::warn!("this node is held back no longer, and serves what its disk held: {why}"),
    }
    Ok(())
}

/// Until the server owns no slots any more that it had, or follows somebody.
async fn until_it_is_replaced(mut door: Option<&mut Door>, server: &mut Server, had_slots: bool) -> Result<(), Lost> {
    loop {
        let is_over = match &mut door {
            Some(door) => door.owns_slots().await? == Some(false),
            None => {
                let report = super::pod::answer(server).await;
                if had_slots { !report.owns_slots() } else { report.is_replica() }
            }
        };
        if is_over {
            return Ok(());
        }
        sleep(OFTEN).await;
    }
}

/// Puts the settings back; false where the server does not take them.
async fn let_go(server: &mut Server, config: &ServerConfig) -> bool {
    match server.order(Order::LetGo(HeldBack::before(config))).await {
        Outcome::Done | Outcome::Moot(_) => true,
        Outcome::Failed(why) | Outcome::Unanswered(why) | Outcome::Forbidden(why) => {
            tracing::warn!("the server is still held back: {why}");
            false
        }
    }
}

/// Whether the primary that this node followed still lives and owns slots.
pub(super) async fn follows_somebody(guard: &Guard<'_>, disk: &OnDisk) -> bool {
    let NodesConf::Nodes(entries) = &disk.nodes_conf else {
        return false;
    };
    let myself = entries.iter().find(|entry| entry.flags.myself);
    let Some(Role::Replica(Some(primary))) = myself.map(|myself| myself.role) else {
        return false;
    };
    let endpoint = entries.iter().find(|entry| entry.id == primary).and_then(NodeEntry::endpoint);
    let Some(endpoint) = endpoint else {
        return false;
    };
    let mut server = Server::at(SocketAddr::new(endpoint.ip, endpoint.port), guard.credentials.clone(), true);
    server.report().await.is_ok_and(|report| report.id() == Some(primary) && report.owns_slots())
}

impl<'p> Inquiry<'p> {
    fn new(guard: &Guard<'p>, disk: &OnDisk, config: &ServerConfig) -> Result<Self, Failure> {
        let discovery = match guard.reach {
            Some(reach) => Some(Discovery::new(reach, guard.members)?),
            None => None,
        };
        Ok(Self {
            guard: *guard,
            former: Self::former(disk),
            data: disk.loaded(config).cloned(),
            fleet: Fleet::new(guard.credentials.clone()),
            discovery,
            asking: JoinSet::new(),
            asked_dns: None,
            found: None,
            asked: Vec::new(),
            started: Instant::now(),
            runs: false,
            answering_since: None,
        })
    }

    /// Beside a server that runs held back: asks who holds better data to take over, and tells why nobody has been known to
    /// for as long as a start is held back.
    async fn until_nobody_holds_better(&mut self) -> String {
        self.runs = true;
        let mut told: Option<Instant> = None;
        let mut alone: Option<Instant> = None;
        loop {
            let decision = self.round().await;
            if told.is_none_or(|at| at.elapsed() > PATIENT) {
                told = Some(Instant::now());
                tracing::warn!(
                    "this node takes no writes until a replica that holds better data has taken over ({}); see that a \
                     majority of the primaries is up",
                    decision.reason()
                );
            }
            match decision {
                StartDecision::Ask { replica, address, .. } => self.ask(replica, address).await,
                StartDecision::Go(why) => {
                    if alone.get_or_insert_with(Instant::now).elapsed() >= self.guard.limit {
                        return why;
                    }
                }
                StartDecision::Wait(_) | StartDecision::GoHeldBack(_) => alone = None,
            }
            sleep(OFTEN).await;
        }
    }

    fn former(disk: &OnDisk) -> Option<Former> {
        match &disk.nodes_conf {
            NodesConf::Nodes(entries) => Former::of(entries),
            _ => None,
        }
    }

    async fn round(&mut self) -> StartDecision {
        let heard = match &self.former {
            // Nobody copied it: nobody needs to be asked.
            Some(former) if former.slots.is_empty() => Vec::new(),
            _ => self.hear().await,
        };
        let asked: Vec<_> = self.asked.iter().map(|(replica, at)| (*replica, at.elapsed())).collect();
        let attempts = Attempts {
            waited: self.started.elapsed(),
            limit: self.guard.limit,
            asked: &asked,
            runs: self.runs,
            answers_for: self.answering_since.map_or(Duration::ZERO, |since| since.elapsed()),
        };
        // What was looked at when all this began has grown older since.
        let own = self.data.clone().map(|data| DataFile { age: data.age.map(|age| age + attempts.waited), ..data });
        match &self.former {
            Some(former) => decide(former, own.as_ref(), &heard, &attempts),
            None => decide_blank(self.guard.own, &heard, &attempts),
        }
    }

    async fn hear(&mut self) -> Vec<Heard> {
        self.ask_dns().await;
        let known = self.former.iter().flat_map(|former| former.replicas.iter().chain(&former.others));
        let known = known.filter_map(|known| known.endpoint).map(|at| SocketAddr::new(at.ip, at.port));
        let found = self.found.iter().flat_map(|found| found.candidates.iter().map(|candidate| candidate.address));
        let found: BTreeSet<_> = found.collect();
        let all = known.chain(found.iter().copied());
        let addresses: BTreeSet<_> = all.filter(|address| *address != self.guard.own).collect();
        let candidates: Vec<_> = addresses.into_iter().map(|address| Candidate { pod: None, address }).collect();
        let peers = self.fleet.observe(&candidates).await;
        let copies = |report: &NodeReport| match &self.former {
            Some(former) => former.is_copied_by(report),
            None => is_address_copied_by(self.guard.own, report),
        };
        let answers = peers.iter().any(|peer| peer.answer.as_ref().is_ok_and(|report| copies(report)));
        self.answering_since = if answers { self.answering_since.or_else(|| Some(Instant::now())) } else { None };
        let heard = peers.into_iter().map(|peer| Heard {
            address: peer.address,
            said: match peer.answer {
                Ok(report) => Said::Report(report),
                Err(Silence::Refused) => Said::Absent,
                Err(silence @ (Silence::Denied(_) | Silence::Untrusted(_))) if found.contains(&peer.address) => {
                    Said::Locked(silence)
                }
                Err(silence) => Said::Silent(silence),
            },
        });
        heard.collect()
    }

    /// A node with a past knows whom to ask; a new one only learns it from DNS, and waits for its first answer.
    async fn ask_dns(&mut self) {
        let Some(discovery) = &self.discovery else {
            return;
        };
        if self.asking.is_empty() && self.asked_dns.is_none_or(|at| at.elapsed() >= DNS_OFTEN) {
            let discovery = discovery.clone();
            self.asked_dns = Some(Instant::now());
            self.asking.spawn(async move { discovery.round().await });
        }
        let first = self.former.is_none() && self.found.is_none();
        let patience = if first { self.guard.limit.saturating_sub(self.started.elapsed()) } else { Duration::ZERO };
        if let Ok(Some(Ok(found))) = timeout(patience, self.asking.join_next()).await {
            self.found = Some(found);
        }
    }

    /// Over a connection that was just asked who is there.
    async fn ask(&mut self, replica: NodeId, address: SocketAddr) {
        let mut server = Server::at(address, self.guard.credentials.clone(), true);
        self.asked.push((replica, Instant::now()));
        let outcome = match server.report().await {
            Ok(report) if report.id() == Some(replica) => server.order(Order::TakeOverFromDead).await,
            Ok(_) => Outcome::Failed("another node answers there".to_owned()),
            Err(silence) => Outcome::Failed(format!("it {silence}")),
        };
        match outcome {
            Outcome::Done => tracing::info!("{} at {address} is told to take over", replica.short()),
            Outcome::Moot(why) | Outcome::Failed(why) | Outcome::Unanswered(why) | Outcome::Forbidden(why) => {
                tracing::warn!("{} at {address} is not told to take over: {why}", replica.short());
            }
        }
    }
}
