//! Pods as a StatefulSet has them: a name and a disk that stay, an address and a server that go.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use valkeeper::datadir::mend_shard_ids;

use crate::access::Access;
use crate::disk::Disk;
use crate::dns::Dns;
use crate::locked::locked;
use crate::proc::{server_under, signal};
use crate::program::Program;
use crate::server::{Server, ServerOptions};
use crate::supervised::{Supervised, run_log};
use crate::wait::wait_for;

const START_DEADLINE: Duration = Duration::from_secs(30);
const AT_ONCE: Duration = Duration::from_millis(100);

/// One pod. Its methods take `&self`, so that threads of a test can share it.
#[derive(Debug)]
pub struct Pod {
    name: String,
    ordinal: usize,
    template: ServerOptions,
    access: Access,
    dns: Dns,
    // Apart from the rest, which is locked as long as a stop takes.
    addr: Mutex<Ipv4Addr>,
    state: Mutex<State>,
}

/// What `valkeeper run` is started with, where it starts the servers.
#[derive(Debug, Clone)]
pub(crate) struct RunOptions {
    pub(crate) program: Program,
    pub(crate) args: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
}

#[derive(Debug)]
struct State {
    run: Option<RunOptions>,
    /// How long the log of `run` was at its last start.
    run_log_start: usize,
    // In the order in which they end.
    process: Option<Process>,
    disk: Option<Disk>,
}

#[derive(Debug)]
enum Process {
    Server(Server),
    Run(Supervised),
}

impl Pod {
    pub(crate) fn new(
        name: String,
        ordinal: usize,
        addr: Ipv4Addr,
        (template, access): (ServerOptions, Access),
        run: Option<RunOptions>,
        dns: Dns,
    ) -> Self {
        dns.pod_moved(&name, addr);
        let state = State { run, run_log_start: 0, process: None, disk: None };
        Self { name, ordinal, template, access, dns, addr: Mutex::new(addr), state: Mutex::new(state) }
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
        *locked(&self.addr)
    }

    /// The server's port for clients.
    pub fn port(&self) -> u16 {
        self.template.port
    }

    /// What a server in this pod is started with, for a test that has somebody else start it.
    pub fn options(&self) -> ServerOptions {
        ServerOptions { addr: IpAddr::V4(self.addr()), ..self.template.clone() }
    }

