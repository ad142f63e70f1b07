//! What a drain decides, and when: its rules on a shard of a few nodes, and any history at all.

#[path = "drain_rules/any_history.rs"]
mod any_history;
#[path = "drain_rules/world.rs"]
mod world;

use valkeeper::topology::Silence;
use valkeeper::topology::drain::{SavePolicy, Step, Verdict, Waiting};
use valkeeper::topology::order::Order;
use valkeeper::topology::server::{Aof, Loading};

use world::{World, id, ms, secs};

const AOF: Aof = Aof { incomplete: false, last_write_ok: true, pending: 0 };

fn world(replicas: usize) -> World {
    World::new(replicas, SavePolicy::Auto, 30)
}

/// How each replica stands, and who is to be the heir.
type Standing = (fn(&mut World), Option<usize>);

#[test]
fn the_heir_is_in_sync_stays_and_is_the_nearest() {
    let table: [Standing; 9] = [
        (|_| {}, Some(1)),
        (|world| world.peer(1).replication.offset = 900, Some(2)),
        (|world| world.peer(1).leaving = true, Some(2)),
        (|world| world.peer(1).replication.link.as_mut().unwrap().up = false, Some(2)),
        (|world| world.peer(1).replication.link.as_mut().unwrap().syncing = true, Some(2)),
        (|world| world.peer(1).loading = Some(Loading { done: 0, total: 1, eta: secs(1) }), Some(2)),
        (|world| world.peers[0] = Err(Silence::Unreachable("no answer in time".to_owned())), Some(2)),
        (|world| world.peer(1).cluster = world.peer(2).cluster.clone(), Some(2)),
        (|world| (1..=3).for_each(|node| world.peer(node).leaving = true), None),
    ];
    for (number, (stand, heir)) in table.into_iter().enumerate() {
        let mut world = world(3);
        stand(&mut world);
        let report = world.end();
        let asked: Vec<_> = world.asked().into_iter().map(|(_, node)| node).collect();
        assert_eq!(asked, heir.map(id).into_iter().collect::<Vec<_>>(), "row {number}: {report:?}");
        assert_eq!(report.handover.heir.is_some(), heir.is_some(), "row {number}");
        assert!(world.is_clean(), "row {number}");
    }
}

/// A primary sends its vote over its own link to the candidate, and makes a link anew only now and then.
#[test]
fn a_replica_that_was_just_started_is_asked_when_a_majority_could_send_it_their_votes() {
    for (uptime, asked) in [(secs(1), secs(3)..ms(3_200)), (secs(300), ms(0)..ms(100))] {
        let mut world = world(1);
        world.peer(1).uptime = uptime;
        world.link(1, false);
        world.play(|world, _| {
            if world.primary == 0 && world.now >= secs(3) {
                world.link(1, true);
            }
        });
        assert!(asked.contains(&world.asked()[0].0), "{:?}", world.asked());
        assert!(world.is_clean());
    }
}

#[test]
fn a_node_is_marked_then_hands_over_then_saves_then_stops() {
    let mut world = world(1);
    let report = world.end();
    let orders: Vec<_> = world.orders().into_iter().map(|(_, order)| order).collect();
    assert_eq!(orders, [Order::MarkLeaving, Order::TakeOver, Order::Save, Order::Shutdown { force: false }]);
    assert_eq!(report.handover.heir.as_deref(), Some("valkey-1"));
    assert_eq!((report.save.outcome.as_str(), report.save.keys, report.save.writes_paused), ("saved", 42, false));
    assert!((1_000..1_500).contains(&report.used_ms), "{report:?}");
    let phases: Vec<_> = report.phases.iter().map(|phase| phase.phase.as_str()).collect();
    assert_eq!(phases, ["mark", "handover", "follow", "save", "settle", "stop"]);
}

