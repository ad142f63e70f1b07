//! Child processes that end with the test that started them.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigHandler, SigSet, Signal as Ignored, signal};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
};

use crate::locked::locked;
use crate::wait::wait_for;

/// The network of the thread that opens it.
const NETWORK: &str = "/proc/thread-self/ns/net";

struct Job {
    command: Command,
    /// That of the thread that wants the child.
    network: File,
    reply: Sender<io::Result<Child>>,
}

/// The kernel sends SIGKILL to the child when the thread that spawns it ends, however that happens.
pub fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that was gone before that line leaves nobody to send the signal.
        if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: two system calls, no allocation, no lock: fit for the time between fork and exec.
    unsafe { command.pre_exec(prepare) };
}

/// Starts `command` with every signal blocked, some ignored, and these waiting for it since before its first line.
pub fn from_a_bad_parent(command: &mut Command, waiting: &'static [Signal]) {
    let prepare = move || {
        for ignored in [Ignored::SIGHUP, Ignored::SIGCHLD, Ignored::SIGUSR1] {
            // SAFETY: no handler is installed.
            unsafe { signal(ignored, SigHandler::SigIgn)? };
        }
        SigSet::all().thread_set_mask()?;
        waiting.iter().try_for_each(|waiting| kill_process(getpid(), *waiting))?;
        Ok(())
    };
    // SAFETY: system calls only, no allocation and no lock: fit for the time between fork and exec.
    unsafe { command.pre_exec(prepare) };
}

/// Runs `command` to its end and returns its status and output. At `deadline` kills it and its
/// process group, and fails with what it printed.
pub fn run(command: &mut Command, deadline: Duration) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    // Files, since a pipe ends only when the last process that inherited it does.
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let ended = wait_for(&format!("{name} to end"), deadline, || Ok(child.try_wait()?));
    if ended.is_err() {
        kill_process_group(Pid::from_child(&child), Signal::KILL)?;
        child.wait()?;
    }
    let (stdout, stderr) = (content(stdout)?, content(stderr)?);
    let status = ended.with_context(|| {
        let printed = [&*stdout, &*stderr].concat();
        format!("{name} printed:\n{}", String::from_utf8_lossy(&printed))
    })?;
    Ok(Output { status, stdout, stderr })
}

fn content(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Spawns a child that dies with this process. One thread that never ends is the parent of all,
/// since the kernel's death signal follows the thread and tests come and go with theirs.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for mut job in inbox {
                let child = enter_network(&mut job.command, job.network).and_then(|()| job.command.spawn());
                let _ = job.reply.send(child);
            }
        });
        Mutex::new(jobs)
    });
    die_with_parent(&mut command);
    let (reply, answer) = mpsc::channel();
    let network = File::open(NETWORK)?;
    locked(&SPAWNER).send(Job { command, network, reply }).map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// The child lives in that network, where it is not that of this thread; to go to another takes root.
fn enter_network(command: &mut Command, network: File) -> io::Result<()> {
    if network.metadata()?.ino() != fs::metadata(NETWORK)?.ino() {
        let prepare = move || Ok(setns(&network, CloneFlags::CLONE_NEWNET)?);
        // SAFETY: one system call: fit for the time between fork and exec.
        unsafe { command.pre_exec(prepare) };
    }
    Ok(())
}
