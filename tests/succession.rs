//! Who takes over from a primary that has died, when, and who leaves it to others.

use std::net::SocketAddr;
use std::time::Duration;

use valkeeper::topology::drain::Peer;
use valkeeper::topology::electorate::Electorate;
use valkeeper::topology::observation::{Silence, View};
use valkeeper::topology::parse::{ReplicaLink, Replication, nodes};
use valkeeper::topology::server::{ClusterView, Persistence, ServerReport};
use valkeeper::topology::succession::{Claim, Succession, heirs};
use valkeeper::topology::{Label, NodeId};

fn id(number: u8) -> NodeId {
    NodeId::parse(&format!("{number:02x}{}", "0".repeat(38))).unwrap()
}

fn line(number: u8, flags: &str, primary: Option<u8>, link: &str, slots: &str) -> String {
    let primary = primary.map_or("-".to_owned(), |number| id(number).to_string());
    format!("{} 127.0.0.{number}:6379@16379 {flags} {primary} 0 0 5 {link} {slots}\n", id(number))
}

fn view(text: &[String]) -> View {
    View::new(nodes(&text.concat()).unwrap()).unwrap()
}

/// Replica `number` of primary 1, which has died; 4 and 5 are the other primaries.
fn replica(number: u8, offset: u64) -> ServerReport {
    let view = view(&[
        line(1, "master", None, "disconnected", "0-100"),
        line(number, "myself,slave", Some(1), "connected", ""),
        line(4, "master", None, "connected", "101-8000"),
        line(5, "master", None, "connected", "8001-16383"),
    ]);
    ServerReport {
        version: None,
        run_id: String::new(),
        uptime: Duration::from_secs(100),
        loading: None,
        replication: Replication { link: Some(link(Some(0))), offset },
        persistence: Persistence::default(),
        keys: 10,
        cluster: Some(ClusterView { view, ok: true }),
        leaving: false,
        guards_writes: true,
        migrations: 0,
    }
}

fn link(down_for: Option<u64>) -> ReplicaLink {
    ReplicaLink { up: false, syncing: false, last_heard: None, down_for: down_for.map(Duration::from_secs) }
}

fn seen(mut report: ServerReport, lines: &[String]) -> ServerReport {
    report.cluster = Some(ClusterView { view: view(lines), ok: true });
    report
}

