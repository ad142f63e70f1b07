//! What `/metrics` tells of a pod: what `run` knows anyway. Nobody is asked for it, so that collecting costs next to
//! nothing, and a server that hangs is told of as one that is not up.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::admin::{Exposition, Health};
use crate::command::probe::OwnHealth;
use crate::tls::Tls;
use crate::topology::drain::DrainReport;
use crate::topology::node::NodeEntry;
use crate::topology::probe::{Life, Phase, Probe, Reconciliation, Verdict};
use crate::topology::server::ServerReport;

const PROBES: [(Probe, &str); 3] =
    [(Probe::Startup, "startup"), (Probe::Liveness, "liveness"), (Probe::Readiness, "readiness")];
const ANSWERS: [(bool, &str); 2] = [(true, "pass"), (false, "fail")];

/// What is counted and noted down over the life of this `run`.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Whether the server has answered the last question of its watch.
    pub(super) answers: AtomicBool,
    /// Looks at the whole cluster.
    pub(super) rounds: Count,
    /// Of these, the ones in which there was something to do on this node.
    pub(super) rounds_acted: Count,
    /// How often a refusal has begun to stand.
    pub(super) refusals: Count,
    /// How often this node's server, or the heir of it, was told to take over from a dead primary.
    pub(super) takeovers: Count,
    renewals: Count,
    /// Whether certificates have changed and could not be used.
    refused_certificates: AtomicBool,
    /// In the order of [`PROBES`], and in each of [`ANSWERS`].
    probes: [[Count; ANSWERS.len()]; PROBES.len()],
    drained: OnceLock<DrainReport>,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

/// What is told over HTTP.
pub(super) struct Told {
    pub(super) health: OwnHealth,
    pub(super) life: watch::Receiver<Life>,
    pub(super) last: watch::Receiver<Option<ServerReport>>,
    pub(super) progress: watch::Receiver<Option<Reconciliation>>,
    pub(super) tls: Option<Tls>,
    pub(super) tally: Arc<Tally>,
}

impl Count {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    /// What the last drain left behind, found before the start.
    pub(super) fn note_last_drain(&self, report: DrainReport) {
        // The first one that is found is the last one that was.
        let _ = self.drained.set(report);
    }

    /// New certificates are in use.
    pub(super) fn certificates_renewed(&self) {
        self.renewals.add_one();
        self.certificates_refused(false);
    }

    /// Whether there are new ones that cannot be used.
    pub(super) fn certificates_refused(&self, refused: bool) {
        self.refused_certificates.store(refused, Ordering::Relaxed);
    }

    fn probes(&self) -> impl Iterator<Item = (Probe, &'static str, bool, &'static str, &Count)> {
        PROBES.iter().zip(&self.probes).flat_map(|((probe, name), counts)| {
            ANSWERS.iter().zip(counts).map(|((pass, answer), count)| (*probe, *name, *pass, *answer, count))
        })
    }
}

impl Health for Told {
    fn patience(&self) -> Duration {
        self.health.patience()
    }

    async fn ask(&self, probe: Probe) -> Verdict {
        let verdict = self.health.ask(probe).await;
        for (_, _, _, _, count) in
            self.tally.probes().filter(|(asked, _, pass, ..)| *asked == probe && *pass == verdict.pass)
        {
            count.add_one();
        }
        verdict
    }

    fn reconciliation(&self) -> Option<Reconciliation> {
        self.health.reconciliation()
    }

    fn metrics(&self) -> Exposition {
        let mut metrics = Exposition::default();
        let version = env!("CARGO_PKG_VERSION");
        metrics.info("valkeeper_build_info", "The version of valkeeper; always 1.", &[("version", version)]);
        let life = state_of(&self.life.borrow());
        metrics.state(
            "valkeeper_server_state",
            "How far the server is, as its supervisor knows.",
            "state",
            &["guarding", "running", "draining", "ended"],
            life,
        );
        let runs = ["running", "draining"].contains(&life);
        let is_up = runs && self.tally.answers.load(Ordering::Relaxed);
        metrics.flag("valkeeper_server_up", "Whether the server answers valkeeper's questions.", is_up);
        if is_up && let Some(report) = self.last.borrow().as_ref() {
            of_server(&mut metrics, report);
            of_replication(&mut metrics, report);
            of_saves(&mut metrics, report);
        }
        if let Some(progress) = self.progress.borrow().as_ref() {
            of_reconciliation(&mut metrics, progress, &self.tally);
        }
        if let Some(tls) = &self.tls {
            of_certificates(&mut metrics, tls, &self.tally);
        }
        of_this_process(&mut metrics, &self.tally);
        metrics
    }
}

fn state_of(life: &Life) -> &'static str {
    match life {
        Life::Guarding(_) => "guarding",
        Life::Running => "running",
        Life::Draining => "draining",
        Life::Ended => "ended",
    }
}

