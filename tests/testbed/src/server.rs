//! One real valkey-server.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::access::Access;
use crate::answer::{READY, UP, wait_answer};
use crate::process::spawn;
use crate::versions::Valkey;
use crate::wait::wait_for;

const STOP_DEADLINE: Duration = Duration::from_secs(10);
const TAIL_LINES: usize = 40;

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The version.
    pub valkey: Valkey,
    /// The one address it binds.
    pub addr: IpAddr,
    /// Its port for clients; the bus takes the one 10000 above.
    pub port: u16,
    /// Its working directory, made if missing. The log is beside it, so that a lost disk leaves it.
    pub dir: PathBuf,
    /// Directives with their values as they stand in valkey.conf; they replace the defaults. One without a value is not
    /// said at all.
    pub config: Vec<(String, String)>,
}

/// A running valkey-server in a process group of its own; killed and reaped on drop, and killed by
/// the kernel when this process ends.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    access: Access,
    child: Child,
}

impl ServerOptions {
    /// Where the server writes its log, and what it prints before it has read its configuration.
    pub fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    /// The whole configuration, to be given to the server as a file or on standard input.
    pub fn config_text(&self) -> String {
        let defaults = [
            ("bind", self.addr.to_string()),
            // As in a pod. Left to itself, loopback connects from 127.0.0.1, which peers would believe.
            ("bind-source-addr", self.addr.to_string()),
            ("port", self.port.to_string()),
            ("dir", self.dir.display().to_string()),
            ("logfile", self.log().display().to_string()),
            ("loglevel", "notice".to_owned()),
            ("daemonize", "no".to_owned()),
            ("cluster-enabled", "yes".to_owned()),
            ("save", "\"\"".to_owned()),
            ("appendonly", "no".to_owned()),
        ];
        let given = |key: &str| self.config.iter().any(|(name, _)| name == key);
        let kept = defaults.iter().filter(|(key, _)| !given(key));
        kept.map(|(key, value)| (*key, value))
            .chain(self.config.iter().map(|(key, value)| (&**key, value)))
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key} {value}\n"))
            .collect()
    }

    /// The last lines of the log, empty where there is none.
    pub fn log_tail(&self) -> String {
        tail(&self.log())
    }
}

impl Server {
    /// Starts the process and returns at once. The configuration goes over standard input, so that no
    /// secret is in argv.
    pub fn start(options: ServerOptions) -> Result<Self> {
        Self::start_with(options, Access::default())
    }

    /// [`Server::start`] of one that is reached in that way.
    pub(crate) fn start_with(options: ServerOptions, access: Access) -> Result<Self> {
        fs::create_dir_all(&options.dir).with_context(|| show(&options.dir))?;
        let log = options.log();
        let output = File::options().create(true).append(true).open(&log).with_context(|| show(&log))?;
        let mut command = Command::new(&options.valkey.server);
        command
            .arg("-")
            .current_dir(&options.dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output);
        let mut child = spawn(command).with_context(|| format!("start {}", show(&options.valkey.server)))?;
        let stdin = child.stdin.take();
        let server = Self { options, access, child };
        stdin
            .context("standard input of the server")?
            .write_all(server.options.config_text().as_bytes())
            .with_context(|| server.explain("give the server its configuration"))?;
        Ok(server)
    }

    /// Waits until the server has loaded its data and answers. Fails with the log's tail.
    pub fn wait_ready(&mut self, deadline: Duration) -> Result<()> {
        self.wait_answer(deadline, READY)
    }

    /// Waits until the server answers, be it that it is still loading. Fails with the log's tail.
    pub fn wait_answering(&mut self, deadline: Duration) -> Result<()> {
        self.wait_answer(deadline, UP)
    }

    /// SIGTERM, then SIGKILL after 10 s. Says how the process ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill_process(self.group(), Signal::TERM)?;
        // One that is paused would not see it; one that has ended already needs nothing.
        let _ = self.resume();
        let child = &mut self.child;
        wait_for("the server to stop", STOP_DEADLINE, || Ok(child.try_wait()?)).or_else(|_| self.kill())
    }

    /// SIGKILL to the server and its children. Says how the process ended.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill_process_group(self.group(), Signal::KILL)?;
        Ok(self.child.wait()?)
    }

    /// SIGSTOP: the port still accepts, nobody answers.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// How the process ended, if it has.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The server's own pid: the script that starts it becomes it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it was started with.
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.options.log_tail()
    }

    fn wait_answer(&mut self, deadline: Duration, good: &[&str]) -> Result<()> {
        let addr = SocketAddr::new(self.options.addr, self.options.port);
        let child = &mut self.child;
        let answer = wait_answer(addr, &self.access, deadline, good, || Ok(child.try_wait()?));
        answer.with_context(|| self.explain("start"))
    }

    fn explain(&self, what: &str) -> String {
        let ServerOptions { addr, port, .. } = self.options;
        let log = self.log_tail();
        format!("{what}: server {addr}:{port}, whose log ends:\n{log}\n")
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            bail!("the server has ended");
        }
        Ok(kill_process_group(self.group(), signal)?)
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The last lines of a file, empty where there is none.
pub(crate) fn tail(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
