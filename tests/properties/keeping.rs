//! A cluster that stands is kept by a planner in every pod: random histories of up to a hundred nodes.
//!
//! `VALKEEPER_SIM_SEEDS` says how many are run, `VALKEEPER_SIM_FIRST` with which seed they begin, `VALKEEPER_SIM_SEED` runs
//! one alone and tells it, `VALKEEPER_SIM_NODES` says how many nodes each has, where it is not to be drawn. For the whole
//! proof: `VALKEEPER_SIM_SEEDS=10000 cargo test --release --test properties -- keeping`, and once more with
//! `VALKEEPER_SIM_NODES=100`.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use testbed::sim::bootstrap::PlanFn;
use testbed::sim::history::Failure;
use testbed::sim::history::Rule;
use testbed::sim::keeping::{self, Kind, Size, Summary};
use valkeeper::topology::plan;

use super::{number, sabotage};

/// As many as half a minute is enough for in a build without optimisation.
const HISTORIES: u64 = 60;
const SIZE: Size = Size::UpTo(100);
/// How many histories of how many nodes keepers with a bug may survive.
const UNNOTICED: u64 = 300;
const SMALL: Size = Size::UpTo(9);
/// How many failures are told of.
const TOLD: usize = 40;

#[test]
fn keeping_keeps_every_promise() -> Result<()> {
    let size = match number("VALKEEPER_SIM_NODES")? {
        Some(nodes) => Size::Exactly(usize::try_from(nodes)?),
        None => SIZE,
    };
    if let Some(seed) = number("VALKEEPER_SIM_SEED")? {
        let (outcome, trace) = keeping::tell(seed, size, plan);
        let story = trace.join("\n  ");
        ensure!(outcome.is_err(), "seed {seed} keeps every promise: {outcome:?}\n  {story}");
        ensure!(outcome.is_ok(), "seed {seed} breaks a promise: {outcome:?}\n  {story}");
    }
    let count = number("VALKEEPER_SIM_SEEDS")?.unwrap_or(HISTORIES);
    let first = number("VALKEEPER_SIM_FIRST")?.unwrap_or_default();
    let outcomes = on_all_cores(first..first + count, |seed| keeping::run(seed, size, plan));
    let failures: Vec<&Failure> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(|f| &**f).collect();
    let list: Vec<_> = failures.iter().take(TOLD).map(|f| format!("{}: {}", f.seed, f.violation)).collect();
    if let Some(first) = failures.first() {
        let (broken, list) = (failures.len(), list.join("\n"));
        ensure!(failures.is_empty(), "{first}\n{broken} of {count} histories break a promise:\n{list}");
    }
    let summaries: Vec<&Summary> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    let refused = summaries.iter().filter(|summary| !summary.stands);
    let only_the_bereaved_refuse = refused.clone().all(|summary| summary.kind == Kind::Bereaved);
    ensure!(only_the_bereaved_refuse, "somebody refused whose data was there");
    Ok(())
}

#[test]
fn keeping_goes_the_same_way_every_time() {
    for seed in 0..4 {
        assert_eq!(
            keeping::tell(seed, Size::UpTo(20), plan).1,
            keeping::tell(seed, Size::UpTo(20), plan).1,
            "seed {seed}"
        );
    }
}

#[test]
fn keepers_that_forget_too_early_are_found_out() -> Result<()> {
    found_out(sabotage::forget_too_early, Rule::ForgotAlive)
}

#[test]
fn keepers_that_greet_strangers_are_found_out() -> Result<()> {
    found_out(sabotage::meet_strangers, Rule::ForeignTouched)
}

#[test]
fn keepers_that_fill_gaps_on_the_minoritys_side_are_found_out() -> Result<()> {
    found_out(sabotage::fill_gaps_anywhere, Rule::MinorityActed)
}

/// Keepers with a bug break that promise in a history that the right ones survive.
fn found_out(planner: PlanFn, rule: Rule) -> Result<()> {
    let mut failures = (0..UNNOTICED).filter_map(|seed| keeping::run(seed, SMALL, planner).err());
    let is_it = |failure: &Failure| failure.violation.rule == rule && keeping::run(failure.seed, SMALL, plan).is_ok();
    let found = failures.find(|failure| is_it(failure));
    found.map(drop).with_context(|| format!("{UNNOTICED} histories and no {rule:?}"))
}

/// Runs the histories of these seeds on all cores; their outcomes by seed.
fn on_all_cores<T: Send>(seeds: Range<u64>, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(seeds.start);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = run(seed);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((seed, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(seed, _)| *seed);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}