#[test]
fn a_replica_that_lags_or_syncs_is_waited_for_and_taken_as_soon_as_it_is_even() {
    let behind: fn(&mut World, bool) = |world, lags| world.peer(1).replication.offset = if lags { 0 } else { 5 << 20 };
    let syncing: fn(&mut World, bool) = |world, syncs| {
        world.peer(1).replication.offset = 5 << 20;
        let link = world.peer(1).replication.link.as_mut().unwrap();
        (link.up, link.syncing) = (!syncs, syncs);
    };
    for lag in [behind, syncing] {
        let mut world = world(1);
        world.own().replication.offset = 5 << 20;
        lag(&mut world, true);
        world.play(|world, _| {
            if world.primary == 0 && world.now >= secs(4) {
                lag(world, false);
            }
        });
        assert!((secs(4)..ms(4_200)).contains(&world.asked()[0].0), "{:?}", world.asked());
        assert!(world.said("waiting for a replica that can take over: valkey-1") || world.said("10.0.0.2"));
        assert!(world.is_clean());
    }
}

#[test]
fn a_replica_that_stays_far_behind_is_better_than_none_when_half_the_time_is_gone() {
    let mut world = world(1);
    world.own().replication.offset = 5 << 20;
    world.end();
    assert!((secs(6)..ms(6_200)).contains(&world.asked()[0].0), "{:?}", world.asked());
}

#[test]
fn a_first_sync_that_does_not_end_in_time_leaves_the_last_copy_here_and_writes_held_back() {
    let mut world = world(1);
    let link = world.peer(1).replication.link.as_mut().unwrap();
    (link.up, link.syncing) = (false, true);
    let report = world.end();
    assert_eq!(report.handover.given_up.as_deref(), Some("no replica has taken over in time"));
    assert!(world.asked().is_empty() && report.save.writes_paused && world.is_clean(), "{report:?}");
}

#[test]
fn a_replica_is_asked_once_and_six_seconds_later_another_and_then_nobody() {
    let mut world = world(2);
    world.handover_takes = None;
    let report = world.end();
    let asked = world.asked();
    assert_eq!(asked.iter().map(|(_, node)| *node).collect::<Vec<_>>(), [id(1), id(2)]);
    assert!(asked[1].0 - asked[0].0 >= secs(6), "{asked:?}");
    assert!(report.handover.given_up.is_some() && report.save.writes_paused, "{report:?}");
}

#[test]
fn the_only_replica_is_asked_again_when_the_first_attempt_came_to_nothing() {
    let mut world = world(1);
    world.handover_takes = None;
    world.play(|world, step| {
        if *step == Step::Peer(id(1), Order::TakeOver) && world.now > secs(3) {
            world.handover_takes = Some(ms(50));
        }
    });
    assert_eq!(world.asked().len(), 2);
    assert!(world.drain.report(world.now).handover.heir.is_some());
}

#[test]
fn a_replica_that_says_no_is_not_asked_without_pause() {
    let mut world = world(1);
    world.refuses = |order| (order == Order::TakeOver).then_some("ERR Primary is down or failed");
    let report = world.end();
    assert!((2..=13).contains(&world.asked().len()), "{:?}", world.asked());
    assert!(world.said("would not take over") && report.handover.given_up.is_some());
}

#[test]
fn when_everybody_leaves_handing_over_is_given_up_at_once() {
    let mut world = world(2);
    world.peer(1).leaving = true;
    world.peer(2).leaving = true;
    let report = world.end();
    assert_eq!(world.asked(), []);
    assert!(report.used_ms < 1_500 && report.save.writes_paused && report.save.outcome == "saved", "{report:?}");
}

#[test]
fn whoever_was_leaving_and_is_gone_is_not_waited_for() {
    let mut world = world(1);
    world.peer(1).replication.link.as_mut().unwrap().up = false;
    world.play(|world, _| match world.now {
        now if now > ms(300) => world.peers[0] = Err(Silence::Refused),
        now if now > ms(200) => world.peer(1).leaving = true,
        _ => {}
    });
    assert!(world.now < secs(2), "{:?}", world.now);
}

#[test]
fn a_replica_that_hangs_is_waited_for_only_a_third_of_the_time() {
    for silence in [Silence::Refused, Silence::Unreachable("no answer in time".to_owned())] {
        let mut world = world(1);
        world.peers[0] = Err(silence);
        let report = world.end();
        assert!((4_000..6_000).contains(&report.used_ms), "{report:?}");
    }
}

