//! The rounds of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::carry::carry;
use super::standing::Standing;
use super::{Tools, WORD, handover};
use crate::exit::{Exit, Failure};
use crate::observer::Observer;
use crate::topology::identity::Settings;
use crate::topology::membership::Membership;
use crate::topology::node::NodeId;
use crate::topology::observation::Observation;
use crate::topology::rebalance::{Counts, Evacuation, Goal, Ground, Mend, Move, Refused, doubts, mend};
use crate::topology::slot::SlotSet;
use crate::valkey::{MoveError, SlotState};

const UNKNOWN: &str = "not every node knows yet who owns what";

const FRUITLESS: &str = "servers do not take part as they have to, or somebody else moves the same slots (--log-level debug \
    shows what they say)";

/// One run of rounds towards a goal.
#[derive(Debug)]
pub struct Run<'r> {
    tools: &'r Tools<'r>,
    goal: &'r Goal,
    deadline: Instant,
    /// Only slots of this node are moved, where one is named.
    only: Option<NodeId>,
    /// Whether nobody was seen to undo it when it began.
    undisturbed: bool,
    /// Which refusal stands, and since when.
    refused: Option<(Discriminant<Refused>, Instant)>,
    /// That of the slowest server.
    node_timeout: Duration,
    /// Which marks are to be taken away, and since when.
    stale: BTreeMap<Mend, Instant>,
    told: BTreeSet<String>,
    /// None after a round without trouble.
    stalled: Option<Stall>,
    /// When it was last begun to do something.
    began: Instant,
    /// How many slots have been settled that an earlier run had left half-way.
    pub(super) resumed: usize,
    standing: Standing,
    /// Who has taken over from whom.
    pub(super) handed_over: Vec<(String, String)>,
}

/// Trouble that comes again and again.
#[derive(Debug)]
struct Stall {
    /// How much had been done when it began.
    moved: u64,
    since: Instant,
    last: Instant,
}

/// What ends with what was seen last.
pub(super) type Rounds<'f> = Pin<Box<dyn Future<Output = Result<Observation, Failure>> + Send + 'f>>;

/// What comes next.
enum Next {
    /// The goal is reached.
    Done,
    /// Something else has to come about first.
    Wait(String),
    /// Slots are to be moved, by whatever way fits.
    Move(Vec<Move>),
    /// Half-moved slots come first.
    Mend(Mending),
    /// A primary that leaves is to be followed by one that stays.
    HandOver(Evacuation),
}

/// What is done about half-moved slots.
#[derive(Debug, Default)]
struct Mending {
    /// What is left to be moved of them, key by key.
    moves: Vec<Move>,
    /// Marks to be taken away, and slots to be owned.
    marks: Vec<Mend>,
}

impl<'r> Run<'r> {
    const SHORT: Duration = Duration::from_millis(20);
    const WAIT: Duration = Duration::from_millis(100);

    /// How long a mark that nobody needs must stand before it is taken away: another run may just have set it, and be
    /// about to go on.
    const STALE: Duration = Duration::from_secs(1);

    /// What is in the way for so long is told.
    const TOLD: Duration = Duration::from_secs(1);

    /// After so long without a key or slot moved, trouble is not tried again.
    const STALL: Duration = Duration::from_secs(60);

    /// Trouble after so long without any, because somebody else was waited for, is another one.
    const PAUSE: Duration = Duration::from_secs(10);

    /// A run that has not begun.
    pub fn new(tools: &'r Tools<'r>, goal: &'r Goal, deadline: Instant) -> Self {
        Self {
            tools,
            goal,
            deadline,
            only: None,
            undisturbed: false,
            refused: None,
            node_timeout: Settings::DEFAULT.node_timeout,
            stale: BTreeMap::new(),
            told: BTreeSet::new(),
            stalled: None,
            began: Instant::now(),
            resumed: 0,
            standing: Standing::default(),
            handed_over: Vec::new(),
        }
    }

