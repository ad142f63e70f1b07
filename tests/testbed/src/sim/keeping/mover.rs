//! Slots that people move when the number of shards changes: as `rebalance` and `evacuate` would, a piece at a time.

use super::judge::ours;
use super::setting::Setting;
use crate::sim::Sim;

/// What one step of moving came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// A piece has moved, or a primary has handed over.
    Something,
    /// It cannot be done now.
    Nothing,
    /// Nothing is left to be moved.
    Done,
}

/// New shards get slots: from who has most to an empty primary, and then until all have about as many.
pub(super) fn grow(sim: &mut Sim, setting: &Setting) -> Moved {
    if are_contested(sim) || sim.is_shaken() {
        return Moved::Nothing;
    }
    let shape = setting.after.shape;
    let here: Vec<usize> = setting.wanted().iter().copied().filter(|at| sim.hosts[*at].is_up).collect();
    let owners: Vec<usize> = here.iter().copied().filter(|at| size(sim, *at) > 0).collect();
    let Some(richest) = owners.iter().copied().max_by_key(|at| size(sim, *at)) else { return Moved::Nothing };
    let replicas = |at: usize| {
        let id = sim.hosts[at].server.id;
        here.iter().filter(|other| sim.hosts[**other].server.follows == Some(id)).count()
    };
    let poorest = if owners.len() < usize::from(shape.shards.get()) {
        let is_empty = |at: &usize| sim.hosts[*at].server.follows.is_none() && size(sim, *at) == 0;
        let empty = here.iter().copied().filter(is_empty).max_by_key(|at| replicas(*at));
        empty.filter(|at| shape.replicas == 0 || replicas(*at) > 0)
    } else {
        owners.iter().copied().min_by_key(|at| size(sim, *at))
    };
    let Some(poorest) = poorest else { return Moved::Nothing };
    match size(sim, richest) > size(sim, poorest) + 1 {
        true => move_one(sim, richest, poorest),
        false => Moved::Done,
    }
}

/// The pods that are to go are emptied, and as many shards as are to go.
pub(super) fn shrink(sim: &mut Sim, setting: &Setting) -> Moved {
    let shards = usize::from(setting.after.shape.shards.get());
    if are_contested(sim) || sim.is_shaken() {
        return Moved::Nothing;
    }
    let owners = ours(sim).filter(|at| size(sim, *at) > 0);
    let (staying, leaving): (Vec<usize>, Vec<usize>) = owners.partition(|at| setting.wanted().contains(at));
    if staying.len() < shards && !leaving.is_empty() {
        let heir = leaving.iter().find_map(|owner| {
            let id = sim.hosts[*owner].server.id;
            let is_heir = |at: &&usize| {
                let server = &sim.hosts[**at].server;
                server.follows == Some(id) && server.synced.is_some()
            };
            setting.wanted().iter().find(is_heir).copied()
        });
        return match heir.is_some_and(|heir| sim.take_over(heir)) {
            true => Moved::Something,
            false => Moved::Nothing,
        };
    }
    let surplus = staying.iter().copied().min_by_key(|at| size(sim, *at)).filter(|_| staying.len() > shards);
    let Some(from) = leaving.first().copied().or(surplus) else {
        return if staying.len() == shards { Moved::Done } else { Moved::Nothing };
    };
    let to = staying.iter().copied().filter(|at| *at != from).min_by_key(|at| size(sim, *at));
    to.map_or(Moved::Nothing, |to| move_one(sim, from, to))
}

fn move_one(sim: &mut Sim, from: usize, to: usize) -> Moved {
    let own = sim.hosts[from].server.own_slots();
    let piece = (0..sim.pieces.count()).rev().find(|piece| own & 1 << piece != 0);
    match piece.is_some_and(|piece| sim.move_piece(piece, from, to)) {
        true => Moved::Something,
        false => Moved::Nothing,
    }
}

/// Whether somebody has not heard yet that another owns what was his, or nobody owns it.
fn are_contested(sim: &Sim) -> bool {
    let claims = ours(sim).map(|at| sim.hosts[at].server.own_slots());
    let (owned, contested) = claims.fold((0, false), |(owned, is), own| (owned | own, is || owned & own != 0));
    contested || owned != sim.pieces.all()
}

/// How many pieces a node owns by its own word.
fn size(sim: &Sim, at: usize) -> u32 {
    let server = &sim.hosts[at].server;
    if server.follows.is_none() { server.own_slots().count_ones() } else { 0 }
}
