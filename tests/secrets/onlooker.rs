//! Somebody who looks at all that a machine shows of its processes, for as long as a test runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Looks at every process a hundred times a second, until it is asked what it has seen.
pub(crate) struct Onlooker {
    over: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl Onlooker {
    pub(crate) fn of(secret: &'static str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.extend(look(secret));
                thread::sleep(Duration::from_millis(10));
            }
            seen
        });
        Self { over, thread }
    }

    /// Where it has seen the secret.
    pub(crate) fn saw(self) -> BTreeSet<String> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn look(secret: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let mut seen = Vec::new();
    for entry in pids {
        let process = entry.path();
        let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
        let name = String::from_utf8_lossy(&read("comm")).trim().to_owned();
        let files: &[&str] = match name.as_str() {
            // What a user gives us in our environment is there, for root alone.
            "valkeeper" => &["cmdline"],
            _ => &["cmdline", "environ"],
        };
        let found: Vec<_> = files.iter().filter(|file| holds(&read(file), secret)).collect();
        // One that has become another program meanwhile is looked at again.
        if String::from_utf8_lossy(&read("comm")).trim() == name {
            seen.extend(found.iter().map(|file| format!("{file} of {name}")));
        }
    }
    seen
}

/// Whether bytes have the secret anywhere among them.
pub(crate) fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// Every file below a folder.
pub(crate) fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