    /// Starts the server, or `valkeeper run` over it, and waits until it answers; 30 s at most. Fails if
    /// it runs already.
    pub fn start(&self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts the server, or `valkeeper run` over it, and returns at once. Fails if it runs already.
    pub fn spawn(&self) -> Result<()> {
        if self.pid().is_some() {
            bail!("{}: its server runs already", self.name);
        }
        let options = self.options();
        let run = {
            let mut state = locked(&self.state);
            state.process = None;
            state.run_log_start = fs::read(run_log(&self.template)).map_or(0, |log| log.len());
            state.run.clone()
        };
        let access = self.access.clone();
        let process = match run {
            None => {
                // `run` does this for the servers it starts; what bare ones do without it is not what is tested.
                mend_shard_ids(&self.nodes_conf())?;
                Server::start_with(options, access).map(Process::Server)
            }
            Some(run) => Supervised::start(self.run_command(&run), options, access).map(Process::Run),
        };
        locked(&self.state).process = Some(process.with_context(|| self.name.clone())?);
        Ok(())
    }

    /// Waits until the server has loaded its data and answers; 30 s at most.
    pub fn wait_ready(&self) -> Result<()> {
        self.with_process(|process| match process {
            Process::Server(server) => server.wait_ready(START_DEADLINE),
            Process::Run(run) => run.wait_ready(START_DEADLINE),
        })
    }

    /// SIGTERM to the server, or to `run`; then SIGKILL after 10 s, or 60 s for `run`. Says how that
    /// process ended.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.end(|process| match process {
            Process::Server(server) => server.stop(),
            Process::Run(run) => run.stop(),
        })
    }

    /// SIGKILL to the server and to `run` at once, neither of which can react.
    pub fn kill(&self) -> Result<ExitStatus> {
        self.end(|process| match process {
            Process::Server(server) => server.kill(),
            Process::Run(run) => run.kill(),
        })
    }

    /// SIGTERM to the server, or to `run`, and no wait: [`Pod::wait_end`] follows.
    pub fn terminate(&self) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{}: nothing runs", self.name))?;
        signal(pid, Signal::TERM);
        Ok(())
    }

    /// Waits until the process has ended by itself, as after [`Pod::terminate`], and says how. Other
    /// threads can ask the pod meanwhile.
    pub fn wait_end(&self, deadline: Duration) -> Result<ExitStatus> {
        wait_for(&format!("{} to end", self.name), deadline, || self.exit_status())?;
        self.stop()
    }

    /// SIGKILL to the server alone: what `run` then does is its own affair.
    pub fn kill_server(&self) -> Result<()> {
        self.signal_server(Signal::KILL)
    }

    /// SIGSTOP to the server: the port still accepts, nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.signal_server(Signal::STOP)
    }

    /// SIGCONT to the server.
    pub fn resume(&self) -> Result<()> {
        self.signal_server(Signal::CONT)
    }

    /// SIGKILL, and the start follows within 100 ms: a container that restarts before anybody took notice.
    pub fn restart_at_once(&self) -> Result<()> {
        self.kill()?;
        let killed = Instant::now();
        self.spawn()?;
        let took = killed.elapsed();
        ensure!(took < AT_ONCE, "{}: started {took:?} after its end, which is not at once", self.name);
        Ok(())
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
        *locked(&self.addr) = addr;
        self.dns.pod_moved(&self.name, addr);
    }

    /// Kills the server if it runs, and empties the disk. One of [`Pod::limit_disk`] goes with it.
    pub fn lose_disk(&self) -> Result<()> {
        if self.pid().is_some() {
            self.kill()?;
        }
        locked(&self.state).disk = None;
        match fs::remove_dir_all(self.dir()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{}: empty the disk", self.name))
            }
            _ => Ok(()),
        }
    }

    /// Puts the pod's data on a disk of that size, empty at first, so that it can be full; asked again,
    /// also while the server runs, changes its size. Takes root. Fails where a server runs on another disk.
    pub fn limit_disk(&self, bytes: u64) -> Result<()> {
        if let Some(disk) = &locked(&self.state).disk {
            return disk.resize(bytes);
        }
        if self.pid().is_some() {
            bail!("{}: its server runs on another disk", self.name);
        }
        let disk = Disk::mount(self.dir(), bytes).with_context(|| self.name.clone())?;
        locked(&self.state).disk = Some(disk);
        Ok(())
    }

    /// Removes nodes.conf and keeps the data. Fails while the server runs or if there is none.
    pub fn wipe_nodes_conf(&self) -> Result<()> {
        if self.pid().is_some() {
            bail!("{}: its server runs and would write nodes.conf again", self.name);
        }
        fs::remove_file(self.nodes_conf()).with_context(|| format!("{}: nodes.conf", self.name))
    }

    /// The pid of what this pod started, the server or `run`, while it runs.
    pub fn pid(&self) -> Option<u32> {
        match locked(&self.state).process.as_mut()? {
            Process::Server(server) => matches!(server.exit_status(), Ok(None)).then(|| server.pid()),
            Process::Run(run) => matches!(run.exit_status(), Ok(None)).then(|| run.pid()),
        }
    }

    /// The pid of the server, while one runs.
    pub fn server_pid(&self) -> Option<u32> {
        let pid = self.pid()?;
        if self.is_supervised() { server_under(pid) } else { Some(pid) }
    }

    /// How what this pod started has ended, if it has and nobody has asked [`Pod::stop`] or [`Pod::kill`].
    pub fn exit_status(&self) -> Result<Option<ExitStatus>> {
        self.with_process(|process| match process {
            Process::Server(server) => server.exit_status(),
            Process::Run(run) => run.exit_status(),
        })
    }

    /// Whether `valkeeper run` starts the server.
    pub fn is_supervised(&self) -> bool {
        locked(&self.state).run.is_some()
    }

    /// Replaces the arguments to `run`, effective at the next start. Panics in a pod that is not supervised.
    pub fn set_run_args(&self, args: &[&str]) {
        self.change_run(|run| run.args = args.iter().map(|&arg| arg.to_owned()).collect());
    }

    /// Sets a variable for `run`, or takes it away again, effective at the next start. Panics in a pod that
    /// is not supervised.
    pub fn set_run_env(&self, name: &str, value: Option<&str>) {
        self.change_run(|run| match value {
            Some(value) => drop(run.environment.insert(name.to_owned(), value.to_owned())),
            None => drop(run.environment.remove(name)),
        });
    }

    /// What `run` has printed since its last start.
    pub fn run_log(&self) -> String {
        let start = locked(&self.state).run_log_start;
        let bytes = fs::read(run_log(&self.template)).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
    }

    /// The last lines of the server's log, over all its starts.
    pub fn log_tail(&self) -> String {
        self.template.log_tail()
    }

    fn run_command(&self, run: &RunOptions) -> Command {
        let args: Vec<&str> = ["run"].into_iter().chain(run.args.iter().map(String::as_str)).collect();
        let mut command = run.program.command_in(&self.name, self.addr(), &args);
        command.envs(&run.environment);
        command
    }

    fn change_run(&self, change: impl FnOnce(&mut RunOptions)) {
        change(locked(&self.state).run.as_mut().expect("a supervised pod"));
    }

    fn signal_server(&self, what: Signal) -> Result<()> {
        self.with_process(|process| match process {
            Process::Server(server) => server.signal(what),
            Process::Run(run) => run.signal_server(what),
        })
    }

    fn end(&self, how: impl FnOnce(&mut Process) -> Result<ExitStatus>) -> Result<ExitStatus> {
        let status = self.with_process(how)?;
        locked(&self.state).process = None;
        Ok(status)
    }

    fn with_process<T>(&self, act: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
        let mut state = locked(&self.state);
        let process = state.process.as_mut().context("no server was started");
        process.and_then(act).with_context(|| self.name.clone())
    }
}
