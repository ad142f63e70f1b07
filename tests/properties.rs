//! What `plan` promises, kept on random histories, on the stories that real servers are told too, and on nonsense; and
//! that a planner which breaks a promise is found out.
//!
//! `VALKEEPER_SIM_SEEDS` says how many histories are run, `VALKEEPER_SIM_SEED` runs one alone and tells it.

#[path = "properties/keeping.rs"]
mod keeping;
#[path = "properties/nonsense.rs"]
mod nonsense;
#[path = "properties/sabotage.rs"]
mod sabotage;

use std::env;

use anyhow::{Context, Result, ensure};
use proptest::prelude::{ProptestConfig, proptest};
use proptest::prop_assert;
use testbed::scenario::{self, Simulated};
use testbed::sim::bootstrap::PlanFn;
use testbed::sim::history::{self, Rule};
use valkeeper::topology::{Decision, plan};

const HISTORIES: u64 = 10_000;

/// How many histories a planner with a bug may survive.
const UNNOTICED: u64 = 600;

#[test]
fn every_history_keeps_every_promise() -> Result<()> {
    if let Some(seed) = number("VALKEEPER_SIM_SEED")? {
        let (outcome, trace) = history::tell(seed, plan);
        let story = trace.join("\n  ");
        ensure!(outcome.is_err(), "seed {seed} keeps every promise: {outcome:?}\n  {story}");
        ensure!(outcome.is_ok(), "seed {seed} breaks a promise: {outcome:?}\n  {story}");
    }
    let count = number("VALKEEPER_SIM_SEEDS")?.unwrap_or(HISTORIES);
    let failures: Vec<_> = (0..count).filter_map(|seed| history::run(seed, plan).err()).collect();
    let seeds: Vec<u64> = failures.iter().map(|failure| failure.seed).collect();
    let Some(first) = failures.first() else { return Ok(()) };
    ensure!(failures.is_empty(), "{first}\n{} of {count} histories break a promise: {seeds:?}", failures.len());
    Ok(())
}

#[test]
fn a_history_is_the_same_every_time() {
    for seed in 0..20 {
        assert_eq!(history::tell(seed, plan).1, history::tell(seed, plan).1, "seed {seed}");
    }
}

#[test]
fn every_scenario_ends_well_on_the_simulator() -> Result<()> {
    let mut failures = Vec::new();
    for scenario in scenario::all() {
        for seed in 0..5 {
            let mut world = Simulated::new(&scenario, plan, seed);
            if let Err(error) = (scenario.story)(&mut world) {
                failures.push(format!("{} (seed {seed}): {error:#}\n  {}", scenario.name, world.log.join("\n  ")));
                break;
            }
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

#[test]
fn slots_before_meet_are_found_out() -> Result<()> {
    found_out(sabotage::slots_before_meet, Rule::SlotsApart)
}

#[test]
fn slots_given_against_the_views_are_found_out() -> Result<()> {
    found_out(sabotage::slots_against_the_views, Rule::SlotForTwo)
}

#[test]
fn a_primary_with_keys_made_a_replica_is_found_out() -> Result<()> {
    found_out(sabotage::replicate_over_keys, Rule::DataReplicatedOver)
}

#[test]
fn settings_that_stay_lowered_are_found_out() -> Result<()> {
    found_out(sabotage::never_restore, Rule::SettingsLeft)
}

#[test]
fn a_greeting_to_strangers_is_found_out() -> Result<()> {
    found_out(sabotage::meet_strangers, Rule::ForeignTouched)
}

#[test]
fn an_action_on_a_silent_node_is_found_out() -> Result<()> {
    found_out(sabotage::act_on_the_silent, Rule::SilentPeer)
}

#[test]
fn two_islands_made_one_are_found_out() -> Result<()> {
    found_out(sabotage::merge_islands, Rule::IslandsMerged)
}

/// A planner with a bug breaks that promise in a history that the right planner survives.
fn found_out(planner: PlanFn, rule: Rule) -> Result<()> {
    let mut failures = (0..UNNOTICED).filter_map(|seed| history::run(seed, planner).err());
    let found = failures.find(|failure| failure.violation.rule == rule && history::run(failure.seed, plan).is_ok());
    found.map(drop).with_context(|| format!("{UNNOTICED} histories and no {rule:?}"))
}

fn number(variable: &str) -> Result<Option<u64>> {
    let text = env::var(variable).ok();
    text.map(|text| text.parse().with_context(|| format!("{variable}={text} is no number"))).transpose()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_observation_makes_plan_panic_or_act_on_who_did_not_answer(world in nonsense::worlds()) {
        let (observation, desired, policy) = world;
        let decision = plan(&observation, &desired, &policy);
        prop_assert!(decision == plan(&observation, &desired, &policy));
        prop_assert!(!decision.to_string().is_empty());
        match decision {
            Decision::Wait(blockers) => prop_assert!(!blockers.is_empty()),
            Decision::Act(stage) => {
                prop_assert!(!stage.actions.is_empty());
                for action in stage.actions {
                    let mut answers = observation.reports().filter(|(peer, _)| peer.address == action.address);
                    prop_assert!(answers.any(|(_, report)| report.id() == action.on), "{action}");
                }
            }
            Decision::Converged(_) | Decision::Refuse(_) => {}
        }
    }
}
