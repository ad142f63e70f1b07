//! What `run` costs while nothing happens. `benches/idling.rs` measures the promise.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, thread};

use testbed::{Testbed, Valkey, resident_memory, time_on_core};

use crate::tools::LIMIT;

/// Resident, of the release binary.
const MOST_MEMORY: u64 = 6 << 20;
/// Of a core. More than is promised, as this looks at it for less than a minute.
const MOST_TIME: f64 = 0.01;

#[test]
fn run_beside_an_idle_cluster_costs_next_to_nothing() {
    let bed = Testbed::builder(&Valkey::newest()).pods(6).binary(release_binary()).supervised(true).build().unwrap();
    bed.form(3, 1).unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    let used = |pid: &u32| time_on_core(*pid).unwrap();
    let pids: Vec<u32> = bed.pods().iter().map(|pod| pod.pid().unwrap()).collect();
    let (started, before) = (Instant::now(), pids.iter().map(used).collect::<Vec<_>>());
    // Nothing is waited for: this is how long it is looked at.
    thread::sleep(Duration::from_secs(10));
    for (pid, before) in pids.iter().zip(before) {
        let part = (used(pid) - before).as_secs_f64() / started.elapsed().as_secs_f64();
        let memory = resident_memory(*pid).unwrap();
        println!("{} KiB resident, {:.2} % of a core", memory / 1_024, part * 100.0);
        assert!(memory <= MOST_MEMORY, "{memory} bytes are resident");
        assert!(part <= MOST_TIME, "{:.2} % of a core", part * 100.0);
    }
}

/// The binary that `make test` has just built, else the one beside the binary under test.
fn release_binary() -> PathBuf {
    let beside = || Path::new(env!("CARGO_BIN_EXE_valkeeper")).ancestors().nth(2).unwrap().join("release/valkeeper");
    let binary = env::var_os("VALKEEPER_RELEASE_BINARY").map_or_else(beside, PathBuf::from);
    assert!(binary.is_file(), "no release binary at {}: run `make build`", binary.display());
    binary
}
