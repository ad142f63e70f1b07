//! Stories that end with a cluster.

use std::time::Duration;

use anyhow::{Result, ensure};
use valkeeper::topology::StageKind;

use super::{Outcome, Place, Scenario, World, converge, expect, pods};

pub(super) fn all() -> Vec<Scenario> {
    let story = |name, shape: (u16, u16), story| Scenario { name, shape, pods: members(shape), story };
    vec![
        story("three_nodes_form_while_dns_shows_nothing_then_half_then_all", (3, 0), dns_is_slow::<3>),
        story("six_nodes_form_while_dns_shows_nothing_then_half_then_all", (3, 1), dns_is_slow::<6>),
        story("twelve_nodes_form_while_dns_shows_nothing_then_half_then_all", (4, 2), dns_is_slow::<12>),
        story("a_single_node_is_a_cluster", (1, 0), in_reverse::<1>),
        story("pods_that_are_up_in_reverse_order_form", (3, 1), in_reverse::<6>),
        story("of_three_a_pod_that_moves_between_meet_and_slots_is_found_again", (1, 2), moves_before_slots::<3>),
        story("of_six_a_pod_that_moves_between_meet_and_slots_is_found_again", (3, 1), moves_before_slots::<6>),
        story("of_twelve_a_pod_that_moves_between_meet_and_slots_is_found_again", (4, 2), moves_before_slots::<12>),
        story("a_pod_that_moves_between_slots_and_replicate_is_found_again", (3, 1), moves_before_replicate),
        story("all_pods_that_move_at_once_are_found_again", (3, 1), all_move),
        story("a_bootstrap_killed_in_announce_is_continued", (3, 1), |world| killed_at(world, StageKind::Announce)),
        story("a_bootstrap_killed_in_epochs_is_continued", (3, 1), |world| killed_at(world, StageKind::Epochs)),
        story("a_bootstrap_killed_in_meet_is_continued", (3, 1), |world| killed_at(world, StageKind::Meet)),
        story("a_bootstrap_killed_in_slots_is_continued", (3, 1), |world| killed_at(world, StageKind::Slots)),
        story("a_bootstrap_killed_in_replicate_is_continued", (3, 1), |world| killed_at(world, StageKind::Replicate)),
        story("a_bootstrap_killed_in_restore_is_continued", (3, 1), |world| killed_at(world, StageKind::Restore)),
        story("a_bootstrap_of_three_killed_at_every_stage_in_turn_is_continued", (1, 2), killed_at_each::<3>),
        story("a_bootstrap_of_six_killed_at_every_stage_in_turn_is_continued", (3, 1), killed_at_each::<6>),
        story("a_bootstrap_of_twelve_killed_at_every_stage_in_turn_is_continued", (4, 2), killed_at_each::<12>),
        story("two_bootstraps_at_once_form_one_cluster_of_three", (1, 2), two_at_once::<3>),
        story("two_bootstraps_at_once_form_one_cluster_of_six", (3, 1), two_at_once::<6>),
        story("two_bootstraps_at_once_form_one_cluster_of_twelve", (4, 2), two_at_once::<12>),
        story("a_pod_that_loses_its_disk_before_slots_joins_anew", (3, 1), disk_lost_before_slots),
        story("a_replica_that_loses_its_disk_joins_anew", (3, 1), replica_lost),
        story("a_bootstrap_of_a_finished_cluster_changes_nothing", (3, 1), rerun),
        story("a_bootstrap_says_who_is_missing_and_goes_on_when_they_come", (3, 0), missing),
        story("a_deadline_that_comes_too_early_leaves_the_rest_to_a_rerun", (3, 0), too_early),
    ]
}

fn members((shards, replicas): (u16, u16)) -> usize {
    usize::from(shards) * (usize::from(replicas) + 1)
}

fn dns_is_slow<const PODS: usize>(world: &mut dyn World) -> Result<()> {
    world.start(&pods(PODS))?;
    world.show(&[])?;
    expect(world, Outcome::Missing)?;
    world.show(&pods(PODS / 2))?;
    expect(world, Outcome::Missing)?;
    world.show(&pods(PODS))?;
    converge(world)
}