#[test]
fn a_migration_is_waited_for_and_then_cancelled_once() {
    for stays in [false, true] {
        let mut world = world(1);
        world.own().migrations = 1;
        world.play(|world, _| {
            let is_over = !stays && world.now >= secs(1);
            world.own.iter_mut().for_each(|own| own.migrations = usize::from(!is_over));
        });
        // Slots on their way in cannot be cancelled here: they go on being there, and are handed over all the same.
        assert_eq!(world.count(Order::CancelMigrations), usize::from(stays));
        let (earliest, latest) = if stays { (secs(4), ms(4_200)) } else { (secs(1), ms(1_200)) };
        assert!((earliest..latest).contains(&world.asked()[0].0), "{:?}", world.asked());
        assert!(world.said("slots that are on their way"));
    }
}

#[test]
fn saving_begins_when_the_heir_says_that_it_is_primary_and_the_link_to_it_is_up() {
    for (link, word) in [(700, 0), (0, 700), (700, 700)] {
        let mut world = world(1);
        (world.link_takes, world.word_takes) = (ms(link), ms(word));
        world.end();
        assert!((ms(750)..secs(1)).contains(&world.first(Order::Save)), "{:?}", world.orders());
        assert!(world.said("waiting to follow valkey-1"));
    }
}

#[test]
fn a_link_that_does_not_come_up_delays_the_save_by_three_seconds_at_most() {
    let mut world = world(1);
    world.link_takes = secs(100);
    world.end();
    assert!((secs(3)..ms(3_200)).contains(&world.first(Order::Save)), "{:?}", world.orders());
}

#[test]
fn a_node_made_primary_on_its_way_out_hands_over_once_more() {
    let mut world = world(1);
    let mut promoted = false;
    world.play(|world, _| {
        if world.primary == 1 && !promoted && world.now > ms(500) {
            promoted = true;
            world.promote(0);
        }
    });
    assert_eq!(world.asked().len(), 2);
    assert_eq!(world.primary, 1);
    assert!(world.is_clean());
}

#[test]
fn a_node_made_primary_after_its_save_saves_what_came_since_with_writes_held_back() {
    let mut world = world(1);
    let mut promoted = false;
    let report = world.play(|world, step| {
        if *step == Step::Own(Order::Shutdown { force: false }) && !promoted {
            promoted = true;
            world.promote(0);
            world.disk().changes = 3;
            world.peer(1).leaving = true;
            world.refuses = |order| matches!(order, Order::Shutdown { force: false }).then_some("not now");
        } else {
            world.refuses = |_| None;
        }
    });
    assert!(promoted);
    assert_eq!(world.count(Order::Save), 2, "{report:?}");
    assert!(report.save.writes_paused && world.is_clean());
}

#[test]
fn a_save_begun_as_a_replica_does_not_stand_for_what_came_as_primary_since() {
    let mut world = world(1);
    world.promote(1);
    let mut promoted = false;
    let report = world.play(|world, _| {
        if !promoted && world.now > ms(500) {
            promoted = true;
            world.promote(0);
            world.disk().changes += 3;
            world.peer(1).leaving = true;
        }
    });
    assert_eq!(world.count(Order::Save), 2, "{report:?}");
    assert!(report.save.writes_paused && report.save.outcome == "saved" && world.is_clean());
}

#[test]
fn writes_flow_again_when_the_heir_takes_over_after_all() {
    let mut world = world(1);
    // Later than twice six seconds: the second time of asking begins anew.
    world.handover_takes = Some(secs(8));
    world.save_takes = secs(3);
    let report = world.end();
    assert_eq!(world.count(Order::ResumeWrites), 1);
    assert!(world.paused_until.is_none() && !report.save.writes_paused && report.handover.heir.is_some(), "{report:?}");
}

#[test]
fn a_foreign_save_is_waited_for_and_done_again_only_if_writes_came_after_it() {
    for (later, saves) in [(0, 0), (5, 1)] {
        let mut world = World::standalone(SavePolicy::Auto);
        world.begin_child(secs(2), true);
        world.disk().changes += later;
        let report = world.end();
        assert_eq!(world.count(Order::Save), saves, "{report:?}");
        assert!(world.said("a save that others began") && world.is_clean());
    }
}

