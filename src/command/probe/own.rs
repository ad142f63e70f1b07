//! The health of a supervised server, as its supervisor and itself tell it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use super::prober::Prober;
use crate::admin::Health;
use crate::topology::probe::{Life, Probe, Reconciliation, Verdict};
use crate::valkey::Server;

/// How long the server may take to answer; the kubelet gives up after a second as well, if it is not told otherwise.
const PATIENCE: Duration = Duration::from_secs(1);

/// Our own server, asked over one connection at a time, however many ask us.
#[derive(Debug)]
pub struct OwnHealth {
    told: Told,
    patience: Duration,
    asking: Mutex<Asking>,
}

/// What the supervisor tells of the server.
#[derive(Clone, Debug)]
pub struct Told {
    /// How far it is.
    pub life: watch::Receiver<Life>,
    /// How far keeping its cluster in shape is; none where that is not done.
    pub reconciliation: watch::Receiver<Option<Reconciliation>>,
}

#[derive(Debug)]
struct Asking {
    prober: Prober,
    /// The newest verdicts, and when they were asked for.
    last: BTreeMap<Probe, (Instant, Verdict)>,
}

impl OwnHealth {
    /// The health of this server, of which its supervisor says how far it is; it has a second for each answer.
    pub fn new(told: Told, server: Server, in_cluster: bool, data_dir: Option<PathBuf>) -> Self {
        Self::with_patience(PATIENCE, told, server, in_cluster, data_dir)
    }

    /// The same where the server may take another time to answer.
    pub fn with_patience(
        patience: Duration,
        told: Told,
        server: Server,
        in_cluster: bool,
        data_dir: Option<PathBuf>,
    ) -> Self {
        let prober = Prober::new(server.with_patience(patience), in_cluster, data_dir);
        Self { told, patience, asking: Mutex::new(Asking { prober, last: BTreeMap::new() }) }
    }

    fn known(&self, probe: Probe) -> Option<Verdict> {
        self.told.life.borrow().verdict(probe)
    }
}

impl Health for OwnHealth {
    fn patience(&self) -> Duration {
        self.patience
    }

    fn reconciliation(&self) -> Option<Reconciliation> {
        self.told.reconciliation.borrow().clone()
    }

    async fn ask(&self, probe: Probe) -> Verdict {
        if let Some(verdict) = self.known(probe) {
            return verdict;
        }
        let arrived = Instant::now();
        let question = async {
            let mut asking = self.asking.lock().await;
            // Somebody who came later was answered meanwhile: that is our answer, too.
            if let Some((asked, verdict)) = asking.last.get(&probe)
                && *asked >= arrived
            {
                return verdict.clone();
            }
            let asked = Instant::now();
            let verdict = asking.prober.ask(probe).await;
            asking.last.insert(probe, (asked, verdict.clone()));
            verdict
        };
        let late = |_| Verdict::fail(format!("the server has not answered within {:?}", self.patience));
        let verdict = timeout(self.patience, question).await.unwrap_or_else(late);
        // A drain that began meanwhile counts.
        self.known(probe).unwrap_or(verdict)
    }
}
