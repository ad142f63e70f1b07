//! What `run` does for a server in a pod: the guarded start, the drain, the succession, and what goes on beside it.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, pending};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};

use super::duties::{Cut, Duties, Start};
use super::guard::{self, Guard};
use super::input::Input;
use super::watch::{LastReport, Watch, hand_over_from_dead};
use super::{aof, join};
use crate::admin::Admin;
use crate::cli::{Mode, OnPrimaryLost, RunArgs};
use crate::command::drain::{Run, take_report};
use crate::command::probe::OwnHealth;
use crate::config::{self, Credentials, Reach};
use crate::datadir;
use crate::exit::{Exit, Failure};
use crate::observer::Observer;
use crate::process::version::server_version;
use crate::topology::budget::Budget;
use crate::topology::desired::DesiredTopology;
use crate::topology::drain::{DrainPolicy, SavePolicy, Verdict as Drained};
use crate::topology::identity::PodName;
use crate::topology::parse::{Arguments, ServerConfig};
use crate::topology::probe::Life;
use crate::topology::start::{self, NodesConf, OnDisk};
use crate::topology::supervise::{State, Verdict};
use crate::valkey::Server;

/// A pod with a server in it.
pub(super) struct Pod {
    command: Vec<OsString>,
    /// What the server will read; none where the command is no server, but something that may start one.
    config: Option<ServerConfig>,
    address: SocketAddr,
    name: Option<PodName>,
    ip: Option<IpAddr>,
    credentials: Credentials,
    policy: DrainPolicy,
    reach: Option<Reach>,
    desired: Option<DesiredTopology>,
    takes_over: bool,
    handover_timeout: Duration,
    data_dir: Option<std::path::PathBuf>,
    port: u16,
    aof: aof::Wish,
    last: LastReport,
    /// Where probes are answered, until that has begun.
    admin: Mutex<Option<Admin>>,
    life: watch::Sender<Life>,
    /// What the guard found that has to be seen to once the server runs.
    debts: watch::Sender<Debts>,
}

/// What is owed to a server that was not started as its configuration says.
#[derive(Clone, Debug, Default)]
pub(super) struct Debts {
    /// It was started from an RDB and has no append-only file yet.
    pub(super) append_only: bool,
    /// It was started, with this configuration and over this disk, although a replica holds better data, and is held
    /// back until that one has taken over.
    pub(super) held_back: Option<(ServerConfig, OnDisk)>,
    /// It had no nodes.conf: it is a new node.
    pub(super) is_new: bool,
    /// Where it notes down what it knows of its cluster.
    pub(super) nodes_conf: Option<std::path::PathBuf>,
}

impl Pod {
    /// Checks the options and reads the server's configuration.
    pub(super) async fn new(args: &RunArgs) -> Result<Self, Failure> {
        let budget = Budget::split(args.end.grace_period, args.end.delay).map_err(|error| Exit::Usage.saying(error))?;
        tracing::debug!("of the grace period: {budget}");
        let credentials = Credentials::new(&args.own.credentials)?;
        let config = read_config(&args.server)?;
        let in_cluster = args.own.mode == Mode::Cluster && config.as_ref().is_none_or(ServerConfig::cluster_enabled);
        let port = match &config {
            Some(config) if config.is_given("port") => config.port(),
            _ => args.own.port,
        };
        let reach = match &args.service {
            Some(service) => Some(Reach::through(service, &args.find, port, credentials.clone())?),
            None => None,
        };
        let desired = match reach.as_ref().and_then(|reach| reach.cluster.clone()) {
            Some(cluster) => Some(DesiredTopology { cluster, shape: config::shape(&args.shape)? }),
            None => None,
        };
        let name = match &args.own.pod_name {
            Some(name) => Some(PodName::new(name).ok_or_else(|| {
                Exit::Usage.saying(format!("--pod-name {name:?} must consist of letters, digits, dots and dashes"))
            })?),
            None => None,
        };
        let admin = match args.listen {
            Some(address) => Some(Admin::bind(address).await?),
            None => None,
        };
        let save = match args.end.save.into() {
            SavePolicy::Auto if args.aof_partial_resync => SavePolicy::Always,
            other => other,
        };
        Ok(Self {
            command: args.server.clone(),
            address: SocketAddr::new(args.own.pod_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port),
            name,
            ip: args.own.pod_ip,
            credentials,
            policy: DrainPolicy { cluster: in_cluster, save, budget, stop: true },
            reach,
            desired: desired.filter(|_| in_cluster),
            takes_over: in_cluster && args.on_primary_lost == OnPrimaryLost::Failover,
            handover_timeout: args.handover_timeout,
            data_dir: args.data_dir.clone(),
            port,
            aof: aof::Wish { from_rdb: args.aof_from_rdb, partial_resync: args.aof_partial_resync },
            config,
            last: LastReport::default(),
            admin: Mutex::new(admin),
            life: watch::Sender::new(Life::Guarding("it has just begun".to_owned())),
            debts: watch::Sender::default(),
        })
    }

    /// How the grace period is split.
    pub(super) fn budget(&self) -> &Budget {
        &self.policy.budget
    }

    fn server(&self) -> Server {
        Server::at(self.address, self.credentials.clone(), self.policy.cluster)
    }

