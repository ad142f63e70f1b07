//! `valkeeper bootstrap`: observe, decide, act, until every node agrees.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::progress::Progress;
use super::rounds::{Pace, Rounds, Tempo};
use super::{render, status};
use crate::cli::BootstrapArgs;
use crate::config::{self, Reach};
use crate::exit::{Exit, Failure};
use crate::observer::Observer;
use crate::topology::decision::{Blocker, Decision};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::health;
use crate::topology::observation::Observation;
use crate::topology::{plan, restore};
use crate::valkey::Outcome;

/// How a run that formed the cluster, or found it formed, ended.
#[derive(Debug)]
pub struct Formed {
    /// The last observation: everybody agrees in it.
    pub observation: Observation,
    /// How many stages were carried out; none where nothing had to be changed.
    pub stages: usize,
    /// How long it took.
    pub took: Duration,
}

/// Runs the command until the cluster stands, the deadline is reached or `stop` is over.
pub async fn run(args: &BootstrapArgs, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    let reach = Reach::new(&args.reach)?;
    let cluster = reach
        .cluster
        .clone()
        .ok_or_else(|| Exit::Usage.saying("to form a cluster from one node's address, name it: --cluster-id"))?;
    let desired = DesiredTopology { cluster, shape: config::shape(&args.shape)? };
    let mut observer = Observer::new(&reach, desired.shape.members())?;
    let policy = Policy { give_up: args.accept_data_loss, ..Policy::FORM };
    if args.dry_run {
        return dry_run(&mut observer, &desired, policy, args.timeout).await;
    }
    let formed = form(&mut observer, &desired, policy, args.timeout, stop).await?;
    let report = health::assess(&formed.observation, &desired.cluster, Some(desired.shape));
    let done = match formed.stages {
        0 => "the cluster stands already; nothing was changed".to_owned(),
        _ => format!("the cluster stands after {:.2} s", formed.took.as_secs_f64()),
    };
    tracing::info!("{done}");
    render::print(&status::render(&report, args.output)?)
}

/// Brings the cluster into its shape. Whatever ends this puts lowered settings back, as far as servers can be reached.
pub async fn form(
    observer: &mut Observer,
    desired: &DesiredTopology,
    policy: Policy,
    limit: Duration,
    stop: impl Future<Output = ()>,
) -> Result<Formed, Failure> {
    let started = Instant::now();
    let deadline = started + limit;
    let mut run = Run::new(desired, policy, deadline);
    let ended = tokio::select! {
        ended = run.rounds(observer) => ended,
        () = sleep_until(deadline) => Err(run.out_of_time()),
        () = stop => Err(Exit::Unfinished.saying("stopped by a signal; run this again to go on")),
    };
    run.progress.finish();
    match ended {
        Ok(observation) => Ok(Formed { observation, stages: run.stages, took: started.elapsed() }),
        Err(failure) => {
            give_back(observer, desired).await;
            Err(failure)
        }
    }
}

/// One run of rounds.
struct Run<'d> {
    desired: &'d DesiredTopology,
    deadline: Instant,
    rounds: Rounds<'d>,
    progress: Progress,
    stages: usize,
    last: Option<Decision>,
    /// What discovery had trouble with in the last round.
    trouble: Vec<String>,
    pace: Pace,
}

impl<'d> Run<'d> {
    const TEMPO: Tempo = Tempo {
        shortest: Duration::from_millis(5),
        longest: Duration::from_millis(500),
        after_long_round: Duration::from_millis(250),
    };

    fn new(desired: &'d DesiredTopology, policy: Policy, deadline: Instant) -> Self {
        let members = desired.shape.members();
        Self {
            desired,
            deadline,
            rounds: Rounds::new(&desired.cluster, Some(desired.shape), policy),
            progress: Progress::new(members),
            stages: 0,
            last: None,
            trouble: Vec::new(),
            pace: Pace::new(Self::TEMPO),
        }
    }

    async fn rounds(&mut self, observer: &mut Observer) -> Result<Observation, Failure> {
        loop {
            let round = self.rounds.look(observer, self.deadline).await;
            if !self.progress.show(&round.observation, self.desired, &round.decision) {
                self.rounds.tell(&round.decision);
            }
            self.trouble.clone_from(&round.observation.trouble);
            if let Decision::Converged(_) = round.decision {
                return Ok(round.observation);
            }
            if round.refusal().is_some() {
                return Err(refused(&round.decision));
            }
            let stage = round.stage();
            if let Some(stage) = stage {
                self.rounds.act(observer, stage).await.map_err(|why| Exit::Usage.saying(why))?;
                self.stages += 1;
            }
            let changed = self.last.as_ref() != Some(&round.decision);
            let pause = self.pace.next(stage.is_some(), changed, round.took);
            self.last = Some(round.decision);
            sleep(pause).await;
        }
    }

    fn out_of_time(&self) -> Failure {
        match &self.last {
            Some(decision @ Decision::Refuse(_)) => refused(decision),
            Some(Decision::Wait(blockers)) if blockers.iter().any(Blocker::is_absence) => {
                let missing = blockers.iter().map(ToString::to_string);
                let missing: Vec<_> = missing.chain(self.trouble.first().cloned()).collect();
                Exit::Unavailable.saying(format!("peers are missing at the deadline: {}", missing.join("; ")))
            }
            Some(decision) => {
                Exit::Unfinished.saying(format!("the deadline is reached while {decision}; run this again to go on"))
            }
            None => Exit::Unavailable.saying("the deadline came before DNS and everybody it names had answered once"),
        }
    }
}

fn refused(decision: &Decision) -> Failure {
    match decision {
        Decision::Refuse(refusal) => Exit::Refused.saying(format!("{decision}. What to do: {}", refusal.remedy())),
        other => Exit::Bug.saying(format!("not a refusal: {other}")),
    }
}

/// Puts lowered settings back where a run ends early. Bounded; what cannot be reached keeps its mark, and the next run
/// does it.
async fn give_back(observer: &mut Observer, desired: &DesiredTopology) {
    const LIMIT: Duration = Duration::from_secs(10);
    let put_back = async {
        let deadline = Instant::now() + LIMIT;
        while let Some(stage) = restore(&observer.round(deadline).await, desired) {
            tracing::info!(stage = %stage.kind, "{stage}");
            let outcomes = observer.execute(&stage).await;
            if !outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Done) {
                tracing::warn!("settings could not be put back; run this again");
                break;
            }
        }
    };
    if timeout(LIMIT, put_back).await.is_err() {
        tracing::warn!("not every server could be asked whether its settings are to be put back; run this again");
    }
}

async fn dry_run(
    observer: &mut Observer,
    desired: &DesiredTopology,
    policy: Policy,
    limit: Duration,
) -> Result<(), Failure> {
    let observation = observer.round(Instant::now() + limit).await;
    let decision = plan(&observation, desired, &policy);
    if let Decision::Refuse(_) = decision {
        return Err(refused(&decision));
    }
    let mut text = format!("{decision}\n");
    if let Decision::Act(stage) = &decision {
        text = format!("the next stage would be {}:\n", stage.kind);
        for action in &stage.actions {
            text.push_str(&format!("  {action}\n"));
        }
    }
    render::print(&text)
}