fn in_reverse<const PODS: usize>(world: &mut dyn World) -> Result<()> {
    let reversed: Vec<usize> = (0..PODS).rev().collect();
    world.start(&reversed)?;
    world.show(&reversed)?;
    converge(world)
}

fn moves_before_slots<const PODS: usize>(world: &mut dyn World) -> Result<()> {
    up(world, PODS)?;
    reach(world, StageKind::Meet)?;
    world.restart(1, Place::Other)?;
    converge(world)
}

fn moves_before_replicate(world: &mut dyn World) -> Result<()> {
    up(world, 6)?;
    reach(world, StageKind::Slots)?;
    world.restart(0, Place::Other)?;
    world.restart(4, Place::Same)?;
    converge(world)
}

fn all_move(world: &mut dyn World) -> Result<()> {
    formed_with_keys(world)?;
    (0..6).try_for_each(|pod| world.stop(pod))?;
    (0..6).try_for_each(|pod| world.restart(pod, Place::Other))?;
    converge(world)
}

fn killed_at(world: &mut dyn World, stage: StageKind) -> Result<()> {
    up(world, 6)?;
    reach(world, stage)?;
    converge(world)
}

fn killed_at_each<const PODS: usize>(world: &mut dyn World) -> Result<()> {
    use StageKind::{Announce, Epochs, Meet, Replicate, Restore, Slots};
    up(world, PODS)?;
    for stage in [Announce, Epochs, Meet, Slots, Replicate, Restore] {
        // The one before may have come further than it was to before it died.
        world.bootstrap_until(stage)?;
    }
    converge(world)
}

fn two_at_once<const PODS: usize>(world: &mut dyn World) -> Result<()> {
    up(world, PODS)?;
    let outcomes = world.bootstrap_twice()?;
    ensure!(outcomes == [Outcome::Converged; 2], "the two ended with {outcomes:?}");
    world.check()
}

fn disk_lost_before_slots(world: &mut dyn World) -> Result<()> {
    up(world, 6)?;
    reach(world, StageKind::Meet)?;
    world.lose_disk(2)?;
    converge(world)
}

fn replica_lost(world: &mut dyn World) -> Result<()> {
    formed_with_keys(world)?;
    world.lose_disk(5)?;
    converge(world)
}

fn rerun(world: &mut dyn World) -> Result<()> {
    formed_with_keys(world)?;
    let before = world.snapshot()?;
    expect(world, Outcome::Converged)?;
    let after = world.snapshot()?;
    ensure!(before == after, "it was\n{before}\nand is\n{after}");
    world.check()
}

fn missing(world: &mut dyn World) -> Result<()> {
    world.start(&[0, 2])?;
    world.show(&pods(3))?;
    expect(world, Outcome::Missing)?;
    world.start(&[1])?;
    converge(world)
}

fn too_early(world: &mut dyn World) -> Result<()> {
    /// A primary does not say ok in the first two seconds of its life.
    const HURRIED: Duration = Duration::from_millis(300);
    up(world, 3)?;
    let outcome = world.bootstrap(None, HURRIED)?;
    ensure!(outcome == Outcome::Waiting, "bootstrap ended with {outcome:?}");
    converge(world)
}

/// A bootstrap that is killed in this stage, which it has to come to.
fn reach(world: &mut dyn World, stage: StageKind) -> Result<()> {
    ensure!(world.bootstrap_until(stage)?, "the bootstrap had nothing to do in {stage}");
    Ok(())
}

/// All pods run and DNS shows them.
pub(super) fn up(world: &mut dyn World, count: usize) -> Result<()> {
    world.start(&pods(count))?;
    world.show(&pods(count))
}

/// Three shards of two stand, with keys.
pub(super) fn formed_with_keys(world: &mut dyn World) -> Result<()> {
    up(world, 6)?;
    converge(world)?;
    (0..3).try_for_each(|pod| world.put_keys(pod, 10))
}
