//! What `run` does for a server in a pod: the guarded start, the drain, the succession, and what goes on beside it.

mod company;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::addresses;
use super::duties::{Cut, Duties, Start};
use super::guard::{self, Guard};
use super::input::Input;
use super::keep::Progress;
use super::metrics::Tally;
use super::record::Record;
use super::settings::Settings;
use super::users;
use super::watch::{LastReport, hand_over_from_dead};
use crate::admin::Admin;
use crate::cli::RunArgs;
use crate::command::drain::{Run, just_before, take_report};
use crate::config::PASSWORD_VARIABLES;
use crate::datadir;
use crate::exit::{Exit, Failure};
use crate::process::version::server_version;
use crate::topology::NodeId;
use crate::topology::budget::Budget;
use crate::topology::drain::Verdict as Drained;
use crate::topology::parse::ServerConfig;
use crate::topology::probe::Life;
use crate::topology::start::{self, OnDisk};
use crate::topology::supervise::{State, Verdict};
use crate::valkey::Server;

/// A pod with a server in it.
pub(super) struct Pod {
    settings: Settings,
    last: LastReport,
    /// Where probes are answered.
    admin: Option<Admin>,
    life: watch::Sender<Life>,
    /// How far reconciliation is.
    progress: Progress,
    /// What is counted, for whoever collects metrics.
    tally: Arc<Tally>,
    /// What the guard found that has to be seen to once the server runs.
    debts: watch::Sender<Debts>,
}

/// What is owed to a server that was not started as its configuration says.
#[derive(Clone, Debug, Default)]
pub(super) struct Debts {
    /// It was started from an RDB and has no append-only file yet.
    append_only: bool,
    /// It was started, with this configuration and over this disk, although a replica holds better data, and is held
    /// back until that one has taken over.
    held_back: Option<(ServerConfig, OnDisk)>,
    /// Where it notes down what it knows of its cluster.
    nodes_conf: Option<PathBuf>,
}

impl Pod {
    /// Checks the options, reads the server's configuration, and listens for probes.
    pub(super) async fn new(args: &RunArgs) -> Result<Self, Failure> {
        let settings = Settings::new(args)?;
        let admin = match args.listen {
            Some(address) => Some(Admin::bind(address).await?),
            None => None,
        };
        Ok(Self {
            settings,
            last: LastReport::default(),
            admin,
            life: watch::Sender::new(Life::Guarding("it has just begun".to_owned())),
            progress: Progress::default(),
            tally: Arc::default(),
            debts: watch::Sender::default(),
        })
    }

    /// How the grace period is split.
    pub(super) fn budget(&self) -> &Budget {
        &self.settings.policy.budget
    }

    /// The configuration with what the server is told beside it.
    fn completed(&self, given: &ServerConfig) -> ServerConfig {
        let mut config = given.clone();
        config.default_to("port", &self.settings.port.to_string());
        if let Some(dir) = &self.settings.data_dir {
            config.default_to("dir", &dir.display().to_string());
        }
        config
    }

    /// Where the server keeps its data; none where its configuration is not known.
    fn data_dir(&self) -> Option<PathBuf> {
        self.settings.config.as_ref().map(|given| self.completed(given).dir())
    }

    fn around(&self) -> Guard<'_> {
        Guard {
            own: self.settings.address,
            credentials: &self.settings.credentials,
            reach: self.settings.reach.as_ref(),
            members: self.settings.members(),
            limit: self.settings.handover_timeout,
            life: &self.life,
        }
    }
}