fn of_server(metrics: &mut Exposition, report: &ServerReport) {
    let version = report.version.map(|version| version.to_string()).unwrap_or_default();
    metrics.info("valkeeper_server_info", "The version of the server; always 1.", &[("version", &version)]);
    metrics.gauge("valkeeper_server_uptime_seconds", "How long the server has been up.", report.uptime.as_secs());
    let role = if report.is_replica() { "replica" } else { "primary" };
    let roles = ["primary", "replica"];
    metrics.state("valkeeper_server_role", "What the server is in replication.", "role", &roles, role);
    metrics.gauge("valkeeper_server_keys", "Keys in all databases.", report.keys);
    let loading = report.loading.is_some();
    metrics.flag("valkeeper_server_loading", "Whether the server reads its data into memory.", loading);
    metrics.flag("valkeeper_server_leaving", "Whether the node is marked as leaving.", report.leaving);
    if let Some(cluster) = &report.cluster {
        metrics.flag("valkeeper_cluster_ok", "Whether the node sees every slot served.", cluster.ok);
        let nodes = cluster.view.entries().len();
        metrics.gauge("valkeeper_cluster_nodes", "Nodes that the node knows, itself among them.", nodes);
        let slots = report.myself().map_or(0, |myself| NodeEntry::slot_set(myself).len());
        metrics.gauge("valkeeper_cluster_slots_owned", "Slots that the node owns.", slots);
        let moves = report.migrations;
        metrics.gauge("valkeeper_cluster_migrations", "Atomic slot migrations that the node takes part in.", moves);
    }
}

fn of_replication(metrics: &mut Exposition, report: &ServerReport) {
    metrics.gauge(
        "valkeeper_replication_offset_bytes",
        "Bytes of the replication stream written (primary) or applied (replica); the difference is the lag.",
        report.replication.offset,
    );
    let Some(link) = &report.replication.link else { return };
    metrics.flag("valkeeper_replication_link_up", "Whether the replica follows its primary.", link.up);
    let syncing = "Whether the replica receives a full copy.";
    metrics.flag("valkeeper_replication_syncing", syncing, link.syncing);
    if let Some(ago) = link.last_heard {
        let help = "How long ago the replica last heard from its primary.";
        metrics.gauge("valkeeper_replication_last_heard_seconds", help, ago.as_secs());
    }
    if let Some(ago) = link.down_for {
        let help = "How long ago the link to the primary broke.";
        metrics.gauge("valkeeper_replication_link_down_seconds", help, ago.as_secs());
    }
}

fn of_saves(metrics: &mut Exposition, report: &ServerReport) {
    let saves = &report.persistence;
    metrics.gauge(
        "valkeeper_save_last_timestamp_seconds",
        "When the last good RDB save ended, or the server started, since 1970.",
        saves.last_save.as_secs(),
    );
    metrics.flag("valkeeper_save_last_ok", "Whether the last RDB save was good.", saves.last_save_ok);
    metrics.flag("valkeeper_save_running", "Whether an RDB save runs.", saves.saving.is_some());
    metrics.gauge("valkeeper_save_pending_changes", "Writes that the newest RDB does not hold.", saves.changes);
    if let Some(aof) = &saves.aof {
        let help = "Whether the append-only file holds everything and its last write was good.";
        metrics.flag("valkeeper_aof_ok", help, !aof.incomplete && aof.last_write_ok);
    }
}

fn of_reconciliation(metrics: &mut Exposition, progress: &Reconciliation, tally: &Tally) {
    const PHASES: [(Phase, &str); 6] = [
        (Phase::Paused, "paused"),
        (Phase::Unformed, "unformed"),
        (Phase::Converged, "converged"),
        (Phase::Acting, "acting"),
        (Phase::Waiting, "waiting"),
        (Phase::Refused, "refused"),
    ];
    let now = PHASES.iter().find(|(phase, _)| *phase == progress.state).map_or("", |(_, name)| *name);
    let help = "How far keeping the cluster in its shape is.";
    metrics.state("valkeeper_reconciliation_state", help, "state", &PHASES.map(|(_, name)| name), now);
    let help = "Looks at the whole cluster.";
    metrics.counter("valkeeper_reconciliation_rounds_total", help, tally.rounds.get());
    let help = "Looks at the whole cluster after which something was done on this node.";
    metrics.counter("valkeeper_reconciliation_rounds_acted_total", help, tally.rounds_acted.get());
    let help = "How often a refusal has begun to stand.";
    metrics.counter("valkeeper_reconciliation_refusals_total", help, tally.refusals.get());
}

fn of_certificates(metrics: &mut Exposition, tls: &Tls, tally: &Tally) {
    if let Some(end) = tls.expires().and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok()) {
        let help = "When this pod's certificate is no longer valid, since 1970.";
        metrics.gauge("valkeeper_certificate_expiry_timestamp_seconds", help, end.as_secs());
    }
    let help = "How often changed certificates were put to use without a restart.";
    metrics.counter("valkeeper_certificate_renewals_total", help, tally.renewals.get());
    let help = "Whether the certificate files have changed and cannot be used: the former ones are still in use.";
    let refused = tally.refused_certificates.load(Ordering::Relaxed);
    metrics.flag("valkeeper_certificate_refused", help, refused);
    metrics.flag("valkeeper_tls_insecure", "Whether certificates of servers are not checked.", tls.is_insecure());
}

fn of_this_process(metrics: &mut Exposition, tally: &Tally) {
    let help = "How often a replica was told from here to take over from a dead primary.";
    metrics.counter("valkeeper_takeovers_asked_total", help, tally.takeovers.get());
    let help = "Probes that were answered over HTTP.";
    let samples =
        tally.probes().map(|(_, probe, _, answer, count)| ([("probe", probe), ("answer", answer)], count.get()));
    metrics.counters("valkeeper_probes_total", help, samples);
    if let Some(drained) = tally.drained.get() {
        let help = "How long the drain took before the server was started.";
        let took = Duration::from_millis(drained.used_ms).as_secs_f64();
        metrics.gauge("valkeeper_last_drain_duration_seconds", help, took);
        let help = "Whether all that was to be saved was saved by that drain.";
        metrics.flag("valkeeper_last_drain_clean", help, drained.outcome == "clean");
    }
}
