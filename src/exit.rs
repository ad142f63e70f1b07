//! How a command ends: one table from outcome to exit code.

use std::fmt;
use std::process::ExitCode;

/// The exit codes that mean something; scripts and Jobs rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A negative answer: degraded, or something was found.
    Negative = 1,
    /// Wrong usage or configuration.
    Usage = 64,
    /// The server or peers could not be reached by the deadline.
    Unavailable = 69,
    /// A bug of ours.
    Bug = 70,
    /// The operating system refused something.
    System = 71,
    /// The deadline was reached; a rerun continues.
    Unfinished = 75,
    /// Refused because it would be unsafe; a human must look.
    Refused = 76,
}

/// An error, and the exit code it stands for.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Exit {
    /// Makes a failure of an error.
    pub fn because(self, error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: self, error: error.into() }
    }

    /// Makes a failure of a sentence.
    pub fn saying(self, sentence: impl fmt::Display) -> Failure {
        self.because(anyhow::anyhow!("{sentence}"))
    }
}

impl Failure {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The error and its causes, in one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}
