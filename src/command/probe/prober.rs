//! Asks one server what a probe wants to know.

use std::path::PathBuf;

use tokio::time::Instant;

use super::latch::Latch;
use crate::topology::observation::Silence;
use crate::topology::probe::{Answer, Pace, Probe, Verdict, liveness, readiness, startup};
use crate::valkey::Server;

/// One server, what it is asked for, and what is remembered of its answers.
#[derive(Debug)]
pub struct Prober {
    server: Server,
    in_cluster: bool,
    /// Where the data is, when the server is not to be believed.
    data_dir: Option<PathBuf>,
    latch: Latch,
    pace: Pace,
    started: Instant,
    /// Whether the last answer came, so that its connection is used again.
    is_connected: bool,
}

impl Prober {
    /// Nothing is asked yet.
    pub fn new(server: Server, in_cluster: bool, data_dir: Option<PathBuf>) -> Self {
        Self {
            server,
            in_cluster,
            data_dir,
            latch: Latch::default(),
            pace: Pace::default(),
            started: Instant::now(),
            is_connected: false,
        }
    }

    /// Asks once. May be dropped while it waits.
    pub async fn ask(&mut self, probe: Probe) -> Verdict {
        match probe {
            Probe::Liveness => {
                let silence = self.pinged().await.err();
                liveness(silence.as_ref())
            }
            Probe::Startup => {
                let answer = self.report().await;
                if matches!(answer, Err(Silence::Unreachable(_))) {
                    // Who lets in no client more hangs up, and may do so before it is heard why.
                    return liveness(self.pinged().await.err().as_ref());
                }
                let stalled = self.pace.on(self.started.elapsed(), &answer);
                startup(&answer, stalled)
            }
            Probe::Readiness => {
                let answer = self.report().await;
                self.judge(&answer)
            }
        }
    }

    fn judge(&mut self, answer: &Answer) -> Verdict {
        let Ok(report) = answer else {
            return readiness(answer, self.in_cluster, false);
        };
        let dir = self.data_dir.as_deref().or_else(|| self.server.known_directory());
        let latched = self.latch.holds(&report.run_id, dir);
        let verdict = readiness(answer, self.in_cluster, latched);
        if verdict.pass && !latched {
            self.latch.close(&report.run_id, dir);
        }
        verdict
    }

    /// A connection that was kept may have been closed for idleness or by a restart, which says nothing of the server:
    /// then it is asked over a new one.
    async fn report(&mut self) -> Answer {
        let was_connected = std::mem::take(&mut self.is_connected);
        let answer = match self.server.report().await {
            Err(Silence::Unreachable(_)) if was_connected => self.server.report().await,
            answer => answer,
        };
        self.is_connected = answer.is_ok();
        answer
    }

    async fn pinged(&mut self) -> Result<(), Silence> {
        let was_connected = std::mem::take(&mut self.is_connected);
        match self.server.answers().await {
            Err(Silence::Unreachable(_)) if was_connected => self.server.answers().await,
            answer => {
                self.is_connected = was_connected && answer.is_ok();
                answer
            }
        }
    }
}
