//! `valkeeper run` with duties that do what a test says: `scripted_duties [NAME=WHAT]… -- SERVER…`.
//!
//! `guard`: ok, input, refuse, panic. `drain`: clean, unfinished, wait, error, panic, hang. `handover`: ok, error, panic,
//! hang. `company`: ok, error, panic. `grace` and `handover-timeout`: milliseconds. `bug`: the loop itself panics
//! when it is about to log this text. A drain tells the server to stop by SIGUSR1 to the pid in the file `pid`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::future::pending;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::span;
use valkeeper::command::run::duties::{Cut, Duties, Start};
use valkeeper::command::run::supervise;
use valkeeper::config::Secret;
use valkeeper::exit::{Exit, Failure, catching};
use valkeeper::process::signals::{self, Signals};
use valkeeper::topology::supervise::{Deadlines, State, Verdict};

struct Script(BTreeMap<String, String>);

/// Prints what is logged, and panics at one text, once.
struct Log {
    bug: Option<String>,
}

struct Message(String);

fn main() -> ExitCode {
    signals::block().unwrap();
    let mut args = std::env::args();
    args.next();
    let told: BTreeMap<String, String> = args
        .by_ref()
        .take_while(|arg| arg != "--")
        .map(|arg| arg.split_once('=').map(|(name, what)| (name.to_owned(), what.to_owned())).unwrap())
        .collect();
    let server: Vec<OsString> = args.map(OsString::from).collect();
    tracing::subscriber::set_global_default(Log { bug: told.get("bug").cloned() }).unwrap();
    let script = Script(told);
    let deadlines = Deadlines::new(script.duration("grace"), script.duration("handover-timeout"));
    let ended = catching(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let signals = Signals::listen().unwrap();
            signals::unblock().unwrap();
            supervise(&server, deadlines, signals, Arc::new(script)).await
        })
    });
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit().into()
        }
    }
}

impl Script {
    fn on(&self, duty: &str) -> &str {
        self.0.get(duty).map_or("ok", |what| what)
    }

    fn duration(&self, name: &str) -> Duration {
        Duration::from_millis(self.0.get(name).map_or(60_000, |text| text.parse().unwrap()))
    }

    async fn act(&self, duty: &str) -> Result<(), Failure> {
        match self.on(duty) {
            "error" => Err(Exit::Unavailable.saying(format!("{duty} fails"))),
            "panic" => panic!("{duty} panics"),
            "hang" => pending().await,
            _ => {
                println!("{duty} is done");
                Ok(())
            }
        }
    }
}

impl Duties for Script {
    async fn guard(self: Arc<Self>) -> Result<Start, Failure> {
        match self.on("guard") {
            "refuse" => Err(Exit::Refused.saying("it would be unsafe")),
            "input" => Ok(Start { input: Some(Secret::new("requirepass hunter2\n")), ..Start::default() }),
            "big-input" => Ok(Start { input: Some(Secret::new("x".repeat(1 << 20))), ..Start::default() }),
            _ => self.act("guard").await.map(|()| Start::default()),
        }
    }

    async fn drain(self: Arc<Self>, mut cut: Cut) -> Result<Verdict, Failure> {
        let verdict = match self.on("drain") {
            "clean" => Verdict::Clean,
            "unfinished" => Verdict::Unfinished,
            "wait" => {
                println!("drain waits");
                cut.is_given().await;
                println!("drain is cut");
                return Ok(Verdict::Unfinished);
            }
            _ => return self.act("drain").await.map(|()| Verdict::LeftToServer),
        };
        let pid = fs::read_to_string("pid").unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::USR1).unwrap();
        Ok(verdict)
    }

    async fn hand_over(self: Arc<Self>) -> Result<(), Failure> {
        self.act("handover").await
    }

    async fn accompany(self: Arc<Self>, mut state: watch::Receiver<State>) -> Result<(), Failure> {
        self.act("company").await?;
        while state.changed().await.is_ok() {
            println!("{:?}", *state.borrow_and_update());
        }
        Ok(())
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("valkeeper")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        eprintln!("{}", message.0);
        let is_in_the_loop = event.metadata().target().ends_with("supervision");
        let has_bug = self.bug.as_ref().is_some_and(|bug| message.0.contains(bug));
        assert!(!(has_bug && is_in_the_loop), "the loop panics");
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
