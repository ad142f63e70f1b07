//! The life of the process: let signals wait, keep memory private, parse, log, listen to signals, run the command, exit with the code that
//! tells how it went.

use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use clap::error::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};
use valkeeper::cli::{Cli, Command};
use valkeeper::command;
use valkeeper::exit::{Exit, Failure, catching};
use valkeeper::process::memory;
use valkeeper::process::signals::{self, Signals};
use valkeeper::telemetry;

fn main() -> ExitCode {
    let blocked = signals::block();
    let private = memory::keep_private();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    telemetry::start(&cli.log);
    if let Err(error) = blocked {
        tracing::warn!("signals that came before now may be lost: {error}");
    }
    if let Err(error) = private {
        tracing::warn!("a core of this process, should it leave one, holds the password: {error}");
    }
    match catching(|| run(&cli)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.is_told() {
                tracing::error!("{failure}");
            }
            failure.exit().into()
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    let shown = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if shown.is_ok() => Exit::Done.into(),
        _ => Exit::Usage.into(),
    }
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Exit::System.because(error))?;
    runtime.block_on(async {
        let done = match &cli.command {
            Command::Run(args) => return command::run::run(args, signals()?).await,
            Command::Bootstrap(args) => command::bootstrap::run(args, stop()?).await,
            Command::Drain(args) => command::drain::run(args, stop()?).await,
            Command::Status(args) => command::status::run(args, stop()?).await,
            Command::Rebalance(args) => command::rebalance::run(args, stop()?).await,
            Command::Evacuate(args) => command::evacuate::run(args, stop()?).await,
            Command::Probe(args) => {
                heard(signals::unblock())?;
                command::probe::run(args).await
            }
            Command::Doctor(args) => {
                heard(signals::unblock())?;
                command::doctor::run(args).await
            }
            Command::Acl(args) => {
                heard(signals::unblock())?;
                command::acl::run(args)
            }
            Command::Install(args) => {
                heard(signals::unblock())?;
                command::install::run(args)
            }
            #[cfg(feature = "local")]
            Command::Local(args) => command::local::run(args, stop()?).await,
        };
        done.map(|()| Exit::Done)
    })
}

/// What a supervisor hears; nothing is lost that came since the first line of the program.
fn signals() -> Result<Signals, Failure> {
    let signals = heard(Signals::listen())?;
    heard(signals::unblock())?;
    Ok(signals)
}

fn heard<T>(result: io::Result<T>) -> Result<T, Failure> {
    result.context("cannot listen to signals").map_err(|error| Exit::System.because(error))
}

/// Is over when somebody asks us to stop.
fn stop() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| heard(signal(kind));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    heard(signals::unblock())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
