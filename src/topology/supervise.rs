//! What supervision does next: the states that a server's life under `run` has, and what leads from one to the next.
//!
//! Whoever drives it feeds it everything that happens and carries out what it says, in that order. It never says to
//! kill the server before the last second of the grace period.

use std::time::Duration;

use crate::exit::Exit;

/// How long the report of a drain is waited for when the server has ended before it.
const VERDICT_WITHIN: Duration = Duration::from_secs(1);
/// How long the kernel may take to end a killed server.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was begun.
    Idle,
    /// It is being found out whether and how the server may start.
    Guarding,
    /// The server is being started.
    Starting,
    /// The server runs.
    Running,
    /// The server hands over and saves.
    Draining,
    /// The server was told to stop.
    Stopping,
    /// The server was killed.
    Killing,
    /// The server has ended in a drain, whose verdict is waited for.
    Concluding,
    /// The server has ended by itself, be it in a drain; its heir is being asked to take over.
    HandingOver,
    /// It is over.
    Exited,
}

/// Something that has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Supervision is to begin.
    Begin,
    /// The server may start, or must not and why.
    Guarded(Result<(), Exit>),
    /// The server was started.
    Spawned,
    /// The server could not be started.
    SpawnFailed(Exit),
    /// Somebody asks us to stop.
    Stop,
    /// A signal of this number came that is the server's business.
    Forward(i32),
    /// The drain has ended.
    DrainEnded(Verdict),
    /// The server has ended, and this is what its end means to whoever started us.
    ServerExited(Exit),
    /// The heir has taken over, or there is none, or it was asked in vain.
    HandoverEnded,
    /// An armed deadline is reached.
    Deadline(Deadline),
    /// A task of ours has a bug.
    TaskPanicked(Task),
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that should be is saved, and the server was told to stop.
    Clean,
    /// Not everything is saved. The server was told to stop, or has its time until the last second.
    Unfinished,
    /// Nothing could be done for the server: it is to save and stop by its own rules.
    LeftToServer,
}

/// What is done beside the supervision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Finds out whether and how the server may start.
    Guard,
    /// Hands over, saves and tells the server to stop.
    Drain,
    /// Asks the heir of a server that has ended by itself.
    Handover,
    /// Everything that goes on beside the server without deciding over it.
    Company,
}

/// What is not waited for beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The last second of the grace period begins.
    Kill,
    /// A killed server should have ended long ago.
    End,
    /// The drain should have said how it went.
    Verdict,
    /// The heir should have taken over.
    Handover,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Begin to find out whether and how the server may start.
    Guard,
    /// Start the server.
    Spawn,
    /// Send the server this signal.
    Forward(i32),
    /// Begin the drain.
    BeginDrain,
    /// Tell the drain to end at once.
    CutDrain,
    /// Send the server SIGTERM: it saves and stops by its own rules.
    TellServerToStop,
    /// Send the server and all it has forked SIGKILL.
    Kill,
    /// Report this deadline when so much time is over.
    Arm(Deadline, Duration),
    /// Begin to ask the heir.
    BeginHandover,
    /// End with this exit code.
    Exit(Exit),
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the first stop signal until a server that still runs is killed.
    pub kill_at: Duration,
    /// From the end of the server until its heir is no longer asked.
    pub handover: Duration,
}

/// The state machine. No event in any state panics, and nothing comes after [`Effect::Exit`].
#[derive(Clone, Debug)]
pub struct Supervisor {
    deadlines: Deadlines,
    state: State,
    /// Whether the drain has not ended yet.
    drain_runs: bool,
    /// Whether a second stop signal came.
    is_cut: bool,
    /// A stop signal that came when there was nothing to stop yet.
    stop_is_due: bool,
    /// Whether the drain has gone to its end, and everything is saved.
    is_saved: bool,
    /// Whether not everything is saved.
    is_unfinished: bool,
    /// What to exit with, once all that is waited for is over.
    exit: Exit,
}

impl Deadlines {
    /// Of the grace period only the last second is for the kill; of one shorter than two, the second half.
    pub fn new(grace_period: Duration, handover: Duration) -> Self {
        const LAST: Duration = Duration::from_secs(1);
        Self { kill_at: grace_period.saturating_sub(LAST).max(grace_period / 2), handover }
    }
}

impl Supervisor {
    /// Nothing was begun; the first event is to be [`Event::Begin`].
    pub fn new(deadlines: Deadlines) -> Self {
        Self {
            deadlines,
            state: State::Idle,
            drain_runs: false,
            is_cut: false,
            stop_is_due: false,
            is_saved: false,
            is_unfinished: false,
            exit: Exit::Done,
        }
    }

