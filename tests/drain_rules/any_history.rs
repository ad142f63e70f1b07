//! Whatever happens around a drain, it ends in time and does nothing that could cost data.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use valkeeper::topology::Silence;
use valkeeper::topology::drain::{SavePolicy, Step};
use valkeeper::topology::order::Order;
use valkeeper::topology::server::{Aof, Loading, ServerReport};

use crate::world::{World, ms, secs};

#[derive(Clone, Debug)]
enum Event {
    Promote(usize),
    Silent(bool),
    PeerSilent(usize, bool),
    PeerLeaves(usize),
    PeerLags(usize),
    LinkUp(bool),
    Writes(u64),
    FailingSaves(u32),
    CutOff,
    Child { takes: u64, to_disk: bool },
    OtherChild(bool),
    AofWriteOk(bool),
    Migrations(usize),
    Loading(bool),
    Refuses(u8),
    Restarts,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..3_usize).prop_map(Event::Promote),
        1 => any::<bool>().prop_map(Event::Silent),
        1 => (1..3_usize, any::<bool>()).prop_map(|(node, silent)| Event::PeerSilent(node, silent)),
        1 => (1..3_usize).prop_map(Event::PeerLeaves),
        1 => (1..3_usize).prop_map(Event::PeerLags),
        1 => any::<bool>().prop_map(Event::LinkUp),
        1 => (0..9_u64).prop_map(Event::Writes),
        1 => (0..3_u32).prop_map(Event::FailingSaves),
        1 => Just(Event::CutOff),
        1 => (0..9_000_u64, any::<bool>()).prop_map(|(takes, to_disk)| Event::Child { takes, to_disk }),
        1 => any::<bool>().prop_map(Event::OtherChild),
        1 => any::<bool>().prop_map(Event::AofWriteOk),
        1 => (0..3_usize).prop_map(Event::Migrations),
        1 => any::<bool>().prop_map(Event::Loading),
        1 => (0..8_u8).prop_map(Event::Refuses),
        1 => Just(Event::Restarts),
    ]
}

