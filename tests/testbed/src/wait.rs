//! The only way to wait: for a named condition, until a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(10);

/// Polls `condition` until it yields a value. `None` and errors both mean "not yet"; the error tells
/// what was seen instead, and the last one is in the error returned once `deadline` has passed.
pub fn wait_for<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() >= deadline {
            bail!("waited {deadline:?} for {what}; last seen: {seen}");
        }
        thread::sleep(POLL);
    }
}
