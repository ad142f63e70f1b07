//! Keeps the cluster in its wanted shape for as long as the server runs. Every pod looks at all nodes, decides as all
//! others do, and does what concerns its own node: there is no leader, and nobody needs power over another. Only where no
//! cluster stands, the first pod may be told to form one.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::metrics::Tally;
use super::watch::LastReport;
use crate::command::bootstrap;
use crate::command::rounds::{Pace, Round, Rounds, Tempo};
use crate::observer::Observer;
use crate::topology::decision::{Action, Decision, Stage};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::membership::Membership;
use crate::topology::node::{NodeEntry, NodeId};
use crate::topology::observation::Observation;
use crate::topology::probe::{Phase, Reconciliation};
use crate::topology::server::{ClusterView, ServerReport};

/// How long one look may take.
const ROUND: Duration = Duration::from_secs(10);
/// How long something has to be waited for before it is worth a line in the log.
const LONG: Duration = Duration::from_secs(10);
/// How long it takes to form a cluster at most, before we look anew at what is there.
const FORMING: Duration = Duration::from_secs(60);
/// About the same thing there is one line in so long.
const SELDOM: Duration = Duration::from_secs(60);

/// Where it is told how far reconciliation is; none where there is nothing to reconcile.
pub(super) type Progress = watch::Sender<Option<Reconciliation>>;

/// Beside one server.
pub(super) struct Keeper<'p> {
    desired: &'p DesiredTopology,
    rounds: Rounds<'p>,
    observer: Observer,
    /// Where our own server answers.
    own: SocketAddr,
    last: watch::Receiver<Option<ServerReport>>,
    progress: &'p Progress,
    tally: &'p Tally,
    pace: Pace,
    /// How long to wait while the cluster is as it is to be.
    quiet: Duration,
    /// Whether it is for us to form the cluster where none stands.
    forms: bool,
    before: Option<Decision>,
    /// Whether our server saw something new while we waited.
    woken: bool,
    /// What the log said last, and when.
    said: Option<(Reconciliation, Instant)>,
}

impl<'p> Keeper<'p> {
    /// Beside the server at this address, which is the pod of that ordinal.
    pub(super) fn new(
        desired: &'p DesiredTopology,
        observer: Observer,
        own: SocketAddr,
        ordinal: Option<u32>,
        last: &LastReport,
        progress: &'p Progress,
        tally: &'p Tally,
    ) -> Self {
        // Everybody asks everybody: in a large cluster that is much work, and is done less often.
        let factor = desired.shape.members().div_ceil(32).try_into().unwrap_or(u32::MAX);
        let tempo = Tempo {
            shortest: Duration::from_millis(200).saturating_mul(factor),
            longest: Duration::from_secs(5).saturating_mul(factor),
            after_long_round: Duration::from_secs(1).saturating_mul(factor.saturating_mul(factor)),
        };
        // Not all in the same second.
        let apart = Duration::from_secs(2) * (ordinal.unwrap_or_default() % 8);
        Self {
            desired,
            rounds: Rounds::new(desired, Policy::KEEP),
            observer,
            own,
            last: last.subscribe(),
            progress,
            tally,
            pace: Pace::new(tempo),
            quiet: (Duration::from_secs(15) + apart).saturating_mul(factor),
            forms: false,
            before: None,
            woken: false,
            said: None,
        }
    }