fn change(world: &mut World, event: &Event, healthy: &mut Option<Result<ServerReport, Silence>>) {
    if let Event::Silent(silent) = event {
        if *silent && healthy.is_none() {
            let silence = Err(Silence::Unreachable("no answer in time".to_owned()));
            *healthy = Some(std::mem::replace(&mut world.own, silence));
        } else if let Some(own) = healthy.take() {
            world.own = own;
        }
        return;
    }
    let Ok(own) = &mut world.own else { return };
    let disk = &mut own.persistence;
    match event {
        Event::Silent(_) => {}
        Event::Promote(node) => world.promote(*node),
        Event::PeerSilent(node, true) => world.peers[node - 1] = Err(Silence::Refused),
        Event::PeerSilent(node, false) => {
            if world.peers[node - 1].is_err() {
                world.peers[node - 1] = World::new(2, SavePolicy::Auto, 30).peers[node - 1].clone();
                world.promote(world.primary);
            }
        }
        Event::PeerLeaves(node) => world.peers[node - 1].iter_mut().for_each(|peer| peer.leaving = true),
        Event::PeerLags(node) => world.peers[node - 1].iter_mut().for_each(|peer| peer.replication.offset = 0),
        Event::LinkUp(up) => own.replication.link.iter_mut().for_each(|link| link.up = *up),
        // Held back.
        Event::Writes(_) if world.paused_until.is_some() => {}
        Event::Writes(writes) => {
            (disk.changes, own.replication.offset) = (disk.changes + writes, own.replication.offset + (writes << 18));
        }
        Event::FailingSaves(saves) => world.failing_saves = *saves,
        Event::CutOff => world.cut_off(),
        Event::Child { takes, to_disk } => world.begin_child(ms(*takes), *to_disk),
        Event::OtherChild(other) => disk.other_child = *other,
        Event::AofWriteOk(ok) => {
            disk.aof = Some(Aof { incomplete: false, last_write_ok: *ok, pending: 0 });
        }
        Event::Migrations(migrations) => own.migrations = *migrations,
        Event::Loading(loading) => own.loading = loading.then_some(Loading { done: 0, total: 1, eta: secs(1) }),
        Event::Refuses(0) => world.refuses = |_| Some("no"),
        Event::Refuses(1) => world.refuses = |order| matches!(order, Order::TakeOver | Order::Save).then_some("no"),
        Event::Refuses(2) => world.refuses = |order| matches!(order, Order::Shutdown { .. }).then_some("no"),
        Event::Refuses(_) => world.refuses = |_| None,
        Event::Restarts => (disk.saves, own.leaving, own.guards_writes) = (0, false, true),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_drain_ends_in_time_and_in_order_whatever_happens(
        events in vec((0..32_000_u64, event()), 0..14),
        policy in prop_oneof![Just(SavePolicy::Auto), Just(SavePolicy::Always), Just(SavePolicy::Never)],
        grace in 7..40_u64,
        handover in prop_oneof![Just(None), (0..9_000_u64).prop_map(|time| Some(ms(time)))],
        save_takes in 0..40_000_u64,
    ) {
        let mut world = World::new(2, policy, grace);
        (world.handover_takes, world.save_takes) = (handover, ms(save_takes));
        let (mut events, mut healthy) = (events, None);
        events.sort_by_key(|(at, _)| *at);
        let mut events = events.into_iter().peekable();
        let mut last_asked: Option<Duration> = None;
        let mut wrong: Vec<String> = Vec::new();
        world.play(|world, step| {
            let report = world.drain.report(world.now);
            let owns_slots = world.own.as_ref().is_ok_and(ServerReport::owns_slots);
            let is_loading = world.own.as_ref().is_ok_and(|own| own.loading.is_some());
            if !owns_slots {
                last_asked = None;
            }
            match step {
                Step::Peer(_, Order::TakeOver) => {
                    // One that was refused is none.
                    if (world.refuses)(Order::TakeOver).is_none() {
                        if last_asked.is_some_and(|at| world.now < at + secs(6)) {
                            wrong.push(format!("asked at {last_asked:?} and at {:?}", world.now));
                        }
                        last_asked = Some(world.now);
                    }
                    if !owns_slots {
                        wrong.push("asked without slots".to_owned());
                    }
                }
                Step::Own(Order::Save | Order::SaveLater | Order::PauseWrites(_))
                    if owns_slots && report.handover.given_up.is_none() =>
                {
                    wrong.push(format!("{step:?} before handing over was given up"));
                }
                Step::Own(Order::Save | Order::SaveLater) if policy == SavePolicy::Never => {
                    wrong.push("saved against the wish".to_owned());
                }
                Step::Own(Order::Shutdown { .. }) if report.save.outcome == "none" && !is_loading => {
                    wrong.push("stopped before it is known what is saved".to_owned());
                }
                Step::Own(Order::Shutdown { .. }) if owns_slots && report.save.outcome == "saved" => {
                    let disk = world.disk();
                    if report.save.writes_paused && disk.changes > 0 {
                        wrong.push(format!("{} writes are not on disk, and it says they are", disk.changes));
                    }
                }
                Step::Own(Order::Shutdown { .. }) if owns_slots && !report.save.writes_paused && !is_loading => {
                    let wished = policy != SavePolicy::Never && report.outcome == "clean";
                    if wished && (world.refuses)(Order::PauseWrites(secs(1))).is_none() && !refused_pause(world) {
                        wrong.push("stopped as the last copy without holding writes back".to_owned());
                    }
                }
                _ => {}
            }
            while let Some((_, event)) = events.next_if(|(at, _)| ms(*at) <= world.now) {
                change(world, &event, &mut healthy);
            }
        });
        prop_assert!(wrong.is_empty(), "{:?}\n{:#?}", wrong, world.orders());
        let most = world.budget.last + ms(500);
        prop_assert!(world.now <= most, "{:?} of {:?}\n{:#?}", world.now, most, world.orders());
    }
}

/// Whether the server once would not hold writes back.
fn refused_pause(world: &World) -> bool {
    world.orders().iter().filter(|(_, order)| matches!(order, Order::PauseWrites(_))).count() > 0
}
