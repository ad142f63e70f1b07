//! What stands when a history begins.

use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use fastrand::Rng;
use valkeeper::topology::{ClusterId, DesiredTopology, PodName, Policy, Settings, Shape};

use crate::sim::{Pieces, Shown, Sim};

/// What stands at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing: blank servers.
    Blank,
    /// The cluster as it is to be, with keys.
    Formed,
    /// Blank servers, and somebody else's cluster beside them.
    Beside,
    /// Two clusters with slots.
    TwoIslands,
    /// Blank servers, one of which holds keys.
    StrayKeys,
}

/// The beginning of a history.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What stands.
    pub kind: Kind,
    /// What is wanted.
    pub desired: DesiredTopology,
    /// How.
    pub policy: Policy,
    /// Our pods, by their place among the hosts.
    pub pods: Vec<usize>,
    /// Somebody else's.
    pub foreign: Vec<usize>,
    /// The cluster that each pod belongs to from the beginning, 0 where to none.
    pub islands: Vec<u8>,
    /// The pod whose name leads to somebody else's node for ever.
    pub hijacked: Option<usize>,
}

const OURS: &str = "valkey.test";

impl Setting {
    /// Draws the beginning of a history and builds it.
    pub fn draw(random: &mut Rng) -> (Self, Sim) {
        let kind = match random.u8(..100) {
            0..=64 => Kind::Blank,
            65..=76 => Kind::Formed,
            77..=89 => Kind::Beside,
            90..=94 => Kind::TwoIslands,
            _ => Kind::StrayKeys,
        };
        let shape = draw_shape(random, kind);
        let shards = shape.shards.get();
        let desired = DesiredTopology { cluster: ClusterId::new(OURS).expect("a cluster id"), shape };
        let policy = Policy { hurry: random.u8(..5) > 0, give_up: None };
        let mut sim = Sim::new(random.u64(..), Pieces::of(&[shards, shards.div_ceil(2), 3, 1]));
        let file = Settings {
            node_timeout: Duration::from_millis(random.choice([15_000, 15_000, 5_000, 2_000, 300]).unwrap_or(15_000)),
            min_replicas_to_write: u32::from(shape.replicas > 0 && random.u8(..4) == 0),
            replicas_max_lag: Duration::from_secs(random.choice([10, 10, 0]).unwrap_or(10)),
            sync_delay: Duration::from_secs(random.choice([5, 0]).unwrap_or(5)),
        };
        let named = random.u8(..4) > 0;
        let pod = |ordinal: usize| PodName::new(&format!("valkey-{ordinal}")).filter(|_| named);
        let pods: Vec<usize> = (0..shape.members()).map(|ordinal| sim.add(pod(ordinal), file, false)).collect();
        let foreign: Vec<usize> = match kind {
            Kind::Beside => (0..3).map(|_| sim.add(None, file, true)).collect(),
            _ => Vec::new(),
        };
        sim.zone = pods.iter().map(|pod| (*pod, Shown::Nothing)).collect();
        let mut islands = vec![0; pods.len()];
        let marks = random.bool();
        match kind {
            Kind::Blank => {}
            Kind::Formed => sim.form(&pods, shards, OURS, marks),
            Kind::Beside => sim.form(&foreign, 3, "other.test", marks),
            Kind::TwoIslands => {
                let (one, other) = pods.split_at(pods.len().div_ceil(2));
                for (number, island) in (1..).zip([one, other]) {
                    let most = u16::try_from(island.len()).unwrap_or(u16::MAX);
                    sim.form(island, shards.div_ceil(2).min(most), OURS, true);
                    island.iter().for_each(|pod| islands[*pod] = number);
                }
            }
            Kind::StrayKeys => sim.hosts[random.usize(..pods.len())].server.keys[0] = 7,
        }
        let victim = random.choice(&pods).copied();
        let hijacked = victim.filter(|_| kind == Kind::Beside && random.u8(..3) == 0);
        if let (Some(pod), Some(stranger)) = (hijacked, foreign.first()) {
            sim.zone[pod].1 = Shown::Other(sim.hosts[*stranger].address);
        }
        (Self { kind, desired, policy, pods, foreign, islands, hijacked }, sim)
    }

    /// Whether a refusal is right now that faults have stopped.
    pub fn reason_to_refuse(&self, sim: &Sim) -> bool {
        let stray = |at: &usize| {
            let server = &sim.hosts[*at].server;
            server.follows.is_none() && server.key_count() > 0 && server.own_slots() == 0
        };
        self.hijacked.is_some() || self.kind == Kind::TwoIslands || self.pods.iter().any(stray)
    }
}

fn draw_shape(random: &mut Rng, kind: Kind) -> Shape {
    let (shards, replicas) = match (kind, random.u8(..20)) {
        (Kind::TwoIslands, _) => (random.u16(2..=3), random.u16(0..=1)),
        (_, 0) => (random.u16(4..=6), 1),
        (_, 1) => (4, 2),
        _ => (random.u16(1..=3), random.u16(0..=1)),
    };
    Shape { shards: NonZeroU16::new(shards).unwrap_or(NonZeroU16::MIN), replicas }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hurry = if self.policy.hurry { "in a hurry" } else { "not in a hurry" };
        write!(f, "{:?}, {}, {hurry}", self.kind, self.desired.shape)?;
        match self.hijacked {
            Some(pod) => write!(f, ", DNS leads to somebody else instead of pod {pod} for ever"),
            None => Ok(()),
        }
    }
}
