//! `valkeeper run`: the server's life, from the question whether it may start to the exit code it leaves.
//!
//! What is to happen is decided by the [`Supervisor`](crate::topology::supervise::Supervisor); here it is done.

mod addresses;
mod aof;
mod bare;
mod certificates;
mod changeover;
pub mod duties;
mod guard;
mod input;
mod keep;
mod metrics;
mod pod;
mod record;
mod settings;
mod supervision;
mod users;
mod watch;

use std::ffi::OsString;
use std::sync::Arc;

use crate::cli::RunArgs;
use crate::exit::{Exit, Failure};
use crate::process::signals::Signals;
use crate::topology::supervise::Deadlines;
use duties::Duties;
use pod::Pod;
use supervision::Supervision;

/// Runs the command; ends as the server ends.
pub async fn run(args: &RunArgs, signals: Signals) -> Result<Exit, Failure> {
    let pod = Pod::new(args).await?;
    let deadlines = Deadlines { kill_at: pod.budget().kill, handover: args.handover_timeout };
    supervise(&args.server, deadlines, signals, Arc::new(pod)).await
}

/// Supervises a server, a program and its arguments, with these duties.
pub async fn supervise<D: Duties>(
    server: &[OsString],
    deadlines: Deadlines,
    signals: Signals,
    duties: Arc<D>,
) -> Result<Exit, Failure> {
    let mut supervision = Supervision::new(server, deadlines, signals, duties)?;
    let ended = supervision.run().await;
    let mut rest = supervision.into_rest();
    let ended = match ended {
        Ok(exit) => Ok(exit),
        Err(bug) => {
            tracing::error!("{bug}");
            bare::run(&mut rest, bug).await
        }
    };
    rest.reaper.end_orphans().await;
    ended
}
