//! Much data, fast.

use anyhow::{Context, Result};
use redis::{cmd, pipe};

use crate::testbed::Testbed;
use crate::writer::tag_in;

/// Fewer commands are faster; answers of one pipeline must fit the socket's buffers.
const KEYS_A_COMMAND: u64 = 1_000;
const COMMANDS_A_PIPELINE: u64 = 20;

/// Writes so many keys of that size, in bytes of the value, to a pod that serves slots; all are in one of
/// its slots, and are replicated as any write. Every call adds others. Some million keys a minute.
pub fn fill(bed: &Testbed, ordinal: usize, keys: u64, value_size: usize) -> Result<()> {
    let pod = bed.pod(ordinal);
    let mut connection = bed.connection(ordinal)?;
    let owned = bed.as_cluster().owned()?;
    let serves = |slot: u16| owned.iter().any(|one| one.primary.ip() == pod.addr() && one.slots.contains(&slot));
    anyhow::ensure!((0..16_384).any(serves), "{} serves no slots", pod.name());
    let tag = tag_in(&mut connection, serves)?;
    let value = "x".repeat(value_size);
    let mut next = 0;
    while next < keys {
        let mut pipeline = pipe();
        for _ in 0..COMMANDS_A_PIPELINE {
            let last = keys.min(next + KEYS_A_COMMAND);
            if next == last {
                break;
            }
            let mut set = cmd("MSET");
            for number in next..last {
                set.arg(format!("f:{{{tag}}}:{number}")).arg(&value);
            }
            pipeline.add_command(set).ignore();
            next = last;
        }
        pipeline.exec(&mut connection).with_context(|| format!("fill {}", pod.name()))?;
    }
    Ok(())
}
