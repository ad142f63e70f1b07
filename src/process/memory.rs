//! What others may see of our memory, which holds the password; and how much of it we keep.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Keeps it to ourselves: from here on we leave no core, and nobody but root may trace us or read our environment and
/// memory below `/proc`. A program that we start has its own again, as exec gives it anew.
pub fn keep_private() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Gives back what the allocator keeps for later. What the start and each look at the cluster took would stay ours else,
/// beside every server for months.
#[expect(unsafe_code, reason = "only the C library knows what its allocator keeps")]
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and has no other precondition; any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
