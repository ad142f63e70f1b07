//! Pods under `valkeeper run`, asked, stopped and counted.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use testbed::redis::{self, Connection, RedisResult, cmd};
use testbed::{Builder, Testbed, Valkey};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Pods whose servers are started by `run` with these arguments.
pub(crate) fn supervised(valkey: &Valkey, args: &[&str]) -> Builder {
    Testbed::builder(valkey).binary(env!("CARGO_BIN_EXE_valkeeper")).run_args(args)
}

/// The same, without a cluster.
pub(crate) fn standalone(valkey: &Valkey, args: &[&str]) -> Builder {
    let args = [&["--mode", "standalone"], args].concat();
    supervised(valkey, &args).config("cluster-enabled", "no").config("enable-debug-command", "yes")
}

/// The same test for each of several, all at once: servers mostly wait.
pub(crate) fn each<T: Send>(those: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    thread::scope(|scope| those.into_iter().for_each(|one| drop(scope.spawn(|| test(one)))));
}

pub(crate) fn ask<T: redis::FromRedisValue>(bed: &Testbed, pod: usize, words: &[&str]) -> T {
    let mut connection = bed.connection(pod).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    cmd(words[0]).arg(&words[1..]).query(&mut connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// The value of a setting.
pub(crate) fn setting(bed: &Testbed, pod: usize, name: &str) -> String {
    let [_, value]: [String; 2] = ask(bed, pod, &["CONFIG", "GET", name]);
    value
}

/// A field of INFO.
pub(crate) fn info(bed: &Testbed, pod: usize, field: &str) -> String {
    let text: String = ask(bed, pod, &["INFO", "everything"]);
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in INFO")).trim().to_owned()
}

/// Adds so many keys of 100 bytes to what is there. They do not count as changes that are to be saved.
pub(crate) fn populate(bed: &Testbed, pod: usize, keys: u64, prefix: &str) {
    ask::<()>(bed, pod, &["DEBUG", "POPULATE", &keys.to_string(), prefix, "100"]);
}

/// The same, and they count.
pub(crate) fn put(bed: &Testbed, pod: usize, keys: u64, prefix: &str) {
    let mut connection = bed.connection(pod).unwrap();
    let value = "x".repeat(100);
    for batch in (0..keys).collect::<Vec<_>>().chunks(1_000) {
        let pairs: Vec<(String, &str)> = batch.iter().map(|number| (format!("{prefix}:{number}"), &*value)).collect();
        cmd("MSET").arg(&pairs).exec(&mut connection).unwrap();
    }
}

/// How `run` ended that was told to, and how long that took.
pub(crate) struct Stopped {
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
    pub(crate) log: String,
}

/// SIGTERM to `run`, and nothing more until it has ended.
pub(crate) fn stop(bed: &Testbed, pod: usize) -> Stopped {
    let started = Instant::now();
    bed.pod(pod).terminate().unwrap();
    stopped(bed, pod, started)
}

/// Waits for the end of a `run` that was told at that moment.
pub(crate) fn stopped(bed: &Testbed, pod: usize, started: Instant) -> Stopped {
    bed.wait_for("run to end", LIMIT, || bed.pod(pod).exit_status()).unwrap();
    let took = started.elapsed();
    let status = bed.pod(pod).wait_end(LIMIT).unwrap();
    Stopped { code: status.code(), took, log: bed.pod(pod).run_log() }
}

impl Stopped {
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "after {:?}:\n{}", self.took, self.log);
        for text in texts {
            assert!(self.log.contains(text), "no {text:?} in:\n{}", self.log);
        }
    }
}

#[track_caller]
pub(crate) fn wait_logged(bed: &Testbed, pod: usize, text: &str, within: Duration) {
    let found = bed.wait_for(text, within, || Ok(bed.pod(pod).run_log().contains(text).then_some(())));
    found.unwrap_or_else(|error| panic!("{error:#}\n{}", bed.pod(pod).run_log()));
}

/// A client that writes one number after the other for as long as the server takes them.
pub(crate) struct Numbers {
    tag: &'static str,
    thread: JoinHandle<u64>,
}

impl Numbers {
    /// Returns when the first thousand are acknowledged.
    pub(crate) fn start(bed: &Testbed, pod: usize, tag: &'static str) -> Self {
        let mut connection = bed.connection(pod).unwrap();
        (0..1_000).for_each(|number| write(&mut connection, tag, number).unwrap());
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        let thread = thread::spawn(move || {
            let written = (1_000..).take_while(|number| write(&mut connection, tag, *number).is_ok());
            written.last().map_or(1_000, |last| last + 1)
        });
        Self { tag, thread }
    }

    /// How many were acknowledged, once the server is gone.
    pub(crate) fn acknowledged(self) -> (u64, impl Fn(&Testbed) -> u64) {
        let (tag, acknowledged) = (self.tag, self.thread.join().unwrap());
        let lost = move |bed: &Testbed| {
            let mut connection = bed.connection(0).unwrap();
            let mut numbers = 0..acknowledged;
            let mut lost = 0;
            loop {
                let batch: Vec<String> = numbers.by_ref().take(1_000).map(|number| key(tag, number)).collect();
                if batch.is_empty() {
                    return lost;
                }
                // A cluster needs a moment before it serves.
                let there: u64 = bed
                    .wait_for("the keys", LIMIT, || Ok(Some(cmd("EXISTS").arg(&batch).query(&mut connection)?)))
                    .unwrap();
                lost += batch.len() as u64 - there;
            }
        };
        (acknowledged, lost)
    }
}

fn key(tag: &str, number: u64) -> String {
    format!("n:{{{tag}}}:{number}")
}

fn write(connection: &mut Connection, tag: &str, number: u64) -> RedisResult<()> {
    cmd("SET").arg(key(tag, number)).arg(number).query(connection)
}
