//! How a run of the program under test ended.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process::run;

/// What a program that ended by itself left behind.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Ended {
    /// Runs a program to its end, which must come before the deadline.
    pub fn of(command: &mut Command, deadline: Duration) -> Result<Self> {
        let started = Instant::now();
        let output = run(command, deadline).with_context(|| format!("run {command:?}"))?;
        Ok(Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: started.elapsed(),
        })
    }

    /// Panics with all that is known unless the exit code is this one and the log holds every text.
    #[track_caller]
    pub fn expect(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self}");
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in {self}");
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {:?} after {:?}\n{}{}", self.code, self.took, self.stderr, self.stdout)
    }
}
