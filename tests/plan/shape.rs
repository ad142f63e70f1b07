//! The shape that stands, where none is asked for; and what one pod does of what was decided for all.

use valkeeper::topology::Membership;
use valkeeper::topology::identity::{Site, SiteName};
use valkeeper::topology::probe::{Phase, Reconciliation};

use super::*;

type Line<'l> = (usize, &'l str, &'l str, &'l str);

/// What stands in the eyes of these, of whom those beyond the view know nobody.
fn standing(nodes: &[usize], view: &[Line<'_>]) -> String {
    let peer = |node: &usize| match view.iter().any(|line| line.0 == *node) {
        true => member(*node, 10, view),
        false => blank(*node),
    };
    let observation = seen(nodes.iter().map(peer).collect());
    let shape = Shape::standing(&Membership::of(&observation, &desired(1, 0).cluster));
    shape.map_or_else(String::new, |shape| format!("{}x{}", shape.shards, shape.replicas))
}

#[test]
fn the_shape_that_stands_is_that_of_the_pods_there_are_whoever_is_away_or_has_lost_its_disk() {
    const LOST: &str = ",fail";
    let whole = [(0, "primary", "", "0-8191"), (1, "primary", "", "8192-16383"), (2, "0", "", ""), (3, "1", "", "")];
    let one = [whole[0], whole[1], whole[2], (3, "1", LOST, "")];
    let both = [whole[0], whole[1], (2, "0", LOST, ""), (3, "1", LOST, "")];
    let heirs = [
        (0, "primary", LOST, ""),
        (1, "primary", LOST, ""),
        (2, "primary", "", "0-8191"),
        (3, "primary", "", "8192-16383"),
    ];
    let shard = [whole[0], (1, "primary", LOST, "8192-16383"), whole[2], (3, "1", LOST, "")];
    let left = [whole[0], whole[1], whole[2], (3, "1", "", ""), (9, "1", LOST, "")];
    let flat = [(0, "primary", "", "0-5460"), (1, "primary", "", "5461-10922"), (2, "primary", "", "10923-16383")];
    let replaced: Vec<_> = whole.into_iter().chain([(8, "0", LOST, ""), (9, "1", LOST, "")]).collect();
    let large = [whole[0], whole[1], (2, "0", "", ""), (3, "1", LOST, ""), (4, "0", LOST, ""), (5, "1", "", "")];
    let cases: [(&str, &[usize], &[Line<'_>], &str); 14] = [
        ("all replicas have lost their disks and have their places again", &[0, 1, 2, 3], &replaced, "2x1"),
        ("a zone is away", &[0, 1, 2, 5], &large, "2x2"),
        ("nobody answers", &[], &whole, ""),
        ("all are here", &[0, 1, 2, 3], &whole, "2x1"),
        ("no replicas", &[0, 1, 2], &flat, "3x0"),
        ("a replica is away", &[0, 1, 2], &one, "2x1"),
        ("a replica has lost its disk", &[0, 1, 2, 8], &one, "2x1"),
        ("both replicas are away", &[0, 1], &both, "2x1"),
        ("both replicas have lost their disks", &[0, 1, 7, 8], &both, "2x1"),
        ("one is away and one has lost its disk", &[0, 1, 8], &both, "2x1"),
        ("all primaries have been replaced", &[2, 3], &heirs, "2x1"),
        ("a whole shard has lost its disks", &[0, 2, 7, 8], &shard, "2x1"),
        ("what a disk was is still known", &[0, 1, 2, 3], &left, "2x1"),
        ("two pods were added", &[0, 1, 2, 3, 7, 8], &whole, "2x2"),
    ];
    for (name, nodes, view, wanted) in cases {
        assert_eq!(standing(nodes, view), wanted, "{name}");
    }
}

#[test]
fn in_the_middle_of_a_failover_no_shard_is_gone() {
    // Node 0 says already that it copies node 2; node 2 did not say yet that it took over.
    let after = [(0, "2", "", ""), (1, "primary", "", "8192-16383"), (2, "primary", "", "0-8191"), (3, "1", "", "")];
    let before = [(0, "primary", "", "0-8191"), (1, "primary", "", "8192-16383"), (2, "0", "", ""), (3, "1", "", "")];
    let views = [after, before, before, before];
    let observation = seen(views.iter().enumerate().map(|(node, view)| member(node, 10, view)).collect());
    let shape = Shape::whole(&Membership::of(&observation, &desired(1, 0).cluster)).unwrap();
    let decision = decide(&observation, shape.shards.get(), shape.replicas, false);
    assert!(matches!(decision, Decision::Wait(_)), "{shape}: {decision}");
}

#[test]
fn where_slots_have_no_owner_nobody_can_tell_which_shape_stands() {
    let half = [(0, "primary", "", "0-8191"), (2, "0", "", ""), (4, "primary", "", "")];
    let observation = seen([0, 2, 4].map(|node| member(node, 10, &half)).into());
    assert_eq!(Shape::whole(&Membership::of(&observation, &desired(1, 0).cluster)), None);
}

#[test]
fn a_pod_does_what_is_for_its_own_node_at_the_address_where_it_reaches_it() {
    let observation = blanks(2);
    let stage = stage(decide(&observation, 2, 0, true));
    let own = observation.peers[1].answer.as_ref().unwrap().id();
    let here: SocketAddr = (Ipv4Addr::LOCALHOST, 6379).into();
    let part = stage.part_of(own, here, &Site::default()).unwrap();
    assert!(part.actions.iter().all(|action| action.on == own && action.address == here), "{part}");
    assert_eq!(part.actions.len(), stage.actions.iter().filter(|action| action.on == own).count());
}

#[test]
fn a_mark_that_is_set_anew_names_the_place_of_the_node_again() {
    let mut observation = blanks(1);
    report(&mut observation, 0).name.clear();
    let stage = stage(decide(&observation, 1, 0, false));
    let own = observation.peers[0].answer.as_ref().unwrap().id();
    let site = Site { zone: SiteName::new("zone-a"), host: SiteName::new("host-b") };
    let part = stage.part_of(own, observation.peers[0].address, &site).unwrap();
    assert_eq!(part.to_string(), "announce: valkey-0 is named ours/valkey-0//zone-a/host-b");
}

#[test]
fn who_does_not_do_its_part_is_named() {
    let overdue = Reconciliation::overdue(&stage(decide(&blanks(2), 2, 0, true)));
    assert_eq!(overdue.state, Phase::Waiting);
    assert!(overdue.reason.starts_with("waiting for valkey-0, valkey-1 to do their part: "), "{}", overdue.reason);
    assert!(overdue.remedy.is_some_and(|remedy| remedy.contains("valkeeper run")));
}
