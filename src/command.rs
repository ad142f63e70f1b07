//! The subcommands: each observes, decides, acts, and nothing else.

use std::io;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Command;
use crate::exit::{Exit, Failure};
use crate::process::signals::{self, Signals};

pub mod acl;
pub mod bootstrap;
pub mod doctor;
pub mod drain;
pub mod evacuate;
pub mod install;
#[cfg(feature = "local")]
pub mod local;
pub mod probe;
pub mod rebalance;
pub mod run;
pub mod status;

mod password_file;
mod peers;
mod progress;
mod render;
mod rounds;

/// Does what was asked for. Here and not in the program, so that no future is compiled for both of them.
pub fn perform(command: &Command) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Exit::System.because(error))?;
    runtime.block_on(async {
        let done = match command {
            Command::Run(args) => return run::run(args, signals()?).await,
            Command::Bootstrap(args) => bootstrap::run(args, stop()?).await,
            Command::Drain(args) => drain::run(args, stop()?).await,
            Command::Status(args) => status::run(args, stop()?).await,
            Command::Rebalance(args) => rebalance::run(args, stop()?).await,
            Command::Evacuate(args) => evacuate::run(args, stop()?).await,
            Command::Probe(args) => {
                heard(signals::unblock())?;
                probe::run(args).await
            }
            Command::Doctor(args) => {
                heard(signals::unblock())?;
                doctor::run(args).await
            }
            Command::Acl(args) => {
                heard(signals::unblock())?;
                acl::run(args)
            }
            Command::Install(args) => {
                heard(signals::unblock())?;
                install::run(args)
            }
            #[cfg(feature = "local")]
            Command::Local(args) => local::run(args, stop()?).await,
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
