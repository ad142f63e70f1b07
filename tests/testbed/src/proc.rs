//! Processes that somebody else started, by what /proc says of them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_for;

const GONE_DEADLINE: Duration = Duration::from_secs(10);

/// How long the process was on a core, to the nanosecond; it has one thread. See `/proc/PID/schedstat` in proc(5).
pub fn time_on_core(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    Ok(Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?))
}

/// How much of the process is in memory, in bytes.
pub fn resident_memory(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1_024)
}

/// Sends the signal; a process that is gone already needs none.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The children of all threads of that process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// The server among the children of that process, once it has become one: its own name or, started by
/// a dynamic loader, the one that the loader passes on.
pub(crate) fn server_under(pid: u32) -> Option<u32> {
    children(pid).into_iter().find(|child| {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split('\0');
        let first = words.next().unwrap_or_default();
        let loader = words.next() == Some("--argv0");
        let name = if loader { words.next().unwrap_or_default() } else { first };
        name.split(' ').next().is_some_and(|name| name.ends_with("valkey-server"))
    })
}

/// Every process that works in that folder, as a server and its children do in that of their data.
pub(crate) fn working_in(dir: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A folder that was removed meanwhile is called "… (deleted)".
    let dir = dir.to_string_lossy();
    let works_there = |pid: &u32| {
        let there = fs::read_link(format!("/proc/{pid}/cwd"));
        there.is_ok_and(|there| there.to_string_lossy().split(" (deleted)").next() == Some(&dir))
    };
    pids.filter(works_there).collect()
}

/// Kills every process that works in that folder and waits until none is left. Says how many there were.
pub(crate) fn sweep(dir: &Path) -> Result<usize> {
    let found: Vec<u32> = working_in(dir).into_iter().filter(|pid| !is_gone(*pid)).collect();
    found.iter().for_each(|pid| signal(*pid, Signal::KILL));
    wait_gone(&found)?;
    Ok(found.len())
}

/// Waits until none of these processes is left, nor any port that they held.
pub(crate) fn wait_gone(pids: &[u32]) -> Result<()> {
    wait_for(&format!("the processes {pids:?} to end"), GONE_DEADLINE, || {
        Ok(pids.iter().all(|pid| is_gone(*pid)).then_some(()))
    })
}

/// Whether the process has ended, and its ports are free with it: a first thread that has ended leaves a
/// zombie while others still hold what is open.
fn is_gone(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let dead = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']));
    dead && fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1
}
