//! The loop: hears what happens, asks the supervisor what it means, and does that.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::panic::AssertUnwindSafe;
use std::process::ExitStatus;
use std::sync::Arc;

use futures_util::FutureExt as _;
use rustix::process::{Pid, Signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::duties::{Cut, Duties, Start};
use crate::exit::{self, Exit, Failure};
use crate::process::child::{Child, OnOurDeath};
use crate::process::reaper::Reaper;
use crate::process::signals::{Heard, Signals};
use crate::topology::supervise::{Deadline, Deadlines, Effect, Event, State, Supervisor, Task, Verdict};

/// A server under supervision.
pub(super) struct Supervision<D> {
    rest: Rest,
    supervisor: Supervisor,
    state: watch::Sender<State>,
    duties: Arc<D>,
    command: Vec<OsString>,
    start: Start,
    tasks: JoinSet<Outcome>,
    cut: Option<watch::Sender<bool>>,
}

/// What is left when the loop has a bug: as much as it takes to look after the server.
pub(super) struct Rest {
    pub(super) signals: Signals,
    pub(super) reaper: Reaper,
    pub(super) server: Option<Child>,
    pub(super) is_asked_to_stop: bool,
    /// What the server has ended with.
    pub(super) ended: Option<Exit>,
}

/// What has happened in a task.
enum Outcome {
    Guarded(Result<Start, Failure>),
    Event(Event),
    /// Nothing that changes anything.
    Nothing,
}

impl<D: Duties> Supervision<D> {
    pub(super) fn new(
        command: &[OsString],
        deadlines: Deadlines,
        signals: Signals,
        duties: Arc<D>,
    ) -> Result<Self, Failure> {
        let reaper = Reaper::new().map_err(|error| Exit::System.because(error))?;
        let supervisor = Supervisor::new(deadlines);
        Ok(Self {
            rest: Rest { signals, reaper, server: None, is_asked_to_stop: false, ended: None },
            state: watch::Sender::new(supervisor.state()),
            supervisor,
            duties,
            command: command.to_owned(),
            start: Start::default(),
            tasks: JoinSet::new(),
            cut: None,
        })
    }

    /// Runs to the end of the server. An error is a bug of the loop; the server may run.
    pub(super) async fn run(&mut self) -> Result<Exit, Failure> {
        AssertUnwindSafe(self.drive()).catch_unwind().await.map_err(|panic| exit::bug(&*panic))
    }

    /// Gives up everything that could do more harm.
    pub(super) fn into_rest(self) -> Rest {
        self.rest
    }

    async fn drive(&mut self) -> Exit {
        let state = self.state.subscribe();
        self.task(
            Task::Company,
            |duties| duties.accompany(state),
            |ended| {
                tell(ended, "what goes on beside the server");
                Outcome::Nothing
            },
        );
        let mut events = VecDeque::from([Event::Begin]);
        loop {
            while let Some(event) = events.pop_front() {
                let effects = self.supervisor.on(event);
                tracing::debug!("{event:?}: {effects:?}");
                self.state.send_if_modified(|state| std::mem::replace(state, self.supervisor.state()) != *state);
                for effect in effects {
                    match effect {
                        Effect::Exit(exit) => return exit,
                        other => events.extend(self.carry_out(other)),
                    }
                }
            }
            events.push_back(self.next().await);
        }
    }

    async fn next(&mut self) -> Event {
        loop {
            // In this order: a verdict counts before the end of the server that it is about.
            tokio::select! {
                biased;
                heard = self.rest.signals.next() => return match heard {
                    Heard::Stop => {
                        self.rest.is_asked_to_stop = true;
                        tracing::info!("asked to stop");
                        Event::Stop
                    }
                    Heard::Forward(signal) => Event::Forward(signal.as_raw()),
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Outcome::Guarded(Ok(start))) => {
                        self.start = start;
                        return Event::Guarded(Ok(()));
                    }
                    Ok(Outcome::Guarded(Err(failure))) => {
                        tracing::error!("the server does not start: {failure}");
                        return Event::Guarded(Err(failure.exit()));
                    }
                    Ok(Outcome::Event(event)) => return event,
                    Ok(Outcome::Nothing) | Err(_) => {}
                },
                status = ended(&mut self.rest.server) => {
                    self.rest.server = None;
                    let exit = status.as_ref().map_or(Exit::System, |status| Exit::of(*status));
                    self.rest.ended = Some(exit);
                    tell_end(&status);
                    return Event::ServerExited(exit);
                }
                never = self.rest.reaper.run() => match never {},
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Guard => self.task(Task::Guard, D::guard, Outcome::Guarded),
            Effect::Spawn => return Some(self.spawn()),
            Effect::Forward(signal) => self.signal(Signal::from_named_raw(signal)),
            Effect::BeginDrain => {
                let (sender, cut) = Cut::new();
                self.cut = Some(sender);
                self.task(
                    Task::Drain,
                    |duties| duties.drain(cut),
                    |ended| {
                        let verdict = ended.unwrap_or_else(|failure| {
                            tracing::error!("the drain failed, the server stops by its own rules: {failure}");
                            Verdict::LeftToServer
                        });
                        Outcome::Event(Event::DrainEnded(verdict))
                    },
                );
            }
            Effect::CutDrain => {
                if let Some(cut) = &self.cut {
                    cut.send_replace(true);
                }
            }
            Effect::TellServerToStop => self.signal(Some(Signal::TERM)),
            Effect::Kill => {
                tracing::error!("the grace period is over and the server is killed; what it has not saved is lost");
                warn(self.rest.server.as_ref().map(Child::kill));
            }
            Effect::Arm(deadline, duration) => {
                let reached = sleep(duration).map(move |()| {
                    tell_deadline(deadline);
                    Outcome::Event(Event::Deadline(deadline))
                });
                self.tasks.spawn(reached);
            }
            Effect::BeginHandover => {
                self.task(Task::Handover, D::hand_over, |ended| {
                    tell(ended, "to hand over from the server that has ended");
                    Outcome::Event(Event::HandoverEnded)
                });
            }
            Effect::Exit(_) => {}
        }
        None
    }

    /// Begins one whose panic is an event like any other.
    fn task<W: Future<Output: Send> + Send + 'static>(
        &mut self,
        task: Task,
        work: impl FnOnce(Arc<D>) -> W + Send + 'static,
        outcome: impl FnOnce(W::Output) -> Outcome + Send + 'static,
    ) {
        let duties = Arc::clone(&self.duties);
        let work = async move { outcome(work(duties).await) };
        self.tasks.spawn(AssertUnwindSafe(work).catch_unwind().map(move |ended| {
            ended.unwrap_or_else(|panic| {
                tracing::error!("{task:?}: {}", exit::bug(&*panic));
                Outcome::Event(Event::TaskPanicked(task))
            })
        }));
    }

    fn spawn(&mut self) -> Event {
        let Some((program, args)) = self.command.split_first() else { return Event::SpawnFailed(Exit::Usage) };
        let input = self.start.input.take();
        let text = input.as_ref().map_or("", |secret| secret.reveal());
        let mut args = args.to_vec();
        if !text.is_empty() {
            args.push(OsString::from("-"));
        }
        match Child::start(program, &args, self.start.withheld, OnOurDeath::Terminate, text.as_bytes()) {
            Ok((server, input)) => {
                let pid = server.id().map(Pid::as_raw_pid);
                self.rest.server = Some(server);
                tracing::info!(pid, "{} starts", program.display());
                self.tasks.spawn(input.give().map(|given| {
                    if let Err(error) = given {
                        tracing::error!("cannot give the server its settings on standard input: {error}");
                    }
                    Outcome::Nothing
                }));
                Event::Spawned
            }
            Err(error) => {
                let exit = Exit::of_failed_start(&error);
                tracing::error!("cannot start {}: {error}; {}", program.display(), remedy(exit));
                Event::SpawnFailed(exit)
            }
        }
    }

    fn signal(&self, signal: Option<Signal>) {
        warn(signal.and_then(|signal| Some(self.rest.server.as_ref()?.signal(signal))));
    }
}