    /// Everything that needs a server that answers.
    async fn beside_the_server(&self) {
        let nodes_conf = self.debts.borrow().nodes_conf.clone();
        let watch = Watch {
            server: self.server(),
            credentials: &self.credentials,
            takes_over: self.takes_over,
            last: &self.last,
            nodes_conf: nodes_conf.as_deref(),
        };
        let pay = async {
            let debts = self.debts.borrow().clone();
            if let Some((config, disk)) = debts.held_back {
                guard::release(&mut self.server(), &self.around(), &disk, &config).await;
            }
            if debts.append_only {
                aof::switch_on(&mut self.server()).await;
            }
        };
        let join_in = async {
            let is_new = self.debts.borrow().is_new;
            if let (true, Some(reach), Some(desired)) = (is_new, &self.reach, &self.desired) {
                match Observer::new(reach, desired.shape.members()) {
                    Ok(mut observer) => join::join(&mut observer, desired, self.address).await,
                    Err(failure) => tracing::error!("this node does not look for its cluster: {failure}"),
                }
            }
        };
        let (never, _) = join(watch.run(), join(pay, join_in)).await;
        match never {}
    }

    fn around(&self) -> Guard<'_> {
        Guard {
            own: self.address,
            credentials: &self.credentials,
            reach: self.reach.as_ref(),
            members: self.desired.as_ref().map_or(0, |desired| desired.shape.members()),
            limit: self.handover_timeout,
            life: &self.life,
        }
    }
}

impl Duties for Pod {
    async fn guard(self: Arc<Self>) -> Result<Start, Failure> {
        let Some(config) = &self.config else {
            tracing::warn!(
                "the command is not valkey-server itself: its data is not looked at before it starts, and it is told neither \
                 its password nor what to announce"
            );
            return Ok(Start::default());
        };
        let mut config = config.clone();
        config.default_to("port", &self.port.to_string());
        if let Some(dir) = &self.data_dir {
            config.default_to("dir", &dir.display().to_string());
        }
        let drained = take_report(&config.dir());
        if let Some(report) = &drained {
            let took = Duration::from_millis(report.used_ms).as_secs_f64();
            tracing::info!("the last drain was {} after {took:.1} s: {}", report.outcome, report.save.outcome);
        }
        let version = match self.command.first() {
            Some(program) => server_version(program).await,
            None => None,
        };
        let disk = datadir::look(&config).map_err(|error| Exit::System.because(error))?;
        start::inspect(&disk, &config, version, self.aof.from_rdb)
            .map_err(|refusal| Exit::Refused.saying(format!("{refusal}. What to do: {}", refusal.remedy())))?;
        let is_new = self.policy.cluster && disk.nodes_conf == NodesConf::Missing;
        let opened = match self.policy.cluster {
            true => guard::before_start(&self.around(), &disk, &config).await?,
            false => guard::Opened::default(),
        };
        let follows = self.aof.partial_resync && guard::follows_somebody(&self.around(), &disk).await;
        let append_only = self.aof.starts_from_rdb(&config, &disk, drained.as_ref(), follows);
        let held_back = opened.held_back.then(|| (config.clone(), disk));
        let nodes_conf = self.policy.cluster.then(|| config.nodes_conf());
        self.debts.send_replace(Debts { append_only, held_back, is_new, nodes_conf });
        let input = Input {
            config: &config,
            version,
            credentials: &self.credentials,
            ip: self.ip,
            port: self.port,
            dir: self.data_dir.as_deref(),
            name: self.name.as_ref(),
            reach: self.reach.as_ref().filter(|_| self.policy.cluster),
            in_cluster: self.policy.cluster,
            held_back: opened.held_back,
            without_aof: append_only,
        };
        Ok(Start { input: input.text() })
    }

    async fn drain(self: Arc<Self>, mut cut: Cut) -> Result<Verdict, Failure> {
        let mut run = Run::new(self.server(), self.credentials.clone(), self.policy, Instant::now());
        tokio::select! {
            () = run.rounds() => {}
            () = cut.is_given() => {
                tracing::warn!("asked to stop once more: the server stops by its own rules");
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
        if self.takes_over {
            let last = self.last.borrow().clone();
            hand_over_from_dead(last, &self.credentials).await;
        }
        Ok(())
    }

    async fn accompany(self: Arc<Self>, mut state: watch::Receiver<State>) -> Result<(), Failure> {
        let mut lives = state.clone();
        let live = async {
            // A supervisor that is gone needs no company.
            while lives.changed().await.is_ok() {
                let state = *lives.borrow_and_update();
                self.life.send_if_modified(|life| {
                    lived(state).is_some_and(|now| std::mem::replace(life, now.clone()) != now)
                });
            }
            pending::<()>().await;
        };
        let answer_probes = async {
            let Some(admin) = self.admin.lock().await.take() else {
                return pending().await;
            };
            let dir = self.data_dir.clone();
            admin.serve(OwnHealth::new(self.life.subscribe(), self.server(), self.policy.cluster, dir)).await
        };
        let beside = async {
            if state.wait_for(|state| *state == State::Running).await.is_ok() {
                self.beside_the_server().await;
            }
            pending::<()>().await;
        };
        tokio::join!(live, answer_probes, beside);
        Ok(())
    }
}

/// What probes are told of a state; none where it changes nothing for them.
fn lived(state: State) -> Option<Life> {
    match state {
        State::Idle | State::Guarding | State::Starting => None,
        State::Running => Some(Life::Running),
        State::Draining | State::Stopping | State::Killing => Some(Life::Draining),
        State::Concluding | State::HandingOver | State::Exited => Some(Life::Ended),
    }
}

/// What the server will read where the command is one.
fn read_config(command: &[OsString]) -> Result<Option<ServerConfig>, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(None);
    };
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    if !["valkey-server", "redis-server"].iter().any(|server| name.ends_with(server)) {
        return Ok(None);
    }
    let arguments = Arguments::parse(arguments);
    if arguments.stdin {
        return Err(Exit::Usage.saying(
            "the server is to read its configuration from standard input, which valkeeper uses itself: name a file instead of -",
        ));
    }
    datadir::read_config(&arguments, &[]).map(Some).map_err(|error| Exit::Usage.because(error))
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
