//! `valkeeper bootstrap`: observe, decide, act, until every node agrees.

use std::collections::BTreeSet;
use std::future::Future;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::progress::Progress;
use super::{render, status};
use crate::cli::BootstrapArgs;
use crate::config::{self, Reach};
use crate::exit::{Exit, Failure};
use crate::observer::Observer;
use crate::topology::decision::{Blocker, Decision, Stage, StageKind};
use crate::topology::desired::{DesiredTopology, Policy};
use crate::topology::health;
use crate::topology::observation::Observation;
use crate::topology::refusal::Refusal;
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
    if args.dry_run {
        return dry_run(&mut observer, &desired, args.timeout).await;
    }
    let formed = form(&mut observer, &desired, args.timeout, stop).await?;
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
    limit: Duration,
    stop: impl Future<Output = ()>,
) -> Result<Formed, Failure> {
    let started = Instant::now();
    let deadline = started + limit;
    let mut run = Run::new(desired, deadline);
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
    progress: Progress,
    stages: usize,
    last: Option<Decision>,
    /// What discovery had trouble with in the last round.
    trouble: Vec<String>,
    /// What the last sentence was about, and when it was logged.
    told: Option<(Discriminant<Decision>, Option<StageKind>, Instant)>,
    /// The failures that were logged: each once.
    warned: BTreeSet<String>,
    /// Which refusal stands, and since when.
    refused: Option<(Discriminant<Refusal>, Instant)>,
    pace: Pace,
}

impl<'d> Run<'d> {
    fn new(desired: &'d DesiredTopology, deadline: Instant) -> Self {
        let members = desired.shape.members();
        Self {
            desired,
            deadline,
            progress: Progress::new(members),
            stages: 0,
            last: None,
            trouble: Vec::new(),
            told: None,
            warned: BTreeSet::new(),
            refused: None,
            pace: Pace::new(),
        }
    }

    /// How old an observation may be that is acted on; a hung server alone makes it two seconds old.
    const FRESH: Duration = Duration::from_secs(10);

    async fn rounds(&mut self, observer: &mut Observer) -> Result<Observation, Failure> {
        loop {
            let asked = Instant::now();
            let observation = observer.round(self.deadline).await;
            let round = asked.elapsed();
            let decision = plan(&observation, self.desired, &Policy::FORM);
            self.tell(&observation, &decision);
            self.trouble.clone_from(&observation.trouble);
            match &decision {
                Decision::Converged(_) => return Ok(observation),
                // A process that was frozen since it looked must look again: addresses may have changed hands.
                Decision::Act(stage) if round < Self::FRESH => self.act(observer, stage).await?,
                Decision::Act(_) | Decision::Wait(_) => {}
                Decision::Refuse(refusal) => self.refuse(refusal, &decision)?,
            }
            if !matches!(decision, Decision::Refuse(_)) {
                self.refused = None;
            }
            let changed = self.last.as_ref() != Some(&decision);
            let acted = matches!(decision, Decision::Act(_));
            self.last = Some(decision);
            sleep(self.pace.next(acted, changed, round)).await;
        }
    }

    async fn act(&mut self, observer: &mut Observer, stage: &Stage) -> Result<(), Failure> {
        for (action, outcome) in observer.execute(stage).await {
            match outcome {
                Outcome::Done => tracing::debug!(stage = %stage.kind, "{action}"),
                Outcome::Moot(why) => tracing::debug!(stage = %stage.kind, "no longer needed: {action}: {why}"),
                Outcome::Failed(why) | Outcome::Unanswered(why) => {
                    let sentence = format!("failed: {action}: {why}");
                    if self.warned.insert(sentence.clone()) {
                        tracing::warn!(stage = %stage.kind, "{sentence}");
                    }
                }
                Outcome::Forbidden(why) => {
                    let remedy = "give the user the commands cluster, config and info";
                    return Err(Exit::Usage.saying(format!("not allowed: {action}: {why}; {remedy}")));
                }
            }
        }
        self.stages += 1;
        Ok(())
    }

    /// Final once the same refusal has stood long enough.
    fn refuse(&mut self, refusal: &Refusal, decision: &Decision) -> Result<(), Failure> {
        let which = discriminant(refusal);
        let since = match self.refused {
            Some((before, since)) if before == which => since,
            _ => Instant::now(),
        };
        self.refused = Some((which, since));
        match since.elapsed() >= refusal.patience() {
            true => Err(refused(decision)),
            false => Ok(()),
        }
    }

    /// One sentence a round, unless it is still the one of the round before; about the same thing, one a second.
    fn tell(&mut self, observation: &Observation, decision: &Decision) {
        if self.progress.show(observation, self.desired, decision) || self.last.as_ref() == Some(decision) {
            return;
        }
        let stage = match decision {
            Decision::Act(stage) => Some(stage),
            _ => None,
        };
        let (kind, about) = (stage.map(|stage| stage.kind), discriminant(decision));
        let is_same = |told: &(Discriminant<Decision>, Option<StageKind>, Instant)| (told.0, told.1) == (about, kind);
        if self.told.as_ref().is_some_and(|told| is_same(told) && told.2.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.told = Some((about, kind, Instant::now()));
        match stage {
            Some(stage) => tracing::info!(stage = %stage.kind, "{stage}"),
            None => tracing::info!("{decision}"),
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

async fn dry_run(observer: &mut Observer, desired: &DesiredTopology, limit: Duration) -> Result<(), Failure> {
    let observation = observer.round(Instant::now() + limit).await;
    let decision = plan(&observation, desired, &Policy::FORM);
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

/// How long to wait between rounds: briefly while things move, ever longer while they do not, and always so long that
/// asking takes a small part of the servers' time. In a large cluster the answers themselves are work for everybody.
struct Pace {
    current: Duration,
    moved: Instant,
    /// How many rounds have acted in a row.
    acts: u32,
}

impl Pace {
    const SHORTEST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_millis(500);
    /// After this long without a change the waits grow.
    const LIVELY: Duration = Duration::from_secs(3);
    /// A wait is at least this many times as long as the round before it took.
    const IDLE_PART: u32 = 4;
    /// After an act we look at once; but stages that keep undoing each other must not keep everybody busy.
    const ACTS_IN_A_ROW: u32 = 10;

    fn new() -> Self {
        Self { current: Self::SHORTEST, moved: Instant::now(), acts: 0 }
    }

    fn next(&mut self, acted: bool, changed: bool, round: Duration) -> Duration {
        if changed {
            self.moved = Instant::now();
        }
        self.acts = if acted { self.acts.saturating_add(1) } else { 0 };
        if acted && changed && self.acts <= Self::ACTS_IN_A_ROW {
            return Duration::ZERO;
        }
        self.current = match self.moved.elapsed() < Self::LIVELY {
            true => Self::SHORTEST,
            false => (self.current * 2).min(Self::LONGEST),
        };
        self.current.max((round * Self::IDLE_PART).min(Self::LONGEST * 2))
    }
}
