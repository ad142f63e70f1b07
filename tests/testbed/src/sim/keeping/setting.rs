//! The cluster that stands when a history of keeping begins.

use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use fastrand::Rng;
use valkeeper::topology::{ClusterId, DesiredTopology, PodName, Settings, Shape};

use crate::sim::{Naming, Pieces, Shown, Sim};

/// What is to become of the cluster's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It stays.
    Steady,
    /// Shards come.
    Grows,
    /// Shards go.
    Shrinks,
    /// It stays, and all copies of some data are lost.
    Bereaved,
}

/// How many nodes a history has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// That many at most: small clusters are many, large ones are few.
    UpTo(usize),
    /// That many when it is largest, less what its shards' members do not divide.
    Exactly(usize),
}

/// The beginning of a history.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What is to become of its size.
    pub kind: Kind,
    /// What is wanted at the beginning.
    pub before: DesiredTopology,
    /// What is wanted in the end.
    pub after: DesiredTopology,
    /// Our pods, those that come later among them, by their ordinals.
    pub pods: Vec<usize>,
    /// Somebody else's.
    pub foreign: Vec<usize>,
}

const OURS: &str = "valkey.test";

impl Setting {
    /// Draws the beginning of a history of that size and builds it.
    pub fn draw(random: &mut Rng, size: Size) -> (Self, Sim) {
        let kind = match random.u8(..100) {
            0..=59 => Kind::Steady,
            60..=77 => Kind::Grows,
            78..=94 => Kind::Shrinks,
            _ => Kind::Bereaved,
        };
        let (before, after) = draw_shapes(random, kind, size);
        let shards = before.shards.get().max(after.shards.get());
        let cuts = shards * (96 / shards).clamp(1, 3);
        let mut sim = Sim::new(random.u64(..), Pieces::of(&[cuts]));
        let file = Settings {
            node_timeout: Duration::from_millis(random.choice([15_000, 5_000, 5_000, 2_000]).unwrap_or(5_000)),
            min_replicas_to_write: 0,
            replicas_max_lag: Duration::from_secs(10),
            sync_delay: Duration::from_secs(random.choice([5, 0]).unwrap_or(5)),
        };
        let count = before.members().max(after.members());
        let pods: Vec<usize> = (0..count)
            .map(|ordinal| {
                let at = sim.add(PodName::new(&format!("valkey-{ordinal}")), file, false);
                sim.hosts[at].mark = Some(Naming::Always(format!("{OURS}/valkey-{ordinal}")));
                at
            })
            .collect();
        let foreign: Vec<usize> = (0..3)
            .map(|ordinal| {
                let at = sim.add(None, file, true);
                sim.hosts[at].mark = Some(Naming::Always(format!("other.test/valkey-{ordinal}")));
                at
            })
            .collect();
        sim.form(&pods[..before.members()], before.shards.get(), OURS, true);
        sim.form(&foreign, 3, "other.test", true);
        sim.zone = pods[..before.members()].iter().map(|pod| (*pod, Shown::Current)).collect();
        let desired = |shape| DesiredTopology { cluster: ClusterId::new(OURS).expect("a cluster id"), shape };
        (Self { kind, before: desired(before), after: desired(after), pods, foreign }, sim)
    }

    /// The pods that are wanted in the end.
    pub fn wanted(&self) -> &[usize] {
        &self.pods[..self.after.shape.members()]
    }
}

fn draw_shapes(random: &mut Rng, kind: Kind, size: Size) -> (Shape, Shape) {
    let bound = match (size, random.u8(..10)) {
        (Size::UpTo(most), 0..=5) => most.min(9),
        (Size::UpTo(most), 6..=8) => most.min(30),
        (Size::UpTo(most) | Size::Exactly(most), _) => most,
    };
    let bound = u16::try_from(bound).unwrap_or(u16::MAX).max(4);
    let replicas = random.choice([0, 1, 1, 1, 1, 2, 2, 3]).unwrap_or(1).min(bound / 2 - 1);
    let most = bound / (replicas + 1);
    let shards = match size {
        Size::UpTo(_) => random.u16(most.min(3)..=most),
        Size::Exactly(_) => most,
    };
    let change = if kind == Kind::Grows || kind == Kind::Shrinks { random.u16(1..=3).min(shards - 1) } else { 0 };
    let shape = |shards| Shape { shards: NonZeroU16::new(shards).unwrap_or(NonZeroU16::MIN), replicas };
    match kind {
        Kind::Grows => (shape(shards - change), shape(shards)),
        _ => (shape(shards), shape(shards - change)),
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.before.shape)?;
        match self.kind {
            Kind::Grows | Kind::Shrinks => write!(f, ", then {}", self.after.shape),
            Kind::Steady | Kind::Bereaved => Ok(()),
        }
    }
}