    /// The same that moves only slots of this node.
    pub fn only_from(self, node: NodeId) -> Self {
        Self { only: Some(node), ..self }
    }

    /// Looks and acts until the goal is reached, and everybody knows. In a box, so that it is in the binary once.
    pub fn rounds<'f>(&'f mut self, observer: &'f mut Observer) -> Rounds<'f> {
        Box::pin(self.reach(observer))
    }

    /// Takes back what servers were told for the time of the run, also where that was cut off.
    pub(super) async fn release(&mut self) {
        self.standing.release(self.tools).await;
    }

    async fn reach(&mut self, observer: &mut Observer) -> Result<Observation, Failure> {
        // The first look may have been at one node only; it has told of the others.
        observer.round(self.deadline).await;
        while !self.tools.halt.is_set() {
            let observation = observer.round(self.deadline).await;
            let membership = Membership::of(&observation, &observer.cluster());
            self.node_timeout = node_timeout(&membership);
            self.began = Instant::now();
            let next = async {
                let ground = Ground::survey(&membership)?;
                let next = self.next(&ground, &membership).await?;
                Ok((ground, next))
            };
            let (ground, next) = match next.await {
                Ok(next) => next,
                Err(doubt) => {
                    self.doubt(doubt)?;
                    sleep(Self::WAIT).await;
                    continue;
                }
            };
            self.refused = None;
            if let (Goal::Evacuate { pods, shards }, Next::Move(_) | Next::Mend(_)) = (self.goal, &next)
                && let Ok(evacuation) = Evacuation::of(&ground, &membership, pods, *shards)
            {
                self.standing.hold(self.tools, &evacuation.dissolving).await;
            }
            let (is_wait, before) = (matches!(next, Next::Wait(_)), self.done());
            let acted = match next {
                Next::Done => return Ok(observation),
                Next::Wait(why) => {
                    self.tell(why);
                    Ok(())
                }
                Next::Move(moves) => carry(self.tools, &ground, &moves, false).await,
                Next::Mend(mending) => self.mend(&ground, mending).await,
                Next::HandOver(evacuation) => {
                    let trouble = handover::hand_over(self.tools, &ground, &evacuation, &mut self.handed_over).await;
                    trouble.map_err(MoveError::Passing)
                }
            };
            match acted {
                Ok(()) if is_wait => {}
                Ok(()) if self.done() == before => self.failed(MoveError::Overtaken(FRUITLESS.to_owned()))?,
                Ok(()) => self.stalled = None,
                Err(error) => {
                    self.failed(error)?;
                    sleep(Self::WAIT).await;
                }
            }
            sleep(Self::SHORT).await;
        }
        Err(Exit::Unfinished.saying("stopped"))
    }

    /// What is left to be moved, and by whom; for who wants to know and not to move.
    pub(super) async fn survey(&mut self, observer: &mut Observer) -> Result<(Ground, Vec<Move>), Failure> {
        observer.round(self.deadline).await;
        loop {
            let observation = observer.round(self.deadline).await;
            let membership = Membership::of(&observation, &observer.cluster());
            self.node_timeout = node_timeout(&membership);
            let planned = async {
                let ground = Ground::survey(&membership)?;
                let moves = self.goal.moves(&ground, &membership)?;
                self.expect_undisturbed(&membership).await?;
                Ok((ground, moves))
            };
            match planned.await {
                Ok(planned) => return Ok(planned),
                Err(doubt) => self.doubt(doubt)?,
            }
            sleep(Self::WAIT).await;
        }
    }