impl Duties for Pod {
    async fn guard(self: Arc<Self>) -> Result<Start, Failure> {
        let Some(config) = &self.settings.config else {
            tracing::warn!(
                "the command is not valkey-server itself: its data is not looked at before it starts, and it is told neither \
                 its password nor what to announce"
            );
            return Ok(Start::default());
        };
        let given = config;
        let config = self.completed(given);
        let drained = take_report(&config.dir());
        if let Some(report) = &drained {
            let took = Duration::from_millis(report.used_ms).as_secs_f64();
            tracing::info!("the last drain was {} after {took:.1} s: {}", report.outcome, report.save.outcome);
        }
        let version = match self.settings.command.first() {
            Some(program) => server_version(program).await,
            None => None,
        };
        if self.settings.policy.cluster {
            let mended = datadir::mend_shard_ids(&config.nodes_conf()).map_err(|error| Exit::System.because(error))?;
            if !mended.is_empty() {
                let replicas: Vec<_> = mended.iter().map(NodeId::short).collect();
                tracing::warn!(
                    "{}: had another shard id than the primary for {}, with which servers before 9.0 do not start; it names \
                     the primary's now",
                    config.nodes_conf().display(),
                    replicas.join(", ")
                );
            }
        }
        let mut disk = datadir::look(&config).map_err(|error| Exit::System.because(error))?;
        if self.settings.credentials.tls.is_some() {
            disk.nodes_conf = disk.nodes_conf.over_tls();
        }
        start::inspect(&disk, &config, version, self.settings.aof.from_rdb)
            .map_err(|refusal| Exit::Refused.saying(format!("{refusal}. What to do: {}", refusal.remedy())))?;
        let opened = match self.settings.policy.cluster {
            true => guard::before_start(&self.around(), &disk, &config).await?,
            false => guard::Opened::default(),
        };
        if self.settings.policy.cluster {
            addresses::put_right(&self.settings, &config, &disk.nodes_conf).await?;
        }
        let follows = self.settings.aof.partial_resync && guard::follows_somebody(&self.around(), &disk).await;
        let append_only = self.settings.aof.starts_from_rdb(&config, &disk, drained.as_ref(), follows);
        if let Some(report) = drained {
            self.tally.note_last_drain(report);
        }
        let held_back = opened.held_back.then(|| (config.clone(), disk));
        let nodes_conf = self.settings.policy.cluster.then(|| config.nodes_conf());
        self.debts.send_replace(Debts { append_only, held_back, nodes_conf });
        let mut record = Record::read(Some(&config.dir()));
        record.add(self.settings.credentials.keyring.current().map(|password| password.hash()).as_ref());
        users::admit(&config, &self.settings.credentials, &record);
        let input = Input {
            given,
            accepted: record.hashes(),
            retired: record.retired(),
            version,
            credentials: &self.settings.credentials,
            ip: self.settings.ip,
            port: self.settings.port,
            dir: self.settings.data_dir.as_deref(),
            name: self.settings.name.as_ref(),
            site: &self.settings.site,
            reach: self.settings.reach.as_ref().filter(|_| self.settings.policy.cluster),
            in_cluster: self.settings.policy.cluster,
            held_back: opened.held_back,
            without_aof: append_only,
        };
        Ok(Start { input: input.text(), withheld: &PASSWORD_VARIABLES })
    }

    async fn drain(self: Arc<Self>, mut cut: Cut) -> Result<Verdict, Failure> {
        let (mut policy, mut began) = (self.settings.policy, Instant::now());
        if let Some(before) = self.data_dir().and_then(|dir| just_before(&dir, policy.budget.grace)) {
            began = began.checked_sub(before.began).unwrap_or(began);
            // Clients have had that time.
            if before.is_clean {
                policy.budget.delay = Duration::ZERO;
            }
        }
        let mut run = Run::new(self.settings.server(), self.settings.credentials.clone(), policy, began);
        tokio::select! {
            () = run.rounds() => {}
            () = cut.is_given() => {
                tracing::warn!("the drain is cut short: what it has not saved is up to the server");
                return Ok(Verdict::LeftToServer);
            }
        }
        run.close();
        Ok(match run.verdict() {
            _ if !run.has_told_server_to_stop() => Verdict::LeftToServer,
            Drained::Clean => Verdict::Clean,
            Drained::Unfinished(_) => Verdict::Unfinished,
        })
    }

    async fn hand_over(self: Arc<Self>) -> Result<(), Failure> {
        if self.settings.takes_over {
            let last = self.last.borrow().clone();
            hand_over_from_dead(last, &self.settings.credentials, &self.tally.takeovers).await;
        }
        Ok(())
    }

    async fn accompany(self: Arc<Self>, state: watch::Receiver<State>) -> Result<(), Failure> {
        self.company(state).await;
        Ok(())
    }
}

/// Waits for as long as the server does not answer.
pub(super) async fn answer(server: &mut Server) -> crate::topology::server::ServerReport {
    const OFTEN: Duration = Duration::from_millis(100);
    loop {
        match server.report().await {
            Ok(report) if report.loading.is_none() => return report,
            _ => sleep(OFTEN).await,
        }
    }
}
