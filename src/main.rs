//! The life of the process: let signals wait, keep memory private, parse, log, have it done, exit with the code that tells
//! how it went.

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use valkeeper::cli::Cli;
use valkeeper::command;
use valkeeper::exit::{Exit, catching};
use valkeeper::process::{memory, signals};
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
    match catching(|| command::perform(&cli.command)) {
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
