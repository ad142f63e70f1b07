//! Stories in which nothing may be done, and nothing is.

use anyhow::{Result, ensure};

use super::stories::{formed_with_keys, up};
use super::{Outcome, SHORT, Scenario, World, converge, pods};

pub(super) fn all() -> Vec<Scenario> {
    let story = |name, shape, pods, story| Scenario { name, shape, pods, story };
    vec![
        story("keys_without_slots_are_refused", (3, 0), 3, keys_without_slots),
        story("two_islands_with_slots_are_refused", (2, 0), 2, two_islands),
        story("a_node_of_another_cluster_is_refused_and_left_alone", (3, 0), 3, foreign),
        story("data_without_nodes_conf_is_refused", (3, 0), 3, without_nodes_conf),
        story("another_number_of_shards_is_refused", (3, 1), 6, other_shape),
        story("slots_whose_owner_lost_its_disk_are_refused", (3, 0), 3, lost_slots),
        story("more_members_than_the_shape_has_are_refused", (3, 1), 6, too_many),
    ]
}

fn keys_without_slots(world: &mut dyn World) -> Result<()> {
    up(world, 3)?;
    world.put_keys(1, 5)?;
    refuse(world, None)
}

fn two_islands(world: &mut dyn World) -> Result<()> {
    up(world, 2)?;
    world.claim(0, 0, 2)?;
    world.claim(1, 1, 2)?;
    refuse(world, None)
}

fn foreign(world: &mut dyn World) -> Result<()> {
    up(world, 3)?;
    world.show_stranger(2)?;
    refuse(world, None)?;
    // Once DNS tells the truth nothing is in the way any more.
    world.show(&pods(3))?;
    converge(world)
}

fn without_nodes_conf(world: &mut dyn World) -> Result<()> {
    up(world, 3)?;
    converge(world)?;
    world.put_keys(0, 10)?;
    world.lose_nodes_conf(0)?;
    refuse(world, None)
}

fn other_shape(world: &mut dyn World) -> Result<()> {
    formed_with_keys(world)?;
    refuse(world, Some((2, 2)))
}

fn too_many(world: &mut dyn World) -> Result<()> {
    formed_with_keys(world)?;
    refuse(world, Some((2, 1)))
}

fn lost_slots(world: &mut dyn World) -> Result<()> {
    up(world, 3)?;
    converge(world)?;
    world.lose_disk(0)?;
    refuse(world, None)
}

/// A bootstrap that has to refuse; a refusal leaves slots, keys and epochs as they were, and no setting lowered.
fn refuse(world: &mut dyn World, shape: Option<(u16, u16)>) -> Result<()> {
    let outcome = world.bootstrap(shape, SHORT)?;
    ensure!(outcome == Outcome::Refused, "bootstrap ended with {outcome:?}");
    let before = world.snapshot()?;
    let outcome = world.bootstrap(shape, SHORT)?;
    let after = world.snapshot()?;
    ensure!(outcome == Outcome::Refused, "the second bootstrap ended with {outcome:?}");
    ensure!(before == after, "it was\n{before}\nand is\n{after}");
    Ok(())
}