#[test]
fn a_copy_to_a_replica_is_no_save_of_ours() {
    let mut world = World::standalone(SavePolicy::Auto);
    world.begin_child(secs(2), false);
    let report = world.end();
    assert_eq!((world.count(Order::Save), report.save.outcome.as_str()), (1, "saved"));
}

#[test]
fn nothing_is_saved_where_nothing_is_new() {
    let mut world = World::standalone(SavePolicy::Always);
    (world.disk().changes, world.disk().saves) = (0, 1);
    assert_eq!((world.end().save.outcome.as_str(), world.count(Order::Save)), ("nothing new", 0));
    let mut world = World::standalone(SavePolicy::Always);
    world.disk().changes = 0;
    assert_eq!(world.end().save.outcome, "saved", "of what was loaded at the start nobody knows where from");
}

#[test]
fn a_save_that_is_refused_because_a_child_has_just_begun_is_tried_when_that_has_ended() {
    let mut world = World::standalone(SavePolicy::Auto);
    let mut begun = false;
    world.play(|world, step| {
        if *step == Step::Own(Order::Save) && !begun {
            begun = true;
            world.begin_child(secs(2), false);
        }
    });
    assert_eq!(world.count(Order::Save), 2);
    assert!(world.is_clean());
}

#[test]
fn a_save_waits_in_line_behind_a_rewrite() {
    let mut world = World::standalone(SavePolicy::Always);
    world.disk().other_child = true;
    let mut scheduled = false;
    world.play(|world, step| {
        scheduled |= *step == Step::Own(Order::SaveLater);
        if scheduled && world.now > secs(2) && world.own.is_ok() && world.disk().other_child {
            world.disk().other_child = false;
            // First the copy that a replica waits for, then ours.
            world.begin_child(secs(1), false);
        }
        if scheduled && world.now > ms(3_200) && world.own.is_ok() && world.disk().saves == 0 {
            world.begin_child(secs(1), true);
        }
    });
    assert_eq!((world.count(Order::SaveLater), world.count(Order::Save)), (1, 0));
    assert!(world.said("another child") && !world.said("failed") && world.is_clean());
}

#[test]
fn a_save_that_is_cut_off_is_not_taken_for_a_good_one() {
    let mut world = World::standalone(SavePolicy::Auto);
    let mut cut = false;
    let report = world.play(|world, _| {
        if !cut && world.now > ms(500) {
            cut = true;
            world.cut_off();
            assert!(world.disk().last_save_ok && world.disk().saves == 1);
        }
    });
    assert_eq!((world.count(Order::Save), report.save.outcome.as_str()), (2, "saved"));
}

#[test]
fn a_failed_save_is_tried_again_with_growing_pauses_and_the_guard_is_put_back_when_it_succeeds() {
    let mut world = World::standalone(SavePolicy::Auto);
    (world.failing_saves, world.save_takes) = (3, ms(200));
    let report = world.end();
    let orders = world.orders();
    let saves: Vec<_> = orders.iter().filter(|(_, order)| *order == Order::Save).map(|(at, _)| *at).collect();
    assert_eq!(saves.len(), 4);
    assert!(saves[1] - saves[0] < saves[2] - saves[1] && saves[2] - saves[1] < saves[3] - saves[2], "{saves:?}");
    assert!(world.said("7 writes are not on disk") && world.is_clean());
    let place = |wanted: Order| orders.iter().position(|(_, order)| *order == wanted).unwrap();
    let first_save = place(Order::Save);
    assert!(orders[..first_save].iter().any(|(_, order)| matches!(order, Order::PauseWrites(_))));
    assert!(place(Order::GuardWrites(false)) < first_save && first_save < place(Order::GuardWrites(true)));
    assert_eq!((report.save.outcome.as_str(), world.count(Order::GuardWrites(true))), ("saved", 1));
}

