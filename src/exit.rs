//! How a command ends: one table from outcome to exit code.

use std::any::Any;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt as _;
use std::panic::AssertUnwindSafe;
use std::process::{ExitCode, ExitStatus};

/// The exit codes that mean something; scripts and Jobs rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// A negative answer: degraded, or something was found.
    Negative,
    /// Wrong usage or configuration.
    Usage,
    /// The server or peers could not be reached by the deadline.
    Unavailable,
    /// A bug of ours.
    Bug,
    /// The operating system refused something.
    System,
    /// The deadline was reached; a rerun continues.
    Unfinished,
    /// Refused because it would be unsafe; a human must look.
    Refused,
    /// The server command cannot be executed.
    NotExecutable,
    /// The server command was not found.
    NotFound,
    /// What the server itself ended with.
    Server(u8),
}

/// An error, and the exit code it stands for.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
    is_told: bool,
}

impl Exit {
    /// The code as others see it.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Negative => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Bug => 70,
            Self::System => 71,
            Self::Unfinished => 75,
            Self::Refused => 76,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::Server(code) => code,
        }
    }

    /// The server's own code, or as a shell has it: 128 and the number of the signal that ended it.
    pub fn of(status: ExitStatus) -> Self {
        const BY_SIGNAL: i32 = 128;
        let code = status.code().or_else(|| Some(BY_SIGNAL + status.signal()?));
        code.and_then(|code| u8::try_from(code).ok()).map_or(Self::System, Self::Server)
    }

    /// As a shell has it when a program could not be started; 71 where its file is not to blame.
    pub fn of_failed_start(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::WouldBlock | ErrorKind::OutOfMemory | ErrorKind::Interrupted => Self::System,
            _ => Self::NotExecutable,
        }
    }

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
pub fn catching<T>(command: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    std::panic::catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|panic| Err(bug(&*panic)))
}

/// What a panic stands for.
pub fn bug(panic: &(dyn Any + Send)) -> Failure {
    let what = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Exit::Bug.saying(format!("this is a bug, please report it: {}", what.unwrap_or("no message")))
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
        Self::from(exit.code())
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
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn the_exit_codes_are_those_that_scripts_rely_on() {
        use Exit::*;
        let all = [Done, Negative, Usage, Unavailable, Bug, System, Unfinished, Refused, NotExecutable, NotFound];
        assert_eq!(all.map(Exit::code), [0, 1, 64, 69, 70, 71, 75, 76, 126, 127]);
    }

    #[test]
    fn the_end_of_a_server_is_told_as_a_shell_tells_it() {
        // As wait(2) has it: the code in the second byte, the signal and whether a core was written in the first.
        for (status, code) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143), (11 | 0x80, 139), (64, 192)] {
            assert_eq!(Exit::of(ExitStatus::from_raw(status)), Exit::Server(code));
        }
    }

    #[test]
    fn a_program_that_cannot_be_started_is_told_from_one_that_is_not_there() {
        for (errno, code) in [(Errno::NOENT, 127), (Errno::ACCESS, 126), (Errno::NOEXEC, 126), (Errno::AGAIN, 71)] {
            assert_eq!(Exit::of_failed_start(&errno.into()).code(), code);
        }
    }

    #[test]
    fn a_panic_is_a_bug_of_ours_and_says_so() {
        let failure = catching::<()>(|| panic!("slot {} is missing", 7)).unwrap_err();
        assert_eq!(failure.exit(), Exit::Bug);
        assert_eq!(failure.to_string(), "this is a bug, please report it: slot 7 is missing");
        assert!(matches!(catching(|| Ok(7)), Ok(7)));
    }

    #[test]
    fn a_failure_tells_its_causes_in_one_line() {
        let error = anyhow::anyhow!("permission denied").context("cannot read the password file /p");
        assert_eq!(Exit::Usage.because(error).to_string(), "cannot read the password file /p: permission denied");
    }
}
