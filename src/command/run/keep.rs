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
use crate::topology::decision::{Decision, Stage};
use crate::topology::desired::{DesiredTopology, Policy, Shape};
use crate::topology::identity::{ClusterId, Site};
use crate::topology::membership::Membership;
use crate::topology::node::NodeEntry;
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

/// What is to be kept.
pub(super) struct Wanted {
    /// Whose nodes are ours.
    pub(super) cluster: ClusterId,
    /// How many, and how large, the shards are; none for as they stand.
    pub(super) shape: Option<Shape>,
}

/// What is known of our own server here.
pub(super) struct Own {
    /// Where it answers us.
    pub(super) address: SocketAddr,
    /// Its pod's ordinal.
    pub(super) ordinal: Option<u32>,
    /// Where it runs.
    pub(super) site: Site,
}

/// Beside one server.
pub(super) struct Keeper<'p> {
    cluster: &'p ClusterId,
    rounds: Rounds<'p>,
    observer: Observer,
    own: Own,
    last: watch::Receiver<Option<ServerReport>>,
    progress: &'p Progress,
    tally: &'p Tally,
    pace: Pace,
    /// How long to wait while the cluster is as it is to be.
    quiet: Duration,
    /// What is for us to form where no cluster stands.
    forms: Option<DesiredTopology>,
    before: Option<Decision>,
    /// Since when it has been decided.
    since: Instant,
    /// Whether our server saw something new while we waited.
    woken: bool,
    /// What the log said last, and when.
    said: Option<(Reconciliation, Instant)>,
}

impl Wanted {
    /// How many nodes; zero where that is not said.
    pub(super) fn members(&self) -> usize {
        self.shape.map_or(0, Shape::members)
    }

    /// What is formed where nothing stands; none where that is not said.
    pub(super) fn to_form(&self) -> Option<DesiredTopology> {
        Some(DesiredTopology { cluster: self.cluster.clone(), shape: self.shape? })
    }
}

impl<'p> Keeper<'p> {
    /// Beside this server.
    pub(super) fn new(
        wanted: &'p Wanted,
        observer: Observer,
        own: Own,
        last: &LastReport,
        progress: &'p Progress,
        tally: &'p Tally,
    ) -> Self {
        // Everybody asks everybody: in a large cluster that is much work, and is done less often.
        let factor = wanted.members().max(1).div_ceil(32).try_into().unwrap_or(u32::MAX);
        let tempo = Tempo {
            shortest: Duration::from_millis(200).saturating_mul(factor),
            longest: Duration::from_secs(5).saturating_mul(factor),
            after_long_round: Duration::from_secs(1).saturating_mul(factor.saturating_mul(factor)),
        };
        // Not all in the same second.
        let apart = Duration::from_secs(2) * (own.ordinal.unwrap_or_default() % 8);
        Self {
            cluster: &wanted.cluster,
            rounds: Rounds::new(&wanted.cluster, wanted.shape, Policy::KEEP),
            observer,
            own,
            last: last.subscribe(),
            progress,
            tally,
            pace: Pace::new(tempo),
            quiet: (Duration::from_secs(15) + apart).saturating_mul(factor),
            forms: None,
            before: None,
            since: Instant::now(),
            woken: false,
            said: None,
        }
    }

    /// The same that forms a cluster, where one is named.
    pub(super) fn forming(self, forms: Option<DesiredTopology>) -> Self {
        Self { forms, ..self }
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            let seen = self.own_view().await;
            let round = self.rounds.look(&mut self.observer, Instant::now() + ROUND).await;
            let stands = stands(&round.observation, self.cluster);
            if self.before.as_ref() != Some(&round.decision) {
                self.since = Instant::now();
            }
            let progress = match &round.decision {
                _ if !stands && self.forms.is_none() => Reconciliation::unformed(),
                Decision::Act(stage) if self.since.elapsed() >= LONG => Reconciliation::overdue(stage),
                decision => Reconciliation::of(decision, round.refusal().is_some()),
            };
            self.tell(&progress, round.stood);
            self.count(&progress);
            self.progress.send_replace(Some(progress));
            if !stands && self.form().await {
                continue;
            }
            let part =
                round.stage().filter(|_| stands).and_then(|stage| self.own_part(stage, &round.observation, &seen));
            let acted = match part {
                Some(part) => self.act(part).await,
                None => false,
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

    /// Forms the cluster as `bootstrap` does, where that is for us, on whatever node it takes; says whether it stands then.
    /// Ends early when our node is to be left as it is.
    async fn form(&mut self) -> bool {
        let Some(desired) = &self.forms else { return false };
        let mut last = self.last.clone();
        let leaving = async {
            if last.wait_for(|report| report.as_ref().is_some_and(|report| report.leaving)).await.is_err() {
                pending::<()>().await;
            }
        };
        match bootstrap::form(&mut self.observer, desired, Policy::FORM, FORMING, leaving).await {
            Ok(formed) => tracing::info!("the cluster stands after {:.2} s", formed.took.as_secs_f64()),
            Err(failure) => {
                self.rounds.warn_once(format!("no cluster stands yet: {failure}"));
                return false;
            }
        }
        true
    }

    /// What of a stage is for us to do: that on the node which answers where our server does, and only while it is the one
    /// that our server says it is. Who a node is counts, as others may reach it at an address that we do not know.
    fn own_part(&self, stage: &Stage, observation: &Observation, seen: &ClusterView) -> Option<Stage> {
        let own = seen.view.myself().id;
        let mut reports = observation.reports();
        reports.find(|(peer, report)| peer.address == self.own.address && report.id() == own)?;
        stage.part_of(own, self.own.address, &self.own.site)
    }

    /// Does our own part; says whether there was anything to do.
    async fn act(&mut self, part: Stage) -> bool {
        if self.last.borrow().as_ref().is_none_or(|report| report.leaving) {
            return false;
        }
        self.rounds.tell(&Decision::Act(part.clone()));
        self.tally.rounds_acted.add_one();
        // What it leads to is news, unless it is done over and over.
        if self.since.elapsed() < LONG {
            self.said = None;
        }
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
fn stands(observation: &Observation, cluster: &ClusterId) -> bool {
    let membership = Membership::of(observation, cluster);
    let mut known = membership.members.iter().flat_map(|member| member.report.view.entries());
    known.any(NodeEntry::owns_slots)
}

/// Whether somebody has slots in a node's view.
fn has_slots(view: &ClusterView) -> bool {
    view.view.entries().iter().any(NodeEntry::owns_slots)
}