#[test]
fn a_disk_that_stays_full_ends_unfinished_at_the_last_second_and_the_server_is_stopped_by_force() {
    let mut world = World::standalone(SavePolicy::Auto);
    (world.failing_saves, world.save_takes) = (u32::MAX, ms(200));
    let report = world.end();
    let Verdict::Unfinished(why) = world.drain.verdict() else { panic!("{report:?}") };
    assert!(why.contains("the save failed") && why.contains("7 writes") && why.contains("42 keys"), "{why}");
    assert!((28_000..=30_000).contains(&report.used_ms), "{report:?}");
    assert_eq!(world.count(Order::Shutdown { force: true }), 1);
    assert_eq!(world.count(Order::GuardWrites(true)), 0, "clients would see MISCONF until the server is gone");
}

#[test]
fn a_fork_that_is_refused_is_said_and_told_with_the_server_s_words() {
    let mut world = World::standalone(SavePolicy::Auto);
    world.refuses = |order| (order == Order::Save).then_some("ERR cannot fork");
    world.play(|world, step| {
        if *step == Step::Own(Order::Save) {
            (world.disk().last_save_ok, world.disk().saves) = (false, 1);
        }
    });
    let Verdict::Unfinished(why) = world.drain.verdict() else { panic!() };
    assert!(why.contains("could not begin (ERR cannot fork)"), "{why}");
    assert!(world.said("the save failed, see the server's log"));
    assert!(world.count(Order::Save) > 10);
}

#[test]
fn a_save_that_will_not_end_in_time_is_said_early_and_ends_unfinished() {
    let mut world = World::standalone(SavePolicy::Auto);
    world.save_takes = secs(100);
    world.end();
    let alarm = world.steps.iter().find(|(_, step)| matches!(step, Step::Wait(waiting, _) if waiting.is_alarming()));
    let (at, step) = alarm.unwrap();
    let Step::Wait(waiting, _) = step else { unreachable!() };
    assert!(*at < secs(5) && waiting.to_string().contains("terminationGracePeriodSeconds"), "{at:?} {waiting}");
    let Verdict::Unfinished(why) = world.drain.verdict() else { panic!() };
    assert!(why.contains("the save was at "), "{why}");
    assert_eq!(world.drain.report(world.now).save.outcome, "unfinished");
}

#[test]
fn the_remaining_time_of_a_foreign_save_is_reckoned_from_its_own_age() {
    let mut world = World::standalone(SavePolicy::Auto);
    world.save_takes = secs(10);
    world.begin_child(secs(5), true);
    world.disk().saving.as_mut().unwrap().elapsed = secs(5);
    let mut reckoned = Vec::new();
    world.play(|_, step| {
        if let Step::Wait(Waiting::Saving { foreign: true, eta, .. }, _) = step {
            reckoned.extend(*eta);
        }
    });
    assert!(reckoned.iter().all(|eta| *eta <= secs(6)) && reckoned.iter().any(|eta| *eta >= secs(4)), "{reckoned:?}");
}

#[test]
fn writes_are_held_back_only_for_the_last_copy_and_as_long_as_the_grace_period_lasts() {
    let pauses = |world: &World| -> Vec<_> {
        let orders = world.orders().into_iter();
        orders
            .filter_map(|(at, order)| if let Order::PauseWrites(time) = order { Some(at + time) } else { None })
            .collect()
    };
    let mut alone = world(0);
    alone.end();
    assert_eq!(pauses(&alone), [secs(32)]);
    let mut replica = world(1);
    replica.promote(1);
    replica.end();
    assert_eq!((pauses(&replica), replica.asked()), (vec![], vec![]));
    let mut standalone = World::standalone(SavePolicy::Auto);
    standalone.end();
    assert_eq!(pauses(&standalone), [secs(32)]);
    let mut standalone_replica = World::standalone(SavePolicy::Auto);
    standalone_replica.own().replication.link = world(1).peer(1).replication.link.clone();
    standalone_replica.end();
    assert_eq!((pauses(&standalone_replica), standalone_replica.count(Order::MarkLeaving)), (vec![], 0));
}

#[test]
fn with_an_append_only_file_nothing_is_saved_beside_it() {
    let mut world = World::standalone(SavePolicy::Auto);
    world.disk().aof = Some(Aof { incomplete: true, pending: 10, ..AOF });
    let report = world.play(|world, _| {
        if world.now > secs(2) && world.own.is_ok() {
            world.disk().aof = Some(AOF);
        }
    });
    assert_eq!((world.count(Order::Save), report.save.outcome.as_str()), (0, "append-only file"));
    assert!(world.said("append-only file") && report.save.writes_paused && report.used_ms > 2_000, "{report:?}");

    let mut always = World::standalone(SavePolicy::Always);
    always.disk().aof = Some(AOF);
    assert_eq!(always.end().save.outcome, "saved");
}

