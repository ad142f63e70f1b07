//! `valkeeper rebalance`, and what `valkeeper evacuate` has in common with it: look, mend, plan, move, look again.

mod atomic;
mod carry;
mod foretell;
mod handover;
mod keywise;
mod meter;
mod report;
mod rounds;
mod standing;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::{Mutex, OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{Instant, sleep_until, timeout};

use super::{password_file, render};
use crate::cli::{MovingArgs, ReachArgs, RebalanceArgs};
use crate::config::{Credentials, Reach};
use crate::exit::{Exit, Failure};
use crate::observer::Observer;
use crate::topology::membership::Label;
use crate::topology::node::NodeId;
use crate::topology::rebalance::{Goal, Primary};
use crate::topology::slot::Slot;
use crate::valkey::{Claim, MoveError, Mover, SlotState};

pub use meter::Meter;
pub use rounds::Run;

/// How long a server may take for one answer: the largest keys are moved in that time.
const ANSWER: Duration = Duration::from_secs(300);

/// How long one may take that moves nothing, and is only asked or told something.
const WORD: Duration = Duration::from_secs(3);

/// How long it holds that a target has shown to be who it was: nobody gets the address of a pod that has gone as soon as
/// that.
const PROVEN: Duration = Duration::from_millis(250);

/// How long slots that are on their way may take to arrive when a run is to end.
const GRACE: Duration = Duration::from_secs(5);

/// Whether a run is to end: no further slot is begun then.
#[derive(Debug, Default)]
pub struct Halt(AtomicBool);

/// What everybody needs who moves slots.
#[derive(Debug)]
pub struct Tools<'r> {
    /// What lets us in.
    pub credentials: &'r Credentials,
    /// Where is counted what is moved.
    pub meter: &'r Meter,
    /// Whether to go on.
    pub halt: &'r Halt,
    /// What keeps other runs away from our sources.
    claim: Claim,
    /// Held by every MIGRATE: alone by that of a key which blocks its source and its target.
    turns: RwLock<()>,
    /// How many keys may go at once from a source that has failed with more.
    smaller: Mutex<BTreeMap<NodeId, u64>>,
    /// For commands that wait for replicas.
    crews: Mutex<BTreeMap<NodeId, Arc<OnceCell<Vec<Mover>>>>>,
    /// Over which connection a target has shown that it still is who it was, and when last.
    proven: Mutex<BTreeMap<NodeId, (Mover, Instant)>>,
}

