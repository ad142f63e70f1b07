//! The servers: started together, watched, stopped together.

use std::fmt;
use std::fs::{self, File};
use std::future::pending;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::{join_all, select_all};
use rustix::process::{Pid, Signal};
use tokio::process::Command;
use tokio::time::timeout;

use super::STATEFULSET;
use super::home::Home;
use super::network::Network;
use crate::config::PASSWORD_VARIABLES;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::process::child::{Child, OnOurDeath};
use crate::tls::Files;
use crate::topology::parse::directive;

/// The servers that run.
#[derive(Debug, Default)]
pub(super) struct Servers {
    running: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    pod: String,
    log: PathBuf,
    child: Child,
}

/// A server that has ended without being asked to.
#[derive(Debug)]
pub(super) struct Ended {
    pod: String,
    log: PathBuf,
    status: io::Result<ExitStatus>,
}

impl Servers {
    /// Starts one for each address of the network. What was started before an error stays.
    pub(super) async fn start(
        &mut self,
        program: &Path,
        home: &Home,
        network: &Network,
        tls: Option<&Files>,
    ) -> Result<(), Failure> {
        for (ordinal, ip) in network.nodes().enumerate() {
            let (pod, dir) = (format!("{STATEFULSET}-{ordinal}"), home.node(ordinal));
            let log = dir.join("server.log");
            let config = config(ip, network.port(), tls, home.is_kept());
            let child = spawn(program, &dir, &log, &config).await.with_context(|| format!("cannot start {pod}"));
            let child = child.map_err(|error| Exit::System.because(error))?;
            tracing::debug!(pid = child.id().map(Pid::as_raw_pid), "{pod} starts at {ip}");
            self.running.push(Server { pod, log, child });
        }
        Ok(())
    }

    /// Whether none runs.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits until one ends; may be cancelled and called again. For ever where none runs.
    pub(super) async fn next_end(&mut self) -> Ended {
        if self.running.is_empty() {
            return pending().await;
        }
        let ends = self.running.iter_mut().map(|server| Box::pin(server.child.wait()));
        let (status, place, _) = select_all(ends).await;
        let server = self.running.swap_remove(place);
        Ended { pod: server.pod, log: server.log, status }
    }

    /// Asks all to end, and kills those that have not within `patience` or when `hurry` is over. None is left, unless
    /// the kernel cannot end one within as long again.
    pub(super) async fn stop(mut self, patience: Duration, hurry: impl Future<Output = ()>) {
        for server in &self.running {
            server.tell_trouble(server.child.signal(Signal::TERM));
        }
        let asked = tokio::select! {
            asked = timeout(patience, self.all_ended()) => asked.is_ok(),
            () = hurry => false,
        };
        if asked {
            return;
        }
        for server in &self.running {
            if server.child.id().is_some() {
                tracing::warn!("{} has not ended and is killed; what it has not saved is lost", server.pod);
                server.tell_trouble(server.child.kill());
            }
        }
        if timeout(patience, self.all_ended()).await.is_err() {
            tracing::error!("not every server ends, although it is killed");
        }
    }

    async fn all_ended(&mut self) {
        join_all(self.running.iter_mut().map(|server| server.child.wait())).await;
    }
}

impl Server {
    fn tell_trouble(&self, signalled: io::Result<()>) {
        if let Err(error) = signalled {
            tracing::warn!("cannot signal {}: {error}", self.pod);
        }
    }
}

impl Ended {
    /// Says it, with the last lines of its log.
    pub(super) fn tell(&self) {
        tracing::error!("{self}; the end of {}:", self.log.display());
        for line in tail(&self.log).unwrap_or_default() {
            tracing::error!("  {line}");
        }
    }
}

/// The configuration, as it goes to the server on standard input.
fn config(ip: Ipv4Addr, port: u16, tls: Option<&Files>, keep: bool) -> String {
    let mut lines = vec![
        format!("bind {ip}"),
        // Left to itself, loopback connects from 127.0.0.1, which the peers would take for the node's address.
        format!("bind-source-addr {ip}"),
        "cluster-enabled yes".to_owned(),
        "daemonize no".to_owned(),
        "appendonly no".to_owned(),
    ];
    match tls {
        None => lines.push(format!("port {port}")),
        Some(files) => {
            let settings = [("port", "0".to_owned()), ("tls-port", port.to_string())].into_iter();
            let named = files.settings().map(|(name, file)| (name, file.display().to_string()));
            let spoken = ["tls-cluster", "tls-replication"].map(|name| (name, "yes".to_owned()));
            let optional = ("tls-auth-clients", "optional".to_owned());
            lines.extend(
                settings.chain(named).chain(spoken).chain([optional]).map(|(name, value)| directive(name, &value)),
            );
        }
    }
    if !keep {
        lines.push("save \"\"".to_owned());
    }
    lines.join("\n") + "\n"
}

async fn spawn(program: &Path, dir: &Path, log: &Path, config: &str) -> anyhow::Result<Child> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let output = files::private().append(true).open(log);
    let output = output.with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program);
    for secret in PASSWORD_VARIABLES {
        command.env_remove(secret);
    }
    command.arg("-").current_dir(dir).stdout(output.try_clone()?).stderr(output);
    let started = Child::spawn(command, OnOurDeath::Kill, config.as_bytes());
    let (child, input) = started.with_context(|| format!("cannot run {}", program.display()))?;
    input.give().await.with_context(|| format!("cannot give {} its configuration", program.display()))?;
    Ok(child)
}

/// The last lines of a log.
fn tail(log: &Path) -> io::Result<Vec<String>> {
    const LINES: usize = 10;
    const BYTES: u64 = 4096;
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(lines.iter().skip(lines.len().saturating_sub(LINES)).map(|line| (*line).to_owned()).collect())
}

/// `valkey-2 has ended (signal: 9 (SIGKILL))`.
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.status {
            Ok(status) => write!(f, "{} has ended ({status})", self.pod),
            Err(error) => write!(f, "{} cannot be waited for ({error})", self.pod),
        }
    }
}