#[test]
fn an_append_only_file_that_cannot_be_written_ends_unfinished() {
    let mut world = World::standalone(SavePolicy::Auto);
    world.disk().aof = Some(Aof { last_write_ok: false, ..AOF });
    world.end();
    let Verdict::Unfinished(why) = world.drain.verdict() else { panic!() };
    assert!(why.contains("append-only file could not be written"), "{why}");
    assert!(world.said("is the disk full"));
}

#[test]
fn where_no_save_is_wanted_the_shard_is_still_handed_over_and_no_write_held_back() {
    let mut world = World::new(1, SavePolicy::Never, 30);
    assert_eq!(world.end().save.outcome, "not wanted");
    assert_eq!((world.asked().len(), world.count(Order::Save)), (1, 0));
    let mut alone = World::new(0, SavePolicy::Never, 30);
    assert!(!alone.end().save.writes_paused && alone.is_clean());
}

#[test]
fn a_server_that_is_loading_is_stopped_at_once() {
    let mut world = world(1);
    (world.own().loading, world.own().cluster) = (Some(Loading { done: 1, total: 9, eta: secs(9) }), None);
    world.end();
    assert_eq!(world.orders(), [(ms(0), Order::Shutdown { force: false })]);
}

#[test]
fn a_silent_server_is_waited_for_to_the_last_second_and_a_dead_one_not_at_all() {
    for (silence, least, most) in [
        (Silence::Unreachable("no answer in time".to_owned()), 28_000, 30_000),
        (Silence::NotReady("BUSY".to_owned()), 28_000, 30_000),
        (Silence::Refused, 0, 10),
    ] {
        let mut world = world(1);
        world.own = Err(silence);
        let report = world.end();
        assert!((least..most).contains(&report.used_ms) && report.outcome == "unfinished", "{report:?}");
    }
}

#[test]
fn a_server_that_answers_again_is_drained_after_all() {
    let mut world = world(1);
    let own = std::mem::replace(&mut world.own, Err(Silence::Unreachable("no answer in time".to_owned())));
    let mut back = Some(own);
    world.play(|world, _| {
        if world.now > secs(3)
            && let Some(own) = back.take()
        {
            world.own = own;
        }
    });
    assert!(world.is_clean() && world.asked().len() == 1);
}

#[test]
fn a_server_that_does_not_stop_is_told_again_and_by_force_in_the_last_second() {
    let mut world = world(1);
    world.refuses = |order| matches!(order, Order::Shutdown { .. }).then_some("ERR Errors trying to SHUTDOWN");
    world.end();
    assert!(world.count(Order::Shutdown { force: false }) > 5);
    assert_eq!(world.count(Order::Shutdown { force: true }), 1);
    assert!(world.said("the server does not stop yet: ERR Errors trying to SHUTDOWN"));
    assert!(world.now < secs(30), "{:?}", world.now);
}

#[test]
fn a_user_who_may_not_mark_or_hold_back_still_saves() {
    let mut world = world(0);
    world.refuses = |order| match order {
        Order::MarkLeaving | Order::PauseWrites(_) | Order::GuardWrites(_) => Some("NOPERM"),
        _ => None,
    };
    let report = world.end();
    assert!(world.is_clean() && report.save.outcome == "saved" && !report.save.writes_paused, "{report:?}");
}

#[test]
fn a_drain_that_begins_late_still_asks_an_heir_that_is_ready() {
    let mut world = world(1);
    world.now = secs(14);
    let report = world.end();
    assert!(report.handover.heir.is_some() && world.is_clean(), "{report:?}");
}

#[test]
fn a_short_grace_period_leaves_time_to_save() {
    let mut world = World::new(1, SavePolicy::Auto, 7);
    world.handover_takes = None;
    let report = world.end();
    assert!(world.is_clean() && report.save.outcome == "saved" && report.used_ms < 6_000, "{report:?}");
}
