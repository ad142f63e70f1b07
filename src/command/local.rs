//! `valkeeper local`: a whole cluster on this machine.

use crate::cli::LocalArgs;
use crate::exit::{Exit, Failure};

/// Runs the command.
pub async fn run(_args: &LocalArgs, _stop: impl Future<Output = ()>) -> Result<(), Failure> {
    Err(Exit::Usage.saying("being built"))
}