    async fn next(&mut self, ground: &Ground, membership: &Membership<'_>) -> Result<Next, Doubt> {
        if !self.undisturbed {
            self.expect_undisturbed(membership).await?;
            self.undisturbed = true;
        }
        for primary in ground.primaries.iter().filter(|primary| primary.is_atomic() && self.is_ours(primary.id)) {
            let jobs = self.tools.mover(primary).await?.migrations().await?;
            if jobs.iter().any(|job| job.is_export && job.runs()) {
                return Ok(Next::Wait(format!("{} still moves slots that were begun before", primary.label)));
            }
        }
        let mends = mend(ground, membership, &self.count(ground).await?)?;
        if let Some(next) = self.mending(mends) {
            return Ok(next);
        }
        let mut moves = self.goal.moves(ground, membership)?;
        moves.retain(|one| self.is_ours(one.from));
        if !moves.is_empty() {
            let is_last = |one: &Move| ground.get(one.from).is_some_and(|from| from.slots.len() == one.slots.len());
            return Ok(match ground.agreed || !moves.iter().any(is_last) {
                true => Next::Move(moves),
                false => Next::Wait(UNKNOWN.to_owned()),
            });
        }
        if let Goal::Evacuate { pods, shards } = self.goal {
            let evacuation = Evacuation::of(ground, membership, pods, *shards)?;
            if !evacuation.handovers.is_empty() {
                return Ok(Next::HandOver(evacuation));
            }
        }
        if ground.agreed || self.only.is_some() {
            self.expect_undisturbed(membership).await?;
            return Ok(Next::Done);
        }
        Ok(Next::Wait(UNKNOWN.to_owned()))
    }

    /// What is emptied must not be filled again. Replicas are looked at, too: they may be primaries tomorrow.
    async fn expect_undisturbed(&self, membership: &Membership<'_>) -> Result<(), Doubt> {
        let mut others = Vec::new();
        if let Goal::Evacuate { .. } = self.goal {
            for member in &membership.members {
                if self.tools.mover_at(member.id(), &member.label(), WORD).await?.is_kept_even().await? {
                    others.push(member.label());
                }
            }
        }
        match others.is_empty() {
            true => Ok(()),
            false => Err(Refused::KeptEven(others).into()),
        }
    }

    fn is_ours(&self, node: NodeId) -> bool {
        self.only.is_none_or(|only| only == node)
    }

    /// How many keys there are where it matters for what an open slot means.
    async fn count(&self, ground: &Ground) -> Result<Counts, MoveError> {
        let mut counts = Counts::new();
        let doubts = doubts(ground);
        for primary in &ground.primaries {
            let slots: Vec<_> = doubts.iter().filter(|(node, _)| *node == primary.id).map(|(_, slot)| *slot).collect();
            if slots.is_empty() {
                continue;
            }
            let found = self.tools.mover(primary).await?.count(&slots).await?;
            counts.extend(slots.into_iter().zip(found).map(|(slot, keys)| ((primary.id, slot), keys)));
        }
        Ok(counts)
    }

    /// The part of the mends that is ours and can be done now; waits where nothing else is left to do.
    fn mending(&mut self, mends: BTreeSet<Mend>) -> Option<Next> {
        let now = Instant::now();
        self.stale.retain(|mend, _| mends.contains(mend));
        let mut moves: BTreeMap<(NodeId, NodeId), SlotSet> = BTreeMap::new();
        let (mut mending, mut waits) = (Mending::default(), false);
        for mend in mends {
            match mend {
                Mend::Finish { slot, from, to } if self.is_ours(from) => {
                    moves.entry((from, to)).or_insert(SlotSet::EMPTY).insert(slot);
                }
                Mend::Close { on: node, .. } | Mend::Own { by: node, .. } if self.is_ours(node) => {
                    let since = *self.stale.entry(mend).or_insert(now);
                    match now - since >= Self::STALE {
                        true => mending.marks.push(mend),
                        false => waits = true,
                    }
                }
                _ => {}
            }
        }
        mending.moves = moves.into_iter().map(|((from, to), slots)| Move { from, to, slots }).collect();
        match (mending.moves.is_empty() && mending.marks.is_empty(), waits) {
            (false, _) => Some(Next::Mend(mending)),
            (true, true) => Some(Next::Wait("slots are half-way that nobody seems to move".to_owned())),
            (true, false) => None,
        }
    }

