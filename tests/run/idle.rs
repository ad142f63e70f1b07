//! What `run` costs while nothing happens. `benches/idling.rs` measures the promise.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use testbed::{Testbed, Valkey};

use crate::tools::LIMIT;

/// Resident, of the release binary.
const MOST_KIB: u64 = 6 * 1_024;
/// Of a core. More than is promised, as this does not look for a whole minute.
const MOST: f64 = 0.01;

#[test]
fn run_beside_an_idle_cluster_costs_next_to_nothing() {
    let bed = Testbed::builder(&Valkey::newest()).pods(6).binary(release_binary()).supervised(true).build().unwrap();
    bed.form(3, 1).unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    let pids: Vec<u32> = bed.pods().iter().map(|pod| pod.pid().unwrap()).collect();
    let (started, before) = (Instant::now(), pids.iter().map(|pid| used(*pid)).collect::<Vec<_>>());
    // Nothing is waited for: this is how long it is looked at.
    thread::sleep(Duration::from_secs(10));
    for (pid, before) in pids.into_iter().zip(before) {
        let part = (used(pid) - before).as_secs_f64() / started.elapsed().as_secs_f64();
        let resident = resident(pid);
        println!("{resident} KiB resident, {:.2} % of a core", part * 100.0);
        assert!(resident <= MOST_KIB, "{resident} KiB are resident");
        assert!(part <= MOST, "{:.2} % of a core", part * 100.0);
    }
}

/// The binary that `make test` has just built, else the one beside the binary under test.
fn release_binary() -> PathBuf {
    let beside = || Path::new(env!("CARGO_BIN_EXE_valkeeper")).ancestors().nth(2).unwrap().join("release/valkeeper");
    let binary = env::var_os("VALKEEPER_RELEASE_BINARY").map_or_else(beside, PathBuf::from);
    assert!(binary.is_file(), "no release binary at {}: run `make build`", binary.display());
    binary
}

/// The time that it was on a core, to the nanosecond: proc(5), `/proc/PID/schedstat`. It has one thread.
fn used(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
