//! What others may see of our memory, which holds the password.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Keeps it to ourselves: from here on we leave no core, and nobody but root may trace us or read our environment and
/// memory below `/proc`. A program that we start has its own again, as exec gives it anew.
pub fn keep_private() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