    async fn mend(&mut self, ground: &Ground, mending: Mending) -> Result<(), MoveError> {
        for mark in &mending.marks {
            let (node, slot, state) = match *mark {
                Mend::Close { slot, on } => (on, slot, SlotState::Stable),
                Mend::Own { slot, by } => (by, slot, SlotState::Node(by)),
                Mend::Finish { .. } => continue,
            };
            if let Some(primary) = ground.get(node) {
                let mut mover = self.tools.mover(primary).await?;
                for outcome in mover.set(&[slot], state).await? {
                    outcome?;
                }
                tracing::debug!("slot {slot}: closed on {}", primary.label);
                self.resumed += 1;
            }
        }
        let slots: usize = mending.moves.iter().map(|one| one.slots.len()).sum();
        if slots > 0 {
            self.tell(format!("finishing {slots} slots that were left half-way"));
            let before = self.tools.meter.slots();
            let carried = carry(self.tools, ground, &mending.moves, true).await;
            self.resumed += usize::try_from(self.tools.meter.slots() - before).unwrap_or(usize::MAX);
            return carried;
        }
        Ok(())
    }

    fn tell(&mut self, sentence: String) {
        if self.told.insert(sentence.clone()) {
            self.tools.meter.say(&sentence);
        }
    }

    fn doubt(&mut self, doubt: Doubt) -> Result<(), Failure> {
        match doubt {
            Doubt::Refused(refused) => self.refuse(&refused),
            Doubt::Error(error) => self.failed(error),
        }
    }

    /// Grows whenever something has come about.
    fn done(&self) -> u64 {
        let (marks, heirs) = (self.resumed as u64, self.handed_over.len() as u64);
        self.tools.meter.slots() + self.tools.meter.keys() + marks + heirs
    }

    /// Something that may work next time.
    fn failed(&mut self, error: MoveError) -> Result<(), Failure> {
        let what = match error {
            MoveError::Overtaken(why) => {
                tracing::debug!("looking again: {why}");
                why
            }
            MoveError::Passing(why) => {
                if self.told.insert(why.clone()) {
                    tracing::warn!("trying again: {why}");
                }
                why
            }
            // It goes on as long as that one does, which is for the user to judge.
            MoveError::Busy(why) => {
                self.tell(format!("waiting: {why}"));
                return Ok(());
            }
            MoveError::Forbidden(why) => return Err(Exit::Usage.saying(format!("not allowed: {why}"))),
        };
        let moved = self.done();
        let since = match &self.stalled {
            Some(stall) if stall.moved == moved && self.began < stall.last + Self::PAUSE => stall.since,
            _ => Instant::now(),
        };
        self.stalled = Some(Stall { moved, since, last: Instant::now() });
        match since.elapsed() > Self::STALL {
            true => Err(Exit::Unfinished.saying(format!("nothing moves any more: {what}; run this again to go on"))),
            false => Ok(()),
        }
    }

    /// Final once the same refusal has stood long enough.
    fn refuse(&mut self, refused: &Refused) -> Result<(), Failure> {
        let which = discriminant(refused);
        let since = match self.refused {
            Some((before, since)) if before == which => since,
            _ => Instant::now(),
        };
        self.refused = Some((which, since));
        // A deadline may come before patience ends.
        if since.elapsed() >= Self::TOLD {
            self.tell(refused.to_string());
        }
        match since.elapsed() >= refused.patience(self.node_timeout) {
            true => Err(Exit::Refused.saying(format!("{refused}. What to do: {}", refused.remedy()))),
            false => Ok(()),
        }
    }
}

/// After how long the slowest of the members takes another one for dead.
fn node_timeout(membership: &Membership<'_>) -> Duration {
    let timeouts = membership.members.iter().map(|member| member.report.settings.node_timeout);
    timeouts.max().unwrap_or(Settings::DEFAULT.node_timeout)
}

/// Why it cannot be told what comes next.
enum Doubt {
    Refused(Refused),
    Error(MoveError),
}

impl From<Refused> for Doubt {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<MoveError> for Doubt {
    fn from(error: MoveError) -> Self {
        Self::Error(error)
    }
}
