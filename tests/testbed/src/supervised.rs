//! A server that is started by the program under test: `valkeeper run … -- valkey-server CONFIG`.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;

use crate::access::Access;
use crate::answer::{READY, wait_answer};
use crate::proc::{children, server_under, signal, sweep, wait_gone};
use crate::process::spawn;
use crate::server::{ServerOptions, tail};
use crate::wait::wait_for;

const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// A running `valkeeper run` in a process group of its own. Both it and its server are killed on drop.
#[derive(Debug)]
pub(crate) struct Supervised {
    options: ServerOptions,
    access: Access,
    child: Child,
}

/// The configuration that the server is started with: a file beside its folder.
pub(crate) fn config_file(options: &ServerOptions) -> PathBuf {
    options.dir.with_extension("conf")
}

/// What `run` prints, over all its starts: a file beside the server's folder.
pub(crate) fn run_log(options: &ServerOptions) -> PathBuf {
    options.dir.with_extension("run.log")
}

impl Supervised {
    /// Starts `command`, which is `valkeeper run` with its arguments, over a server with these options.
    pub(crate) fn start(mut command: Command, options: ServerOptions, access: Access) -> Result<Self> {
        fs::create_dir_all(&options.dir).with_context(|| format!("make {}", options.dir.display()))?;
        let config = config_file(&options);
        File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&config)
            .and_then(|mut file| file.write_all(options.config_text().as_bytes()))
            .with_context(|| format!("write {}", config.display()))?;
        let log = File::options().create(true).append(true).open(run_log(&options))?;
        command
            .arg("--")
            .arg(&options.valkey.server)
            .arg(&config)
            .current_dir(&options.dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = spawn(command).context("start valkeeper run")?;
        Ok(Self { options, access, child })
    }

    /// Waits until the server has loaded its data and answers.
    pub(crate) fn wait_ready(&mut self, deadline: Duration) -> Result<()> {
        let addr = SocketAddr::new(self.options.addr, self.options.port);
        let child = &mut self.child;
        let answer = wait_answer(addr, &self.access, deadline, READY, || Ok(child.try_wait()?));
        answer.map_err(|error| {
            let (run, server) = (tail(&run_log(&self.options)), self.options.log_tail());
            anyhow!("{error:#}: start under run, whose log ends:\n{run}\nthe server's:\n{server}\n")
        })
    }

    /// SIGTERM to `run`, then SIGKILL to all after 60 s. Says how `run` ended; that it left its server
    /// behind is an error.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        let server = self.server_pid();
        if self.child.try_wait()?.is_none() {
            signal(self.pid(), Signal::TERM);
        }
        // One that is paused would not see it.
        server.into_iter().for_each(|server| signal(server, Signal::CONT));
        let child = &mut self.child;
        let Ok(status) = wait_for("run to stop", STOP_DEADLINE, || Ok(child.try_wait()?)) else { return self.kill() };
        match sweep(&self.options.dir)? {
            0 => Ok(status),
            count => bail!("run ended with {status} and left {count} processes behind"),
        }
    }

    /// SIGKILL to all at once, as when the whole pod dies: `run` cannot react to its server's end, nor
    /// the server to the end of `run`. Says how `run` ended.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus> {
        let mut killed = Vec::new();
        if self.child.try_wait()?.is_none() {
            let run = self.pid();
            signal(run, Signal::STOP);
            killed = children(run);
            killed.iter().for_each(|pid| signal(*pid, Signal::KILL));
            signal(run, Signal::KILL);
        }
        let status = self.child.wait()?;
        // One whose first thread has ended has no folder to be found by, and yet its ports.
        wait_gone(&killed)?;
        // Grandchildren, such as one that saves, and a server whose `run` was gone before.
        sweep(&self.options.dir)?;
        Ok(status)
    }

    /// A signal to the server alone.
    pub(crate) fn signal_server(&self, what: Signal) -> Result<()> {
        let pid = self.server_pid().context("no server runs under run")?;
        signal(pid, what);
        Ok(())
    }

    /// How `run` ended, if it has.
    pub(crate) fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The pid of `run`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pid of the server, while one runs.
    pub(crate) fn server_pid(&self) -> Option<u32> {
        server_under(self.pid())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
