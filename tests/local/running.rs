//! A `valkeeper local` that a test runs.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{self, Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testbed::{Valkey, die_with_parent, run, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_valkeeper");
pub(crate) const IN_TIME: Duration = Duration::from_secs(60);

/// A running `valkeeper local`, whose temporary files are in a folder of this test's.
pub(crate) struct Local {
    pub(crate) child: Child,
    pub(crate) port: u16,
    dir: TempDir,
}

impl Local {
    pub(crate) fn start(port: u16, args: &[&str]) -> Result<Self> {
        let dir = TempDir::new()?;
        fs::create_dir(dir.path().join("tmp"))?;
        let mut command = valkeeper(&["local", "--port", &port.to_string()]);
        command
            .args(args)
            .env("TMPDIR", dir.path().join("tmp"))
            .stdout(File::create(dir.path().join("stdout"))?)
            .stderr(File::create(dir.path().join("stderr"))?);
        die_with_parent(&mut command);
        Ok(Self { child: command.spawn()?, port, dir })
    }

    /// Starts one with the newest server, and waits until it says that the cluster stands.
    pub(crate) fn stand(port: u16, args: &[&str]) -> Result<Self> {
        let server = Valkey::newest().server;
        let server = server.to_str().context("the server's path")?;
        let mut local = Self::start(port, &[&["--server", server], args].concat())?;
        let stands = wait_for("the cluster to stand", IN_TIME, || {
            let ended = local.child.try_wait()?.map(|status| local.show(&format!("it ended ({status})")));
            let stands = local.stdout().contains("Ctrl-C stops it").then(String::new);
            Ok(ended.or(stands))
        });
        let trouble = stands.with_context(|| local.show("not in time"))?;
        ensure!(trouble.is_empty(), trouble);
        Ok(local)
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.dir.path().join("stdout")).unwrap_or_default()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    pub(crate) fn show(&self, what: &str) -> String {
        format!("{what}; it said:\n{}{}", self.stdout(), self.stderr())
    }

    pub(crate) fn wait_said(&self, what: &str) -> Result<()> {
        wait_for(&format!("{what:?} in the log"), IN_TIME, || Ok(self.stderr().contains(what).then_some(())))
            .with_context(|| self.show("not said"))
    }

    pub(crate) fn temporary(&self) -> Vec<PathBuf> {
        fs::read_dir(self.dir.path().join("tmp")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// The word after a word of what it printed.
    pub(crate) fn told(&self, before: &str) -> String {
        let printed = self.stdout();
        let mut words = printed.split_whitespace().skip_while(|word| *word != before).skip(1);
        words.next().unwrap_or_default().to_owned()
    }

    pub(crate) fn first_node(&self) -> String {
        self.told("-h")
    }

    /// What valkey-cli prints, sent to wherever the cluster has the key.
    pub(crate) fn cli(&self, args: &[&str]) -> Result<String> {
        let (host, port) = (self.first_node(), self.port.to_string());
        let mut command = Command::new(Valkey::newest().cli);
        command.args(["-c", "-h", &host, "-p", &port]);
        let authority = self.told("--cacert");
        if !authority.is_empty() {
            command.args(["--tls", "--cacert", &authority]);
        }
        let output = run(command.args(args), IN_TIME)?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// The pids of its servers, lowest first.
    pub(crate) fn servers(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            pids.extend(pid.filter(|pid| process_state(*pid).is_some_and(|(_, parent)| parent == self.child.id())));
        }
        pids.sort();
        Ok(pids)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    pub(crate) fn ended(&mut self, what: &str, deadline: Duration) -> Result<ExitStatus> {
        let ended = wait_for(what, deadline, || Ok(self.child.try_wait()?));
        ended.with_context(|| self.show("it goes on"))
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended("the end after SIGTERM", IN_TIME)?;
        ensure!(status.success(), self.show(&status.to_string()));
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with the signals of a terminal: whoever runs the tests may ignore SIGHUP, and children inherit that.
pub(crate) fn valkeeper(args: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", BINARY]).args(args).env_clear().env("PATH", "/usr/bin:/bin");
    command
}

/// A port that nobody uses at any address, nor the bus port that belongs to it.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(process::id() % 1000).unwrap() * 10;
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    let ports = std::iter::repeat_with(|| 7000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000);
    ports.take(1000).find(|port| is_free(*port) && is_free(port + 10_000)).expect("a free port")
}

/// The state and the parent of a process.
fn process_state(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// One that has ended and that nobody has waited for yet does not count.
pub(crate) fn wait_none_runs(pids: &[u32]) -> Result<()> {
    wait_for("the end of every server", IN_TIME, || {
        let left: Vec<_> =
            pids.iter().filter(|pid| process_state(**pid).is_some_and(|(state, _)| state != 'Z')).collect();
        ensure!(left.is_empty(), "these run: {left:?}");
        Ok(Some(()))
    })
}
