//! What a probe says, given what the server said: three questions, and three answers that must not be mixed up.
//!
//! A startup probe that fails too early and a liveness probe that fails at all kill a database; a readiness probe that
//! passes too early lets a rolling update take the next pod while this one is no substitute for it yet.

mod life;
mod reconciliation;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::node::Role;
use super::observation::Silence;
use super::server::{Loading, ServerReport};

pub use life::Life;
pub use reconciliation::{Phase, Reconciliation};

/// What the kubelet asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// Has it come up, or is it on its way?
    Startup,
    /// Is it to be killed?
    Liveness,
    /// Can it do its part?
    Readiness,
}

/// The answer to a probe; as JSON, `{"pass":true,"reason":"…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether the probe passes.
    pub pass: bool,
    /// Why, in one line.
    pub reason: String,
}

/// What one server said, or why it said nothing.
pub type Answer = Result<ServerReport, Silence>;

/// What is remembered from question to question of a server that loads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    last: Option<Step>,
}

/// The last time that there were more bytes than before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    run_id: String,
    done: u64,
    at: Duration,
}

/// So long may a server that loads take for the next byte.
pub const STALL: Duration = Duration::from_secs(60);

/// The startup probe: passes as soon as the server answers at all, also while it loads, unless it has got no further
/// for [`STALL`]; zero where nobody remembers.
pub fn startup(answer: &Answer, stalled: Duration) -> Verdict {
    match answer {
        Ok(ServerReport { loading: Some(loading), .. }) if stalled >= STALL => Verdict::fail(format!(
            "the server is loading its data and has got no further for {} s: {}",
            stalled.as_secs(),
            progress(loading)
        )),
        Ok(ServerReport { loading: Some(loading), .. }) => {
            Verdict::pass(format!("the server is loading its data: {}", progress(loading)))
        }
        Ok(_) => liveness(None),
        Err(silence) => liveness(Some(silence)),
    }
}

/// The liveness probe: passes when the event loop answers, whatever it says. Nobody is killed for what others do, for
/// being busy or for not knowing us. `silence` is why there was no report, if there was none.
pub fn liveness(silence: Option<&Silence>) -> Verdict {
    match silence {
        None => Verdict::pass("the server answers"),
        Some(silence @ (Silence::Refused | Silence::Unreachable(_))) => Verdict::fail(format!("the server {silence}")),
        Some(silence) => Verdict::pass(format!("the server answers, and {silence}")),
    }
}

/// The readiness probe. `latched` says that this life of the server was ready before: from then on it is not held to
/// what others do.
pub fn readiness(answer: &Answer, in_cluster: bool, latched: bool) -> Verdict {
    let report = match answer {
        Ok(report) => report,
        Err(Silence::Denied(why)) => {
            return Verdict::fail(format!(
                "the server does not let us in: {why}; check --username, --password-file and VALKEY_PASSWORD"
            ));
        }
        Err(silence) => return Verdict::fail(format!("the server {silence}")),
    };
    match unready_by_itself(report).or_else(|| (!latched).then(|| unready_yet(report, in_cluster)).flatten()) {
        Some(why) => Verdict::fail(why),
        None if latched => Verdict::pass("the server is ready"),
        None => Verdict::pass("the server is ready: loaded, and in step with the others"),
    }
}

/// What takes a server out at any time.
fn unready_by_itself(report: &ServerReport) -> Option<String> {
    if let Some(loading) = &report.loading {
        return Some(format!("the server is loading its data: {}", progress(loading)));
    }
    if report.leaving {
        return Some("the node is leaving: cluster-replica-no-failover is set, as a drain does it".to_owned());
    }
    let syncing = report.replication.link.as_ref().is_some_and(|link| link.syncing);
    syncing.then(|| "the replica is receiving a full copy of its primary's data".to_owned())
}

/// What holds a server back that has not been ready yet: were it let in, a rolling update would take the next pod.
fn unready_yet(report: &ServerReport, in_cluster: bool) -> Option<String> {
    let link_is_up = report.replication.link.as_ref().map(|link| link.up);
    let down = || Some("the replica's link to its primary is not up yet".to_owned());
    if link_is_up == Some(false) {
        return down();
    }
    if !in_cluster {
        return None;
    }
    let Some(cluster) = &report.cluster else {
        return Some("the node does not show its view of the cluster".to_owned());
    };
    let myself = cluster.view.myself();
    if myself.slots.is_empty() && cluster.view.others().next().is_none() {
        return Some(
            "the node is blank: it knows no other node and has no slots; `run` joins it to a cluster that stands, and \
                     `valkeeper bootstrap` forms one"
                .to_owned(),
        );
    }
    if matches!(myself.role, Role::Replica(_)) && link_is_up.is_none() {
        return down();
    }
    (!cluster.ok).then(|| "the cluster is not ok in the node's view yet (cluster_state:fail)".to_owned())
}

fn progress(loading: &Loading) -> String {
    format!("{} %, {} s to go", loading.percent(), loading.eta.as_secs())
}

impl Pace {
    /// Takes in an answer, and tells for how long loading has got no further.
    pub fn on(&mut self, now: Duration, answer: &Answer) -> Duration {
        let Ok(report) = answer else {
            // A server that says nothing is not seen to get further.
            return Duration::ZERO;
        };
        let Some(loading) = &report.loading else {
            self.last = None;
            return Duration::ZERO;
        };
        match &self.last {
            Some(step) if step.run_id == report.run_id && step.done == loading.done => now.saturating_sub(step.at),
            _ => {
                self.last = Some(Step { run_id: report.run_id.clone(), done: loading.done, at: now });
                Duration::ZERO
            }
        }
    }
}

impl Verdict {
    /// It passes.
    pub fn pass(reason: impl Into<String>) -> Self {
        Self { pass: true, reason: reason.into() }
    }

    /// It fails.
    pub fn fail(reason: impl Into<String>) -> Self {
        Self { pass: false, reason: reason.into() }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the server's words are.
        f.write_str(&self.reason.replace(['\r', '\n'], " "))
    }
}
