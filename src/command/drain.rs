//! `valkeeper drain`, and what `run` does on SIGTERM: look, decide, act, until the node may stop.

mod keep;

use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::peers::Peers;
use super::render;
use crate::cli::{DrainArgs, Mode, Output};
use crate::config::{Credentials, own_address};
use crate::exit::{Exit, Failure};
use crate::topology::budget::Budget;
use crate::topology::drain::{Drain, DrainPolicy, DrainReport, Seen, Step, Verdict, Waiting};
use crate::topology::observation::Silence;
use crate::topology::order::Order;
use crate::valkey::{Outcome, Server};

use keep::Turn;
pub use keep::{just_before, take_report};

/// Runs the command.
pub async fn run(args: &DrainArgs, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    let started = Instant::now();
    let credentials = Credentials::of_pod(&args.own)?;
    let budget = Budget::split(args.end.grace_period, args.end.delay).map_err(|error| Exit::Usage.saying(error))?;
    let in_cluster = args.own.mode == Mode::Cluster;
    let policy = DrainPolicy { cluster: in_cluster, save: args.end.save.into(), budget, stop: false };
    let mut server = Server::at(own_address(args.own.pod_ip, args.own.port), credentials.to_own_server()?, in_cluster);
    if let Err(silence) = server.report().await {
        let exit = match silence {
            Silence::Denied(_) | Silence::Untrusted(_) => Exit::Usage,
            _ => Exit::Unavailable,
        };
        return Err(exit.saying(format!("nothing is drained: the server at {} {silence}", server.address())));
    }
    let mut run = Run::new(server, credentials, policy, started);
    tokio::select! {
        () = run.rounds() => {}
        () = stop => return Err(Exit::Unfinished.saying("stopped by a signal; run this again to go on")),
    }
    let report = run.close();
    render::print(&match args.output {
        Output::Json => render::json(&report)?,
        Output::Table => text(&report),
    })?;
    match run.verdict() {
        Verdict::Clean => Ok(()),
        Verdict::Unfinished(why) => Err(Exit::Unfinished.saying(why)),
    }
}

/// One drain of one server.
#[derive(Debug)]
pub struct Run {
    server: Server,
    drain: Drain,
    started: Instant,
    last: Duration,
    peers: Peers,
    told: Option<(Discriminant<Waiting>, bool, Instant)>,
    dir: Option<PathBuf>,
}

impl Run {
    /// A drain whose grace period began at `started`.
    pub fn new(server: Server, credentials: Credentials, policy: DrainPolicy, started: Instant) -> Self {
        Self {
            server,
            drain: Drain::new(policy),
            started,
            last: policy.budget.last,
            peers: Peers::new(credentials),
            told: None,
            dir: None,
        }
    }

    /// Looks, decides and acts, until nothing is left to be done, which comes before the grace period is over.
    pub async fn rounds(&mut self) {
        let _turn = self.wait_for_turn().await;
        loop {
            let seen = self.look().await;
            let step = self.drain.next(self.started.elapsed(), &seen);
            match step {
                Step::Own(order) => {
                    let outcome = self.server.order(order).await;
                    self.note("this node", order, outcome);
                }
                Step::Peer(heir, order) => match seen.peers.iter().find(|peer| peer.id == heir) {
                    Some(peer) => {
                        let outcome = self.peers.order(peer, order).await;
                        self.note(&peer.label.to_string(), order, outcome);
                    }
                    None => self.drain.answered(self.started.elapsed(), order, Err("it was not asked".to_owned())),
                },
                Step::Wait(waiting, time) => {
                    self.tell(&waiting);
                    sleep(time).await;
                }
                Step::Done => return,
            }
        }
    }

    /// How it ended.
    pub fn verdict(&self) -> &Verdict {
        self.drain.verdict()
    }

    /// Whether the server has taken the order to shut down.
    pub fn has_told_server_to_stop(&self) -> bool {
        self.drain.has_told_server_to_stop()
    }

