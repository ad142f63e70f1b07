//! What a person at a terminal sees while the cluster is formed; on anything else than a terminal there is the log.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::topology::decision::Decision;
use crate::topology::desired::DesiredTopology;
use crate::topology::membership::Membership;
use crate::topology::observation::Observation;

/// A line that is written over and over.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(members: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(members.try_into().unwrap_or(u64::MAX));
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:20}] {pos}/{len} nodes  {wide_msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar }
    }

    /// Shows who is there and what comes next; false where there is no terminal to show it on.
    pub(super) fn show(&self, observation: &Observation, desired: &DesiredTopology, decision: &Decision) -> bool {
        let Some(bar) = &self.bar else {
            return false;
        };
        let present = Membership::of(observation, &desired.cluster).members.len();
        bar.set_position(present.try_into().unwrap_or(u64::MAX));
        bar.set_message(decision.to_string());
        true
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