/// The end of the server; for ever where none runs.
pub(super) async fn ended(server: &mut Option<Child>) -> io::Result<ExitStatus> {
    match server {
        Some(server) => server.wait().await,
        None => pending().await,
    }
}

/// Says how the server has ended.
pub(super) fn tell_end(status: &io::Result<ExitStatus>) {
    match status {
        Ok(status) => tracing::info!("the server has ended ({status})"),
        Err(error) => tracing::error!("the server cannot be waited for: {error}"),
    }
}

pub(super) fn warn(signalled: Option<io::Result<()>>) {
    if let Some(Err(error)) = signalled {
        tracing::warn!("cannot signal the server: {error}");
    }
}

fn tell(ended: Result<(), Failure>, what: &str) {
    if let Err(failure) = ended {
        tracing::error!("failed: {what}: {failure}");
    }
}

fn tell_deadline(deadline: Deadline) {
    match deadline {
        Deadline::Kill | Deadline::Verdict => {}
        Deadline::End => tracing::error!("the server was killed and does not end"),
        Deadline::Handover => tracing::error!("no heir has taken over within --handover-timeout"),
    }
}

fn remedy(exit: Exit) -> &'static str {
    match exit {
        Exit::NotFound => "give its path, or put it and the interpreter its first line names where PATH finds them",
        Exit::NotExecutable => "make it a program that this user may execute and that is built for this machine",
        _ => "see the limits of processes and memory of this container",
    }
}