    /// Whether it is for this one to form the cluster.
    pub(super) fn forming(self, forms: bool) -> Self {
        Self { forms, ..self }
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            let seen = self.own_view().await;
            let round = self.rounds.look(&mut self.observer, Instant::now() + ROUND).await;
            let stands = stands(&round.observation, self.desired);
            let progress = match stands || self.forms {
                true => Reconciliation::of(&round.decision, round.refusal().is_some()),
                false => Reconciliation::unformed(),
            };
            self.tell(&progress, round.stood);
            self.count(&progress);
            self.progress.send_replace(Some(progress));
            if !stands && self.forms && self.form().await {
                continue;
            }
            let acted = match round.stage() {
                Some(stage) if stands => self.act(stage, seen.view.myself().id).await,
                _ => false,
            };
            let is_forming = !stands || round.observation.reports().any(|(_, report)| report.is_lowered());
            self.pause(round, acted, is_forming, &seen).await;
        }
    }

    /// What our server sees, once it takes part: one that leaves is to be left as it is.
    async fn own_view(&mut self) -> ClusterView {
        loop {
            let report = self.last.borrow_and_update().clone();
            match report {
                Some(report) if report.leaving => {
                    self.progress.send_replace(Some(Reconciliation::paused("this node is marked as leaving")));
                }
                Some(ServerReport { cluster: Some(view), .. }) => return view,
                _ => {}
            }
            if self.last.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }

    /// Forms the cluster as `bootstrap` does, on whatever node it takes; says whether it stands then. Ends early when our
    /// node is to be left as it is.
    async fn form(&mut self) -> bool {
        let mut last = self.last.clone();
        let leaving = async {
            if last.wait_for(|report| report.as_ref().is_some_and(|report| report.leaving)).await.is_err() {
                pending::<()>().await;
            }
        };
        match bootstrap::form(&mut self.observer, self.desired, Policy::FORM, FORMING, leaving).await {
            Ok(formed) => tracing::info!("the cluster stands after {:.2} s", formed.took.as_secs_f64()),
            Err(failure) => {
                self.rounds.warn_once(format!("no cluster stands yet: {failure}"));
                return false;
            }
        }
        true
    }

    /// Does our own part: on the node at our address, and only while it is the one that our server says it is. Says
    /// whether there was anything to do.
    async fn act(&mut self, stage: &Stage, own: NodeId) -> bool {
        let is_ours = |action: &&Action| action.address == self.own && action.on == own;
        let actions: Vec<_> = stage.actions.iter().filter(is_ours).cloned().collect();
        let is_leaving = self.last.borrow().as_ref().is_none_or(|report| report.leaving);
        if actions.is_empty() || is_leaving {
            return false;
        }
        let part = Stage { kind: stage.kind, actions };
        self.rounds.tell(&Decision::Act(part.clone()));
        self.tally.rounds_acted.add_one();
        // What it leads to is news.
        self.said = None;
        if let Err(forbidden) = self.rounds.act(&mut self.observer, &part).await {
            self.rounds.warn_once(forbidden);
        }
        true
    }

    /// Waits until it is time to look again, or until our own server sees something else than before. While a bootstrap
    /// is at work, or is still to come, everything changes all the time, and there is nothing to be quick for.
    async fn pause(&mut self, round: Round, acted: bool, is_forming: bool, seen: &ClusterView) {
        let changed = self.woken || self.before.as_ref() != Some(&round.decision);
        let least = self.pace.least(round.took);
        let lively = self.pace.next(acted, changed, round.took);
        let most = match round.decision {
            _ if is_forming => self.pace.longest(),
            Decision::Converged(_) => self.quiet,
            _ => lively,
        };
        // A server may close connections that are not used (`timeout`), and would then pass for silent.
        if most >= Duration::from_secs(1) {
            self.observer.hang_up();
        }
        self.before = Some(round.decision);
        drop(round.observation);
        sleep(least).await;
        let is_news = |view: &ClusterView| match is_forming {
            true => has_slots(view) && !has_slots(seen),
            false => view != seen,
        };
        let news = async {
            let is_news = |report: &Option<ServerReport>| {
                report.as_ref().is_some_and(|report| report.cluster.as_ref().is_some_and(is_news))
            };
            if self.last.wait_for(is_news).await.is_err() {
                pending::<()>().await;
            }
        };
        self.woken = timeout(most.saturating_sub(least), news).await.is_ok();
    }

    fn count(&self, now: &Reconciliation) {
        self.tally.rounds.add_one();
        let is_refusal = |progress: &Reconciliation| progress.state == Phase::Refused;
        if is_refusal(now) && !self.progress.borrow().as_ref().is_some_and(is_refusal) {
            self.tally.refusals.add_one();
        }
    }

    /// One line for what people should know of: not for every step of others, nor for what passes by itself.
    fn tell(&mut self, progress: &Reconciliation, stood: Duration) {
        if progress.state == Phase::Converged {
            self.rounds.forget_warnings();
        }
        let is_worth_it = match progress.state {
            Phase::Acting | Phase::Paused => false,
            Phase::Waiting | Phase::Unformed => stood >= LONG,
            Phase::Converged | Phase::Refused => true,
        };
        let is_old = |(said, at): &(Reconciliation, Instant)| {
            said == progress || (said.state == progress.state && at.elapsed() < SELDOM)
        };
        if !is_worth_it || self.said.as_ref().is_some_and(is_old) {
            return;
        }
        let remedy = progress.remedy.as_ref().map(|remedy| format!(". What to do: {remedy}")).unwrap_or_default();
        match progress.state {
            Phase::Refused => tracing::warn!("{}{remedy}", progress.reason),
            _ => tracing::info!("{}{remedy}", progress.reason),
        }
        self.said = Some((progress.clone(), Instant::now()));
    }
}

/// Whether a cluster of ours stands: somebody has slots, in the eyes of one of us.
fn stands(observation: &Observation, desired: &DesiredTopology) -> bool {
    let membership = Membership::of(observation, &desired.cluster);
    let mut known = membership.members.iter().flat_map(|member| member.report.view.entries());
    known.any(NodeEntry::owns_slots)
}

/// Whether somebody has slots in a node's view.
fn has_slots(view: &ClusterView) -> bool {
    view.view.entries().iter().any(NodeEntry::owns_slots)
}
