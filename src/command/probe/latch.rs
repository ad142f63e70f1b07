//! That a server was ready before, in this life of its: kept in memory, and beside its data for the next probe process.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::files;

const FILE: &str = "valkeeper-ready";

/// Remembers the life, by its run id, that was ready once. A server that is started again has another.
#[derive(Debug, Default)]
pub struct Latch {
    held: Option<String>,
}

impl Latch {
    /// Whether this life was ready before, as we or another process saw it.
    pub fn holds(&mut self, run_id: &str, dir: Option<&Path>) -> bool {
        if run_id.is_empty() {
            return false;
        }
        if self.held.as_deref() == Some(run_id) {
            return true;
        }
        let noted = dir.and_then(|dir| fs::read_to_string(dir.join(FILE)).ok());
        let holds = noted.is_some_and(|noted| noted.trim_end() == run_id);
        if holds {
            self.held = Some(run_id.to_owned());
        }
        holds
    }

    /// This life is ready now. Where that cannot be noted, as on a full disk, every probe process is as strict as the
    /// first.
    pub fn close(&mut self, run_id: &str, dir: Option<&Path>) {
        self.held = Some(run_id.to_owned());
        let noted = match dir {
            Some(dir) => note(&dir.join(FILE), run_id),
            None => Err(anyhow::anyhow!("the server does not tell its directory: --data-dir does")),
        };
        if let Err(error) = noted {
            tracing::debug!("probes by command stay strict: {error:#}");
        }
    }
}

fn note(path: &Path, run_id: &str) -> anyhow::Result<()> {
    files::replace(path, &format!("{run_id}\n"))
        .with_context(|| format!("cannot note in {} that the server was ready", path.display()))
}
