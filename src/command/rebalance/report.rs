//! What was done, for people and programs.

use serde::Serialize;

use super::super::render;
use super::foretell::milliseconds;
use super::{Meter, Run};
use crate::cli::Output;
use crate::exit::Failure;
use crate::topology::identity::ClusterId;
use crate::topology::membership::Membership;
use crate::topology::observation::Observation;
use crate::topology::rebalance::Goal;

/// The JSON of `rebalance -o json` and `evacuate -o json`. Fields are only ever added.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Version of this schema.
    schema: u32,
    slots_moved: u64,
    keys_moved: u64,
    took_ms: u64,
    keys_per_second: u64,
    /// How many slots an earlier run had left half-way.
    slots_resumed: usize,
    /// The longest MIGRATE but for those of big keys, and what waited before it; 0 where all slots were moved whole.
    longest_batch_ms: u64,
    big_keys: Vec<BigJson>,
    handed_over: Vec<HandedOver>,
    primaries: Vec<PrimaryJson>,
    /// Pods that can be taken away now; only of `evacuate`.
    removable: Vec<String>,
}

#[derive(Debug, Serialize)]
struct BigJson {
    key: String,
    slot: u16,
    primary: String,
    bytes: u64,
    took_ms: u64,
}

#[derive(Debug, Serialize)]
struct HandedOver {
    from: String,
    to: String,
}

#[derive(Debug, Serialize)]
struct PrimaryJson {
    node: String,
    id: String,
    slots: usize,
    keys: u64,
}

impl Report {
    pub(super) async fn of(
        observation: &Observation,
        cluster: &ClusterId,
        goal: &Goal,
        run: &Run<'_>,
        meter: &Meter,
    ) -> Self {
        let membership = Membership::of(observation, cluster);
        let primaries = membership.members.iter().filter(|member| member.report.myself().role.is_primary());
        let primaries = primaries.map(|member| PrimaryJson {
            node: member.label().to_string(),
            id: member.id().to_string(),
            slots: member.report.myself().slot_set().len(),
            keys: member.report.keys,
        });
        let removable = match goal {
            Goal::Even(_) => Vec::new(),
            Goal::Evacuate { pods, .. } => pods.clone(),
        };
        Self {
            schema: 1,
            slots_moved: meter.slots(),
            keys_moved: meter.keys(),
            took_ms: milliseconds(meter.took()),
            keys_per_second: meter.rate(),
            slots_resumed: run.resumed,
            longest_batch_ms: milliseconds(meter.longest()),
            big_keys: meter.big().await.into_iter().map(BigJson::from).collect(),
            handed_over: run.handed_over.iter().cloned().map(|(from, to)| HandedOver { from, to }).collect(),
            primaries: primaries.collect(),
            removable,
        }
    }

    pub(super) fn print(&self, output: Output) -> Result<String, Failure> {
        if output == Output::Json {
            return render::json(self);
        }
        let mut text = match self.slots_moved {
            0 => "no slot had to be moved\n".to_owned(),
            slots => format!(
                "{slots} slots with {} keys moved in {:.1} s, {} keys/s\n",
                self.keys_moved,
                self.took_ms as f64 / 1e3,
                self.keys_per_second
            ),
        };
        for HandedOver { from, to } in &self.handed_over {
            text.push_str(&format!("{from} handed over to {to}\n"));
        }
        let primaries = self.primaries.iter();
        let primaries = primaries.map(|one| [one.node.clone(), one.slots.to_string(), one.keys.to_string()]);
        text.push_str(&render::table(["PRIMARY", "SLOTS", "KEYS"], primaries));
        if !self.big_keys.is_empty() {
            text.push_str("\nmoved alone, and blocking their primary for\n");
            let keys = self.big_keys.iter().map(|key| {
                [key.key.clone(), key.primary.clone(), render::bytes(key.bytes), format!("{} ms", key.took_ms)]
            });
            text.push_str(&render::table(["KEY", "PRIMARY", "SIZE", "TIME"], keys));
        }
        if !self.removable.is_empty() {
            text.push_str(&format!("can be removed now: {}\n", self.removable.join(", ")));
        }
        Ok(text)
    }
}

impl From<super::meter::BigKey> for BigJson {
    fn from(key: super::meter::BigKey) -> Self {
        Self {
            key: key.name,
            slot: key.slot.number(),
            primary: key.from,
            bytes: key.bytes,
            took_ms: milliseconds(key.took),
        }
    }
}
