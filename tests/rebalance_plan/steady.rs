//! A plan that another run looks at while it is being carried out.

use super::*;

/// Which slot goes where.
fn journeys(moves: &[Move]) -> BTreeMap<Slot, (NodeId, NodeId)> {
    moves.iter().flat_map(|one| one.slots.slots().map(|slot| (slot, (one.from, one.to)))).collect()
}

#[test]
fn whatever_of_a_plan_has_been_done_what_is_left_of_it_is_the_plan() {
    type Plan = fn(&[Share]) -> Option<Vec<Move>>;
    let plans: [(&str, Plan); 2] = [("spread", spread), ("fill", fill)];
    let mut random: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut chance = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for round in 0..60 {
        // Some own about as much as each other, and some nothing.
        let (owners, count) = (2 + round % 3, 4 + round % 5);
        let mut parts: Vec<(SlotSet, u32)> = vec![(SlotSet::EMPTY, 1); count];
        for number in 0..16_384_u16 {
            let part = parts.get_mut(usize::from(number) * owners / 16_384).unwrap();
            part.0.insert(slot(number));
        }
        if round % 2 == 1 {
            parts.iter_mut().for_each(|part| part.1 = u32::try_from(chance(4)).unwrap());
            parts.last_mut().unwrap().1 = 1;
        }
        for (name, plan) in plans {
            let shares = shares(&parts);
            let whole = plan(&shares).unwrap();
            let planned = journeys(&whole);
            for tenths in [1, 5, 9] {
                let mut now = shares.clone();
                let mut left = planned.clone();
                // Sources do not move at the same pace.
                let pace: Vec<u64> = shares.iter().map(|_| chance(11)).collect();
                for (slot, (from, to)) in &planned {
                    let at = shares.iter().position(|share| share.id == *from).unwrap();
                    if chance(10) < tenths && chance(10) < pace[at] {
                        let one = [SlotRange::new(*slot, *slot).unwrap()].iter().collect();
                        for share in &mut now {
                            match share.id {
                                id if id == *from => share.slots = share.slots.without(&one),
                                id if id == *to => drop(share.slots.insert(*slot)),
                                _ => {}
                            }
                        }
                        left.remove(slot);
                    }
                }
                assert!(journeys(&plan(&now).unwrap()) == left, "{name}, {round}: {owners} of {count} own slots");
            }
        }
    }
}
