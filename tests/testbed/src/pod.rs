//! Pods as a StatefulSet has them: a name and a disk that stay, an address and a server that go.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::dns::Dns;
use crate::locked::locked;
use crate::server::{Server, ServerOptions};

const START_DEADLINE: Duration = Duration::from_secs(30);

/// One pod. Its methods take `&self`, so that threads of a test can share it.
#[derive(Debug)]
pub struct Pod {
    name: String,
    ordinal: usize,
    template: ServerOptions,
    dns: Dns,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    addr: Ipv4Addr,
    server: Option<Server>,
}

impl Pod {
    pub(crate) fn new(name: String, ordinal: usize, addr: Ipv4Addr, template: ServerOptions, dns: Dns) -> Self {
        dns.pod_moved(&name, addr);
        Self { name, ordinal, template, dns, state: Mutex::new(State { addr, server: None }) }
    }

    /// The pod's name, such as `valkey-0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number at the end of the name.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// The folder that stands for the persistent volume.
    pub fn dir(&self) -> &Path {
        &self.template.dir
    }

    /// The file the server keeps its view of the cluster in.
    pub fn nodes_conf(&self) -> PathBuf {
        self.dir().join("nodes.conf")
    }

    /// The address the pod has now.
    pub fn addr(&self) -> Ipv4Addr {
        locked(&self.state).addr
    }

    /// The server's port for clients.
    pub fn port(&self) -> u16 {
        self.template.port
    }

    /// What a server in this pod is started with, for a test that has somebody else start it.
    pub fn options(&self) -> ServerOptions {
        ServerOptions { addr: IpAddr::V4(self.addr()), ..self.template.clone() }
    }

    /// Starts the server and waits until it answers; 30 s at most. Fails if it runs already.
    pub fn start(&self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts the server and returns at once. Fails if it runs already.
    pub fn spawn(&self) -> Result<()> {
        if self.pid().is_some() {
            bail!("{}: its server runs already", self.name);
        }
        let server = Server::start(self.options()).with_context(|| self.name.clone())?;
        locked(&self.state).server = Some(server);
        Ok(())
    }

    /// Waits until the server has loaded its data and answers; 30 s at most.
    pub fn wait_ready(&self) -> Result<()> {
        self.with_server(|server| server.wait_ready(START_DEADLINE))
    }

    /// SIGTERM, then SIGKILL after 10 s.
    pub fn stop(&self) -> Result<ExitStatus> {
        let status = self.with_server(Server::stop)?;
        locked(&self.state).server = None;
        Ok(status)
    }

    /// SIGKILL.
    pub fn kill(&self) -> Result<ExitStatus> {
        let status = self.with_server(Server::kill)?;
        locked(&self.state).server = None;
        Ok(status)
    }

    /// SIGSTOP: the port still accepts, nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.with_server(Server::pause)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.with_server(Server::resume)
    }

    /// Stops the server if it runs, and starts it where it was: a container restart.
    pub fn restart_same_address(&self) -> Result<()> {
        self.restart_at(self.addr())
    }

    /// Stops the server if it runs, and starts it on the same disk at another address: a pod that was
    /// scheduled anew.
    pub fn restart_at(&self, addr: Ipv4Addr) -> Result<()> {
        if self.pid().is_some() {
            self.stop()?;
        }
        self.move_to(addr);
        self.start()
    }

    /// Gives the pod another address, effective at the next start; DNS follows where it does so.
    pub fn move_to(&self, addr: Ipv4Addr) {
        locked(&self.state).addr = addr;
        self.dns.pod_moved(&self.name, addr);
    }

    /// Kills the server if it runs, and empties the disk.
    pub fn lose_disk(&self) -> Result<()> {
        if self.pid().is_some() {
            self.kill()?;
        }
        match fs::remove_dir_all(self.dir()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{}: empty the disk", self.name))
            }
            _ => Ok(()),
        }
    }

    /// Removes nodes.conf and keeps the data. Fails while the server runs or if there is none.
    pub fn wipe_nodes_conf(&self) -> Result<()> {
        if self.pid().is_some() {
            bail!("{}: its server runs and would write nodes.conf again", self.name);
        }
        fs::remove_file(self.nodes_conf()).with_context(|| format!("{}: nodes.conf", self.name))
    }

    /// The pid of the server this pod started, while it runs.
    pub fn pid(&self) -> Option<u32> {
        let mut state = locked(&self.state);
        let server = state.server.as_mut()?;
        matches!(server.exit_status(), Ok(None)).then(|| server.pid())
    }

    /// The last lines of the server's log, over all its starts.
    pub fn log_tail(&self) -> String {
        self.template.log_tail()
    }

    fn with_server<T>(&self, act: impl FnOnce(&mut Server) -> Result<T>) -> Result<T> {
        let mut state = locked(&self.state);
        let server = state.server.as_mut().context("no server was started");
        server.and_then(act).with_context(|| self.name.clone())
    }
}