    /// Where the server is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// What is to be done now, in this order. An event that has nothing to say to the state changes nothing.
    pub fn on(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Begin if self.state == State::Idle => self.enter(State::Guarding, [Effect::Guard]),
            Event::Guarded(guarded) if self.state == State::Guarding => match guarded {
                Ok(()) => self.enter(State::Starting, [Effect::Spawn]),
                Err(exit) => self.exit(exit),
            },
            Event::Spawned if self.state == State::Starting => {
                self.state = State::Running;
                if self.stop_is_due { self.stop() } else { Vec::new() }
            }
            Event::SpawnFailed(exit) if self.state == State::Starting => self.exit(exit),
            Event::Stop => self.stop(),
            Event::Forward(signal) if self.server_runs() => vec![Effect::Forward(signal)],
            Event::DrainEnded(verdict) => self.drain_ended(verdict),
            Event::ServerExited(exit) if self.server_runs() => self.server_exited(exit),
            Event::HandoverEnded if self.state == State::HandingOver => self.exit(self.verdict()),
            Event::Deadline(deadline) => self.deadline(deadline),
            Event::TaskPanicked(task) => self.panicked(task),
            _ => Vec::new(),
        }
    }

    fn stop(&mut self) -> Vec<Effect> {
        match self.state {
            // There is no server, so there is nothing to lose.
            State::Idle | State::Guarding => self.exit(Exit::Done),
            State::Starting => {
                self.stop_is_due = true;
                Vec::new()
            }
            State::Running => {
                self.drain_runs = true;
                let kill = Effect::Arm(Deadline::Kill, self.deadlines.kill_at);
                self.enter(State::Draining, [kill, Effect::BeginDrain])
            }
            State::Draining | State::Stopping if !self.is_cut => {
                self.is_cut = true;
                let cut = self.drain_runs.then_some(Effect::CutDrain);
                self.enter(State::Stopping, cut.into_iter().chain([Effect::TellServerToStop]))
            }
            _ => Vec::new(),
        }
    }

    fn drain_ended(&mut self, verdict: Verdict) -> Vec<Effect> {
        if !self.drain_runs {
            return Vec::new();
        }
        self.drain_runs = false;
        self.is_saved = verdict == Verdict::Clean;
        self.is_unfinished = match verdict {
            Verdict::Clean => false,
            Verdict::Unfinished => true,
            Verdict::LeftToServer => self.is_unfinished,
        };
        match (self.state, verdict) {
            (State::Draining, Verdict::LeftToServer) => self.enter(State::Stopping, [Effect::TellServerToStop]),
            (State::Draining, _) => self.enter(State::Stopping, []),
            // It died before it could hand over, for all we know.
            (State::Concluding, Verdict::LeftToServer) => self.hand_over(),
            (State::Concluding, _) => self.exit(self.verdict()),
            _ => Vec::new(),
        }
    }

    fn hand_over(&mut self) -> Vec<Effect> {
        let end = Effect::Arm(Deadline::Handover, self.deadlines.handover);
        self.enter(State::HandingOver, [end, Effect::BeginHandover])
    }

    fn server_exited(&mut self, exit: Exit) -> Vec<Effect> {
        self.exit = exit;
        match self.state {
            State::Running => self.hand_over(),
            // The drain is about to say how it went.
            _ if self.drain_runs && !self.is_unfinished => {
                let end = Effect::Arm(Deadline::Verdict, VERDICT_WITHIN);
                self.enter(State::Concluding, [end])
            }
            _ => self.exit(self.verdict()),
        }
    }

    fn deadline(&mut self, deadline: Deadline) -> Vec<Effect> {
        match (deadline, self.state) {
            (Deadline::Kill, State::Draining | State::Stopping) => {
                // Whoever still saves at the end, the drain or the server by its own rules, has not saved.
                self.is_unfinished |= !self.is_saved;
                let cut = self.drain_runs.then_some(Effect::CutDrain);
                let end = Effect::Arm(Deadline::End, END_WITHIN);
                self.enter(State::Killing, cut.into_iter().chain([Effect::Kill, end]))
            }
            (Deadline::End, State::Killing) => self.exit(Exit::System),
            (Deadline::Verdict, State::Concluding) => self.hand_over(),
            (Deadline::Handover, State::HandingOver) => self.exit(self.verdict()),
            _ => Vec::new(),
        }
    }

    fn panicked(&mut self, task: Task) -> Vec<Effect> {
        match (task, self.state) {
            // To start unguarded could destroy what the guard is there for.
            (Task::Guard, State::Guarding) => self.exit(Exit::Bug),
            (Task::Drain, _) => self.drain_ended(Verdict::LeftToServer),
            (Task::Handover, State::HandingOver) => self.exit(self.verdict()),
            _ => Vec::new(),
        }
    }

    fn server_runs(&self) -> bool {
        matches!(self.state, State::Running | State::Draining | State::Stopping | State::Killing)
    }

    fn verdict(&self) -> Exit {
        if self.is_unfinished { Exit::Unfinished } else { self.exit }
    }

    fn exit(&mut self, exit: Exit) -> Vec<Effect> {
        self.enter(State::Exited, [Effect::Exit(exit)])
    }

    fn enter(&mut self, state: State, effects: impl IntoIterator<Item = Effect>) -> Vec<Effect> {
        self.state = state;
        effects.into_iter().collect()
    }
}
