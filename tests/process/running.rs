//! A `valkeeper run` that a test has started.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use testbed::{die_with_parent, wait_for};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_valkeeper");
pub(crate) const IN_TIME: Duration = Duration::from_secs(60);

/// The program, or a shell around it, and what it has printed.
pub(crate) struct Running {
    pub(crate) child: Child,
    dir: TempDir,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Beside everybody else.
    Here,
    /// As process 1 of a fresh pid namespace, which ends with it.
    Namespace,
}

impl Place {
    /// `valkeeper run`, with options and the server still to come.
    pub(crate) fn run(self) -> Command {
        let mut command = match self {
            Self::Here => Command::new(BINARY),
            Self::Namespace => {
                let mut command = Command::new("unshare");
                if !geteuid().is_root() {
                    command.args(["--user", "--map-root-user"]);
                }
                command.args(["--pid", "--fork", "--mount-proc", "--kill-child", BINARY]);
                command
            }
        };
        command.args(["--log-level", "debug", "run"]).env_clear().env("PATH", "/usr/bin:/bin");
        command
    }
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let dir = TempDir::new()?;
        command
            .stdin(Stdio::null())
            .stdout(File::create(dir.path().join("stdout"))?)
            .stderr(File::create(dir.path().join("stderr"))?);
        die_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Self { child, dir })
    }

    /// Starts `valkeeper run` with a shell script for a server.
    pub(crate) fn script(place: Place, options: &[&str], script: &str) -> Result<Self> {
        let mut command = place.run();
        command.args(options).args(["--", "sh", "-c", script]);
        Self::start(command)
    }

    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(self.dir.path().join("stdout")).unwrap_or_default()
    }

    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// Waits until a line is among what the server has printed.
    pub(crate) fn wait_printed(&self, line: &str) -> Result<()> {
        let waited = wait_for(&format!("{line:?}"), IN_TIME, || {
            Ok(self.printed().lines().any(|printed| printed == line).then_some(()))
        });
        waited.with_context(|| self.show())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits for its end, which must be an exit and no signal's.
    pub(crate) fn code(&mut self) -> Result<i32> {
        let ended = wait_for("the end", IN_TIME, || Ok(self.child.try_wait()?)).with_context(|| self.show())?;
        ended.code().with_context(|| format!("{ended}: {}", self.show()))
    }

    /// Waits for the end, which must be this one.
    pub(crate) fn ends(&mut self, code: i32) -> Result<()> {
        let ended = self.code()?;
        ensure!(ended == code, "{ended} instead of {code}: {}", self.show());
        Ok(())
    }

    /// `valkeeper` itself, which in a namespace is the only child of what made it.
    pub(crate) fn program(&self) -> Result<u32> {
        let own = self.child.id();
        wait_for("the program to run", IN_TIME, || {
            let is_it = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(BINARY));
            Ok([own].into_iter().chain(children(own)).find(is_it))
        })
        .with_context(|| self.show())
    }

    pub(crate) fn show(&self) -> String {
        format!("it printed:\n{}and logged:\n{}", self.printed(), self.logged())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes whose parent this is, also those that have ended.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| state(*pid).is_some_and(|(_, its)| its == parent)).collect()
}

/// One that has ended and that nobody has waited for yet does not run.
pub(crate) fn runs(pid: u32) -> bool {
    state(pid).is_some_and(|(state, _)| state != 'Z')
}

/// The state and the parent of a process.
fn state(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