fn sibling(number: u8, offset: u64) -> Peer {
    let address: SocketAddr = format!("127.0.0.{number}:6379").parse().unwrap();
    Peer { id: id(number), label: Label { pod: None, address }, answer: Ok(replica(number, offset)) }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn claim(now: u64, own: &ServerReport, siblings: &[Peer]) -> Claim {
    Succession::default().next(ms(now), id(1), own, siblings, &[])
}

#[test]
fn a_lone_replica_takes_over_after_leaving_the_dead_servers_run_a_moment() {
    assert_eq!(claim(0, &replica(2, 100), &[]), Claim::Wait(ms(30)));
    assert_eq!(claim(30, &replica(2, 100), &[]), Claim::TakeOver);
}

#[test]
fn the_replica_that_has_most_comes_first_and_ties_go_to_the_lowest_id() {
    let (ahead, even) = ([sibling(3, 200)], [sibling(3, 100)]);
    assert_eq!(claim(30, &replica(2, 100), &even), Claim::TakeOver);
    assert!(matches!(claim(30, &replica(2, 100), &ahead), Claim::Wait(_)));
    assert_eq!(claim(330, &replica(2, 100), &ahead), Claim::TakeOver, "the best may have died as well");
    assert!(matches!(claim(30, &replica(6, 100), &even), Claim::Wait(_)));
}

/// What it has acknowledged since would be lost.
#[test]
fn nobody_takes_over_from_a_sibling_that_has_although_the_own_server_has_not_heard_of_it() {
    let promoted = [line(1, "master", None, "disconnected", ""), line(3, "myself,master", None, "connected", "0-100")];
    let sibling = [Peer { answer: Ok(seen(replica(3, 100), &promoted)), ..sibling(3, 100) }];
    for now in [30, 3_000] {
        assert_eq!(claim(now, &replica(2, 100), &sibling), Claim::Leave("another replica has taken over"));
    }
}

#[test]
fn a_silent_sibling_goes_first_and_a_dead_one_is_not_waited_for() {
    let says = |silence| [Peer { answer: Err(silence), ..sibling(3, 0) }];
    let silent = says(Silence::Unreachable("no answer in time".to_owned()));
    assert!(matches!(claim(329, &replica(2, 100), &silent), Claim::Wait(_)));
    assert_eq!(claim(330, &replica(2, 100), &silent), Claim::TakeOver);
    assert_eq!(claim(30, &replica(2, 100), &says(Silence::Refused)), Claim::TakeOver);
}

/// The end comes after the last that was sent, which nobody else may hold.
#[test]
fn nobody_takes_over_who_may_still_read_what_the_dead_has_sent() {
    let reads = |report: ServerReport| {
        let link = ReplicaLink { up: true, last_heard: Some(Duration::ZERO), ..link(None) };
        ServerReport { replication: Replication { link: Some(link), ..report.replication }, ..report }
    };
    let own = replica(2, 100);
    assert_eq!(claim(30, &reads(own.clone()), &[]), Claim::Wait(ms(5)));
    let others = [Peer { answer: Ok(reads(replica(3, 90))), ..sibling(3, 90) }];
    assert_eq!(claim(30, &own, &others), Claim::Wait(ms(5)), "the other one may have more in a moment");
    assert_eq!(claim(500, &reads(own), &others), Claim::TakeOver, "it may never hear of the end");
}

#[test]
fn who_was_asked_is_asked_again_only_when_that_came_to_nothing() {
    let own = replica(2, 100);
    let mut succession = Succession::default();
    let mut at = |now: u64| succession.next(ms(now), id(1), &own, &[], &[]);
    assert_eq!(at(30), Claim::TakeOver);
    assert!(matches!(at(1_000), Claim::Wait(_)));
    assert_eq!(at(1_030), Claim::TakeOver);
    assert!(matches!(at(3_000), Claim::Wait(_)));
    assert_eq!(at(3_030), Claim::TakeOver);
    assert!(matches!(at(8_000), Claim::Wait(_)));
}

#[test]
fn without_a_majority_nobody_is_asked_until_there_is_one() {
    let own = |four: &str, five: &str| {
        let lines = [
            line(1, "master", None, "connected", "0-100"),
            line(2, "myself,slave", Some(1), "connected", ""),
            line(4, "master", None, four, "101-8000"),
            line(5, "master", None, five, "8001-16383"),
        ];
        seen(replica(2, 100), &lines)
    };
    let mut succession = Succession::default();
    for (four, five) in [("disconnected", "connected"), ("connected", "disconnected")] {
        // The dead one does not vote, even if the link to it has not been seen to break.
        assert!(matches!(succession.next(ms(9_000), id(1), &own(four, five), &[], &[]), Claim::Wait(_)));
    }
    // A link that is being tried looks like one that is up.
    let tried = own("connected", "connected");
    assert!(matches!(succession.next(ms(9_050), id(1), &tried, &[], &[id(5)]), Claim::Wait(_)));
    assert_eq!(succession.next(ms(9_100), id(1), &tried, &[], &[]), Claim::TakeOver);
}

#[test]
fn heirs_of_primaries_that_died_together_take_turns() {
    let own = |flags: &str| {
        let lines = [
            line(1, "master", None, "disconnected", "0-100"),
            line(2, "myself,slave", Some(3), "connected", ""),
            line(3, "master", None, "disconnected", "101-200"),
            line(4, "master", None, "connected", "201-8000"),
            line(5, flags, None, "connected", "8001-16000"),
            line(6, "master", None, "connected", "16001-16383"),
        ];
        seen(replica(2, 100), &lines)
    };
    let claim = |now, own| Succession::default().next(ms(now), id(3), &own, &[], &[]);
    assert_eq!(claim(30, own("master")), Claim::Wait(ms(250)), "that of node 1 goes first");
    assert_eq!(claim(280, own("master")), Claim::TakeOver);
    let electorate =
        Electorate::of(own("master,fail").cluster.as_ref().map(|cluster| &cluster.view).unwrap(), None, &[]);
    assert_eq!((electorate.up, electorate.all, electorate.can_elect()), (2, 5, false), "who has failed does not vote");
    assert_eq!(electorate.to_string(), "2 of 5 primaries can vote");
}

#[test]
fn a_copy_that_is_not_whole_and_fresh_is_no_heirs() {
    let with = |change: fn(&mut ServerReport)| {
        let mut report = replica(2, 100);
        change(&mut report);
        report
    };
    let stale: [fn(&mut ServerReport); 5] = [
        |report| report.replication.link = Some(link(Some(6))),
        |report| report.replication.link = Some(link(None)),
        |report| report.replication.link = Some(ReplicaLink { syncing: true, ..link(Some(0)) }),
        |report| report.leaving = true,
        |report| report.replication.link = None,
    ];
    for change in stale {
        assert!(matches!(claim(30, &with(change), &[]), Claim::Leave(_)), "{:?}", with(change));
        assert_eq!(heirs(id(1), Duration::ZERO, [(id(2), &with(change))]), []);
    }
    // The link broke when the primary died, which is a while ago by now.
    let waited = with(|report| report.replication.link = Some(link(Some(11))));
    assert_eq!(claim(10_000, &waited, &[]), Claim::TakeOver);
    assert_eq!(heirs(id(1), Duration::from_secs(10), [(id(2), &waited)]), [id(2)]);
}

#[test]
fn what_is_not_ours_to_inherit_is_left_alone() {
    let leave = |own: ServerReport| match claim(30, &own, &[]) {
        Claim::Leave(why) => why,
        other => panic!("{other:?}"),
    };
    let promoted =
        [line(2, "myself,master", None, "connected", "0-100"), line(4, "master", None, "connected", "101-16383")];
    assert_eq!(leave(seen(replica(2, 100), &promoted)), "it has taken over");
    let follows_another = [
        line(2, "myself,slave", Some(4), "connected", ""),
        line(1, "slave", Some(4), "disconnected", ""),
        line(4, "master", None, "connected", "0-16383"),
    ];
    assert_eq!(leave(seen(replica(2, 100), &follows_another)), "it follows another primary by now");
    let empty = [
        line(1, "master", None, "disconnected", ""),
        line(2, "myself,slave", Some(1), "connected", ""),
        line(4, "master", None, "connected", "0-16383"),
    ];
    assert_eq!(leave(seen(replica(2, 100), &empty)), "the dead node owned no slots");
    let mut outside = replica(2, 100);
    outside.cluster = None;
    assert_eq!(leave(outside), "the server is in no cluster");
}