/// While it is held, MIGRATE may run.
enum Turn<'t> {
    Shared(#[expect(dead_code, reason = "what counts is when it is dropped")] RwLockReadGuard<'t, ()>),
    Alone(#[expect(dead_code, reason = "what counts is when it is dropped")] RwLockWriteGuard<'t, ()>),
}

/// Runs the command until slots lie as they are to, the deadline is reached or `stop` is over.
pub async fn run(args: &RebalanceArgs, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    let goal = Goal::Even(args.weight.iter().cloned().collect());
    reach(&args.reach, goal, &args.moving, stop).await
}

/// Reaches a goal, and prints how.
pub(super) async fn reach(
    args: &ReachArgs,
    goal: Goal,
    moving: &MovingArgs,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let reach = Reach::new(args)?;
    let mut observer = Observer::new(&reach, 0)?;
    let deadline = Instant::now() + moving.timeout;
    let (meter, halt) = (Meter::new(moving.max_rate), Halt::default());
    let tools = Tools::new(&reach.credentials, &meter, &halt);
    let mut run = Run::new(&tools, &goal, deadline);
    if moving.dry_run {
        let foretold = foretell::foretell(&mut run, &mut observer, &tools).await;
        meter.finish();
        return render::print(&foretold?.print(moving.output)?);
    }
    let ended = {
        let rounds = run.rounds(&mut observer);
        let rounds = pin!(password_file::watch_during(&args.credentials.login, &reach.credentials.keyring, rounds));
        until_stopped(rounds, &tools, deadline, stop).await
    };
    run.release().await;
    meter.finish();
    let observation = ended?;
    let report = report::Report::of(&observation, &observer.cluster(), &goal, &run, &meter).await;
    render::print(&report.print(moving.output)?)
}

/// Moves slots of this node to primaries that own too few, until slots are even, a day is over or `stop` is. Says how many
/// have gone over.
pub(super) async fn give_away(node: NodeId, reach: &Reach, stop: impl Future<Output = ()>) -> Result<u64, Failure> {
    const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
    let mut observer = Observer::new(reach, 0)?;
    let deadline = Instant::now() + LIMIT;
    let (meter, halt, goal) = (Meter::new(None), Halt::default(), Goal::Even(BTreeMap::new()));
    let tools = Tools::new(&reach.credentials, &meter, &halt);
    let mut run = Run::new(&tools, &goal, deadline).only_from(node);
    let rounds = pin!(run.rounds(&mut observer));
    let ended = until_stopped(rounds, &tools, deadline, stop).await;
    meter.finish();
    ended.map(|_| meter.slots())
}

async fn until_stopped<T>(
    mut rounds: std::pin::Pin<&mut impl Future<Output = Result<T, Failure>>>,
    tools: &Tools<'_>,
    deadline: Instant,
    stop: impl Future<Output = ()>,
) -> Result<T, Failure> {
    let why = tokio::select! {
        ended = &mut rounds => return ended,
        () = tools.meter.tell() => "the log has ended",
        () = sleep_until(deadline) => "the deadline is reached",
        () = stop => "stopped by a signal",
    };
    tools.halt.set();
    // What is on its way may arrive; an error of the last moment says no more than that we were stopped.
    let ended = timeout(GRACE, &mut rounds).await;
    if let Ok(done @ Ok(_)) = ended {
        return done;
    }
    let meter = tools.meter;
    let done = format!("{} slots with {} keys have been moved", meter.slots(), meter.keys());
    Err(Exit::Unfinished.saying(format!("{why}; {done}; run this again to go on")))
}

impl Halt {
    /// Ends the run.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<'r> Tools<'r> {
    /// For one run.
    pub fn new(credentials: &'r Credentials, meter: &'r Meter, halt: &'r Halt) -> Self {
        Self {
            credentials,
            meter,
            halt,
            claim: Claim::random(),
            turns: RwLock::new(()),
            smaller: Mutex::default(),
            crews: Mutex::default(),
            proven: Mutex::default(),
        }
    }

    /// So many keys at once, or fewer where that has failed before.
    async fn smaller(&self, source: NodeId, most: u64) -> u64 {
        self.smaller.lock().await.get(&source).map_or(most, |smaller| most.min(*smaller))
    }

    /// As many keys at once did not go over: next time it is half of them.
    async fn failed_with(&self, source: NodeId, keys: u64) {
        self.smaller.lock().await.insert(source, (keys / 2).max(1));
    }

    async fn turn(&self, alone: bool) -> Turn<'_> {
        match alone {
            true => Turn::Alone(self.turns.write().await),
            false => Turn::Shared(self.turns.read().await),
        }
    }

    /// CLUSTER SETSLOT, one result a slot. A server with replicas answers when they have it too, and looks at nothing else
    /// that came over the same connection before: so the slots go over many.
    async fn set(
        &self,
        node: &Primary,
        slots: &[Slot],
        state: SlotState,
    ) -> Result<Vec<Result<(), MoveError>>, MoveError> {
        let crew = self.crew(node).await?;
        let parts = slots.chunks(slots.len().div_ceil(crew.len()).max(1)).zip(crew);
        let done = join_all(parts.map(|(part, mut mover)| async move { mover.set(part, state).await })).await;
        let done: Result<Vec<_>, _> = done.into_iter().collect();
        if done.is_err() {
            // Their connections may be gone.
            self.crews.lock().await.remove(&node.id);
        }
        Ok(done?.concat())
    }

    async fn crew(&self, node: &Primary) -> Result<Vec<Mover>, MoveError> {
        const CREW: usize = 32;
        let crew = Arc::clone(self.crews.lock().await.entry(node.id).or_default());
        crew.get_or_try_init(|| try_join_all((0..CREW).map(|_| self.mover(node)))).await.cloned()
    }

    /// That the node which slots were given to still answers where it did: MIGRATE replaces keys at an address, whoever is
    /// there. A connection that stands since it told its id leads to nobody else.
    async fn prove(&self, node: &Primary) -> Result<(), MoveError> {
        let known = self.proven.lock().await.get(&node.id).cloned();
        let answered = timeout(WORD, async {
            match known {
                Some((mover, at)) if at.elapsed() < PROVEN => Ok((mover, at)),
                Some((mut mover, _)) => mover.ping().await.map(|()| (mover, Instant::now())),
                None => self.mover(node).await.map(|mover| (mover, Instant::now())),
            }
        });
        let why = match answered.await {
            Ok(Ok(proof)) => {
                self.proven.lock().await.insert(node.id, proof);
                return Ok(());
            }
            Ok(Err(MoveError::Passing(why))) => why,
            Ok(Err(other)) => return Err(other),
            Err(_) => "no answer in time".to_owned(),
        };
        self.proven.lock().await.remove(&node.id);
        Err(MoveError::Passing(format!("no keys are sent to {}: {why}", node.label)))
    }

    async fn mover(&self, node: &Primary) -> Result<Mover, MoveError> {
        self.mover_at(node.id, &node.label, ANSWER).await
    }

    /// A connection to a node, and to nobody who has its address now.
    async fn mover_at(&self, node: NodeId, label: &Label, patience: Duration) -> Result<Mover, MoveError> {
        let mover = Mover::open(label.address, self.credentials, patience).await;
        let mut mover = mover.map_err(|silence| MoveError::Passing(format!("{label} {silence}")))?;
        match mover.id().await? == Some(node) {
            true => Ok(mover),
            false => Err(MoveError::Overtaken(format!("another node answers at {}", label.address))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_failed_is_tried_again_in_smaller_parts() {
        let (credentials, meter, halt) = (Credentials::default(), Meter::new(None), Halt::default());
        let tools = Tools::new(&credentials, &meter, &halt);
        let ids = ["a", "b"].map(|digit| NodeId::parse(&digit.repeat(NodeId::LENGTH)));
        let [Some(one), Some(other)] = ids else { panic!("ids") };
        tools.failed_with(one, 1_000).await;
        assert_eq!((tools.smaller(one, 800).await, tools.smaller(other, 800).await), (500, 800));
        tools.failed_with(one, 500).await;
        assert_eq!(tools.smaller(one, 800).await, 250);
        tools.failed_with(one, 1).await;
        assert_eq!(tools.smaller(one, 800).await, 1, "some is always tried");
    }

    #[test]
    fn the_rounds_can_be_a_task_of_their_own() {
        fn is_send<T: Send>(_: fn(&'static mut Run<'static>, &'static mut Observer) -> T) {}
        is_send(|run, observer| run.rounds(observer));
    }
}
