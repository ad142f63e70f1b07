//! How a command ends: one table from outcome to exit code.

use std::fmt;
use std::panic::AssertUnwindSafe;
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
    is_told: bool,
}

impl Exit {
    /// Makes a failure of an error.
    pub fn because(self, error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: self, error: error.into(), is_told: false }
    }

    /// Makes a failure of a sentence.
    pub fn saying(self, sentence: impl fmt::Display) -> Failure {
        self.because(anyhow::anyhow!("{sentence}"))
    }
}

/// Runs a command; a panic in it is a bug of ours, and an exit code like any other.
pub fn catching(command: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    std::panic::catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Exit::Bug.saying(format!("this is a bug, please report it: {}", what.unwrap_or("no message"))))
    })
}

impl Failure {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The same where it has been printed already: it need not be logged.
    pub fn told(self) -> Self {
        Self { is_told: true, ..self }
    }

    /// Whether it has been printed already.
    pub fn is_told(&self) -> bool {
        self.is_told
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_those_that_scripts_rely_on() {
        use Exit::{Bug, Done, Negative, Refused, System, Unavailable, Unfinished, Usage};
        let all = [Done, Negative, Usage, Unavailable, Bug, System, Unfinished, Refused];
        assert_eq!(all.map(|exit| exit as u8), [0, 1, 64, 69, 70, 71, 75, 76]);
    }

    #[test]
    fn a_panic_is_a_bug_of_ours_and_says_so() {
        let failure = catching(|| panic!("slot {} is missing", 7)).unwrap_err();
        assert_eq!(failure.exit(), Exit::Bug);
        assert_eq!(failure.to_string(), "this is a bug, please report it: slot 7 is missing");
        assert!(catching(|| Ok(())).is_ok());
    }

    #[test]
    fn a_failure_tells_its_causes_in_one_line() {
        let error = anyhow::anyhow!("permission denied").context("cannot read the password file /p");
        assert_eq!(Exit::Usage.because(error).to_string(), "cannot read the password file /p: permission denied");
    }
}
