//! What the pods of one cluster see, and what it makes them decide: each report is written when its server has changed,
//! and who sees the same decides the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use valkeeper::topology::{Decision, DesiredTopology, Observation, Peer, Policy, Shape, Silence};

use super::bootstrap::PlanFn;
use super::{Id, PORT, Shown, Sim};

/// How many decisions are remembered.
const REMEMBERED: usize = 256;

/// Sees and decides for everybody.
pub struct Lookout {
    plan: PlanFn,
    /// One for each name in DNS.
    cards: Vec<Card>,
    decisions: BTreeMap<u64, Arc<Decision>>,
    glances: BTreeMap<(u8, u16, u8), Sight>,
    /// For how long a glance serves others, too: nobody looks at the very moment it decides for.
    glance: Duration,
    /// How many decisions were thought out.
    pub thoughts: u64,
}

/// What somebody decided, on what was seen when.
#[derive(Clone)]
pub struct Sight {
    /// When everybody was asked.
    pub seen: Duration,
    /// What comes next.
    pub decision: Arc<Decision>,
}

/// A name in DNS, and what answered there last.
#[derive(Default)]
struct Card {
    written: Option<Written>,
    peer: Option<Peer>,
}

/// What a card was written from: the address, and the process that answered, how often it had changed by then.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Written {
    address: IpAddr,
    process: Option<(usize, u32, Id, u64)>,
}

/// Who looks.
#[derive(Clone, Copy)]
pub struct Viewer {
    /// The pod it stands in: a partition hides the other side.
    pub host: usize,
    /// The probability that an answer is lost on the way.
    pub loss: f64,
    /// Those of one group lose the same answers at the same time.
    pub group: u8,
}

impl Lookout {
    /// Sees nobody yet. A glance serves everybody of the same mind for so long.
    pub fn new(plan: PlanFn, glance: Duration) -> Self {
        let (cards, decisions, glances) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { plan, cards, decisions, glances, glance, thoughts: 0 }
    }

    /// What somebody sees and decides now.
    pub fn look(&mut self, sim: &mut Sim, viewer: Viewer, desired: &DesiredTopology) -> Sight {
        let side = sim.hosts[viewer.host].side;
        let key = (side, desired.shape.shards.get(), viewer.group);
        if let Some(sight) = self.glances.get(&key).filter(|sight| sim.now - sight.seen < self.glance) {
            return sight.clone();
        }
        let (observation, signature) = self.observe(sim, side, viewer.loss, desired.shape);
        if self.decisions.len() > REMEMBERED {
            self.decisions.clear();
        }
        let decision = match self.decisions.get(&signature) {
            Some(decision) => Arc::clone(decision),
            None => {
                self.thoughts += 1;
                let decision = Arc::new((self.plan)(&observation, desired, &Policy::KEEP));
                self.decisions.insert(signature, Arc::clone(&decision));
                decision
            }
        };
        self.take_back(sim, observation);
        let sight = Sight { seen: sim.now, decision };
        self.glances.insert(key, sight.clone());
        sight
    }

    /// Lends the cards to an observation; beside it, what tells it from any other.
    fn observe(&mut self, sim: &mut Sim, side: u8, loss: f64, shape: Shape) -> (Observation, u64) {
        let mut hasher = DefaultHasher::new();
        (shape.shards, shape.replicas).hash(&mut hasher);
        let mut observation = Observation::default();
        self.cards.resize_with(sim.zone.len(), Card::default);
        for (card, place) in self.cards.iter_mut().zip(0..) {
            let (host, shown) = sim.zone[place];
            let pod = sim.hosts[host].pod.clone();
            let address = match shown {
                Shown::Current => sim.hosts[host].address,
                Shown::Other(address) => address,
                Shown::Nothing => {
                    (host, false).hash(&mut hasher);
                    observation.unresolved.extend(pod);
                    continue;
                }
            };
            let there = sim.answering(address);
            let is_heard = there.is_none_or(|at| sim.hosts[at].side == side && (loss == 0.0 || sim.chance() >= loss));
            let process = there.map(|at| {
                let server = &sim.hosts[at].server;
                (at, sim.hosts[at].generation, server.id, server.changes)
            });
            let written = Written { address, process };
            (host, is_heard).hash(&mut hasher);
            let address = SocketAddr::new(address, PORT);
            if !is_heard {
                written.address.hash(&mut hasher);
                let answer = Err(Silence::Unreachable("timed out".to_owned()));
                observation.peers.push(Peer { pod, address, answer });
                continue;
            }
            written.hash(&mut hasher);
            if card.written != Some(written) {
                let answer = there.map_or(Err(Silence::Refused), |at| Ok(Box::new(sim.report(at))));
                (card.written, card.peer) = (Some(written), Some(Peer { pod, address, answer }));
            }
            observation.peers.extend(card.peer.take());
        }
        (observation, hasher.finish())
    }

    fn take_back(&mut self, sim: &Sim, observation: Observation) {
        let mut peers = observation.peers.into_iter().peekable();
        for (card, (host, _)) in self.cards.iter_mut().zip(&sim.zone) {
            let pod = &sim.hosts[*host].pod;
            if let Some(peer) = peers.next_if(|peer| peer.pod == *pod) {
                match peer.answer {
                    Err(Silence::Unreachable(_)) => {}
                    _ => card.peer = Some(peer),
                }
            }
        }
    }

    /// An observation of everybody on a side, to be looked at closely.
    pub fn show(&mut self, sim: &mut Sim, side: u8, shape: Shape) -> Observation {
        let (observation, _) = self.observe(sim, side, 0.0, shape);
        self.cards.clear();
        observation
    }
}