    /// Tells how it went, in the log and, for the next start, beside the data.
    pub fn close(&self) -> DrainReport {
        let report = self.drain.report(self.started.elapsed());
        if let Verdict::Unfinished(why) = self.verdict() {
            tracing::error!("not everything is saved: {why}");
        }
        match serde_json::to_string(&report) {
            Ok(json) => tracing::info!("drained: {json}"),
            Err(error) => tracing::warn!("the drain cannot be reported: {error}"),
        }
        if let Some(dir) = &self.dir {
            keep::report(dir, &report);
        }
        report
    }

    /// Two at once would ask the heir twice, and the second time begins anew: so the second waits for the first, and
    /// finds nothing to do.
    async fn wait_for_turn(&mut self) -> Option<Turn> {
        const POLL: Duration = Duration::from_millis(50);
        let dir = self.server.directory().await?;
        self.dir = Some(dir.clone());
        let mut told = false;
        while self.started.elapsed() < self.last {
            match Turn::take(&dir) {
                Ok(Some(turn)) => return Some(turn),
                Ok(None) if !told => {
                    told = true;
                    tracing::info!("waiting for another drain of this node to end");
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!("cannot see whether another drain runs: {}: {error}", dir.display());
                    return None;
                }
            }
            sleep(POLL).await;
        }
        None
    }

    async fn look(&mut self) -> Seen {
        let own = self.server.report().await;
        let peers = match &own {
            Ok(own) => self.peers.ask(self.drain.asks(own), None).await,
            Err(_) => self.peers.ask([], None).await,
        };
        Seen { own, peers }
    }

    fn note(&mut self, whom: &str, order: Order, outcome: Outcome) {
        let answer = match outcome {
            Outcome::Done | Outcome::Moot(_) => {
                tracing::info!("{whom} is told to {order}");
                Ok(())
            }
            Outcome::Failed(why) => {
                tracing::warn!("{whom} does not {order}: {why}");
                Err(why)
            }
            Outcome::Forbidden(why) => {
                tracing::warn!("{whom} does not {order}: {why}");
                return self.drain.forbidden(self.started.elapsed(), order, why);
            }
            Outcome::Unanswered(why) => {
                tracing::warn!("{whom} was told to {order}, and may have heard it: {why}");
                match order {
                    // To say it again would do harm; the next look tells.
                    Order::TakeOver | Order::Save | Order::SaveLater => Ok(()),
                    _ => return,
                }
            }
        };
        self.drain.answered(self.started.elapsed(), order, answer);
    }

    /// One line when something else is waited for, and another every few seconds of a long wait.
    fn tell(&mut self, waiting: &Waiting) {
        const OFTEN: Duration = Duration::from_secs(2);
        let (about, alarming) = (discriminant(waiting), waiting.is_alarming());
        let is_told = self
            .told
            .is_some_and(|(told, was_alarming, at)| told == about && was_alarming == alarming && at.elapsed() < OFTEN);
        if is_told {
            return;
        }
        self.told = Some((about, alarming, Instant::now()));
        match alarming {
            true => tracing::warn!("{waiting}"),
            false => tracing::info!("{waiting}"),
        }
    }
}

fn text(report: &DrainReport) -> String {
    let mut lines = vec![match (&report.handover.heir, &report.handover.given_up) {
        (Some(heir), _) => format!("handed over to {heir} in {} ms", report.handover.took_ms.unwrap_or_default()),
        (None, Some(why)) => format!("not handed over: {why}"),
        (None, None) => "nothing to hand over".to_owned(),
    }];
    let save = &report.save;
    let paused = if save.writes_paused { "; writes are held back" } else { "" };
    lines.push(match save.took_ms {
        Some(took) => format!("{} keys, {}, in {took} ms{paused}", save.keys, save.outcome),
        None => "nothing to save".to_owned(),
    });
    lines.push(format!("{} of {} ms used", report.used_ms, report.grace_ms));
    lines.join("\n") + "\n"
}
