//! Tries inputs until the time is over. The input of a number is the same on every machine, so that a finding is played
//! again by its number.

use std::env;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::iter::once;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::mutate::{Chance, mutated};

/// How long each target is tried where nothing else is said.
const SECONDS: u64 = 2;
/// No input may take as long, also on a busy machine.
const HANG: Duration = Duration::from_secs(30);

/// Shows the target what a corpus of good inputs is when it is left alone, and then broken in every way, elsewhere each
/// time, for VALKEEPER_FUZZ_SECONDS; with VALKEEPER_FUZZ_INPUT only that one. The target panics where something is wrong.
pub(crate) fn fuzz(name: &'static str, corpus: &[Vec<u8>], mut target: impl FnMut(&[u8])) {
    let number = |variable| env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let limit = Duration::from_secs(number("VALKEEPER_FUZZ_SECONDS").unwrap_or(SECONDS));
    let only = number("VALKEEPER_FUZZ_INPUT");
    let _watchdog = Watchdog::over(name);
    let started = Instant::now();
    let mut tried = 0;
    let inputs = only.map_or_else(
        || Box::new(from_anywhere(corpus.len() as u64)) as Box<dyn Iterator<Item = u64>>,
        |input| Box::new(once(input)),
    );
    for input in inputs {
        let bytes = nth(corpus, input);
        _watchdog.at.store(input, Ordering::Relaxed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&bytes))) {
            eprintln!("{name}: VALKEEPER_FUZZ_INPUT={input} plays it again:\n\"{}\"", bytes.escape_ascii());
            resume_unwind(panic);
        }
        tried += 1;
        if started.elapsed() >= limit {
            break;
        }
    }
    println!("{name}: {tried} inputs in {:.0} s, without a finding", started.elapsed().as_secs_f64());
}

/// The good inputs, and then those that follow a number that nobody has chosen.
fn from_anywhere(good: u64) -> impl Iterator<Item = u64> {
    let start = RandomState::new().build_hasher().finish() >> 1;
    (0..good).chain(good.max(start)..)
}

fn nth(corpus: &[Vec<u8>], input: u64) -> Vec<u8> {
    match usize::try_from(input).ok().and_then(|place| corpus.get(place)) {
        Some(as_it_is) => as_it_is.clone(),
        None => mutated(corpus, &mut Chance::new(input)),
    }
}

/// Ends the process when one input takes too long: nothing else ends a loop that does not.
struct Watchdog {
    at: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Watchdog {
    fn over(name: &'static str) -> Self {
        let (at, over) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicBool::new(false)));
        let (seen, is_over) = (Arc::clone(&at), Arc::clone(&over));
        thread::spawn(move || {
            let mut last = (u64::MAX, Instant::now());
            while !is_over.load(Ordering::Relaxed) {
                let now = seen.load(Ordering::Relaxed);
                if last.0 != now {
                    last = (now, Instant::now());
                }
                if last.1.elapsed() > HANG {
                    eprintln!("{name}: VALKEEPER_FUZZ_INPUT={now} has taken {HANG:?} and goes on");
                    std::process::abort();
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self { at, over }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
