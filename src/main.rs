//! The life of the process: parse, log, run the command, exit with the code that tells how it went.

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};
use valkeeper::cli::{Cli, Command};
use valkeeper::command;
use valkeeper::exit::{Exit, Failure, catching};
use valkeeper::telemetry;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    telemetry::start(&cli.log);
    match catching(|| run(&cli)) {
        Ok(()) => Exit::Done.into(),
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

fn run(cli: &Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Exit::System.because(error))?;
    runtime.block_on(async {
        let stop = stop()?;
        match &cli.command {
            Command::Bootstrap(args) => command::bootstrap::run(args, stop).await,
            Command::Status(args) => command::status::run(args, stop).await,
            Command::Drain(args) => command::drain::run(args, stop).await,
            Command::Probe(args) => command::probe::run(args).await,
            Command::Doctor(args) => command::doctor::run(args).await,
            #[cfg(feature = "local")]
            Command::Local(args) => command::local::run(args, stop).await,
        }
    })
}

/// Is over when somebody asks us to stop.
fn stop() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Exit::System.because(error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
