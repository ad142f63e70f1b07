//! The guarded start: what is refused, who is asked to take over, and what is said of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use valkeeper::topology::observation::{NodeReport, Silence, View};
use valkeeper::topology::parse::{ClusterInfo, RdbFormat, RdbMagic, ReplicaLink, Replication, nodes};
use valkeeper::topology::start::{Attempts, DataFile, Former, Heard, Said, StartDecision, decide, decide_blank};
use valkeeper::topology::{NodeEntry, NodeId, Settings, SlotSet};

#[path = "start/addresses.rs"]
mod addresses;
#[path = "start/inspect.rs"]
mod refused;
#[path = "start/shard_ids.rs"]
mod shard_ids;

const LIMIT: Duration = Duration::from_secs(30);

fn id(number: u8) -> NodeId {
    NodeId::parse(&format!("{number:02x}{}", "0".repeat(38))).unwrap()
}

fn address(number: u8) -> SocketAddr {
    format!("127.0.0.{number}:6379").parse().unwrap()
}

/// A line of a view: node 1 is the one that starts, 2 and 3 copied it, 4 is another shard's primary.
fn line(number: u8, flags: &str, primary: Option<u8>, epoch: u64, slots: &str) -> String {
    let primary = primary.map_or("-".to_owned(), |number| id(number).to_string());
    format!("{} 127.0.0.{number}:6379@16379 {flags} {primary} 0 0 {epoch} connected {slots}\n", id(number))
}

fn entries(text: &str) -> Vec<NodeEntry> {
    nodes(text).unwrap()
}

fn former() -> Former {
    let text = [
        line(1, "myself,master", None, 5, "0-100"),
        line(2, "slave", Some(1), 5, ""),
        line(3, "slave", Some(1), 5, ""),
        line(4, "master", None, 6, "101-16383"),
    ];
    Former::of(&entries(&text.concat())).unwrap()
}

fn report(view: &str, keys: u64, replication: Replication) -> NodeReport {
    NodeReport {
        name: String::new(),
        version: None,
        view: View::new(entries(view)).unwrap(),
        cluster: ClusterInfo { ok: true, slots_assigned: 16384, current_epoch: 6 },
        keys,
        used_memory: 0,
        save_failed: false,
        replication,
        settings: Settings::DEFAULT,
    }
}

fn link(up: bool, syncing: bool, down_for: Option<u64>) -> ReplicaLink {
    ReplicaLink { up, syncing, last_heard: None, down_for: down_for.map(Duration::from_secs) }
}

/// A replica of node 1 with 10 keys, whose link broke a second ago.
fn replica(number: u8) -> NodeReport {
    let view = [
        line(1, "master", None, 5, "0-100"),
        line(number, "myself,slave", Some(1), 5, ""),
        line(4, "master", None, 6, "101-8000"),
        line(5, "master", None, 7, "8001-16383"),
    ];
    report(&view.concat(), 10, Replication { link: Some(link(false, false, Some(1))), offset: 1000 })
}

fn with(mut report: NodeReport, change: impl FnOnce(&mut NodeReport)) -> NodeReport {
    change(&mut report);
    report
}

fn with_link(number: u8, link: ReplicaLink) -> Said {
    says(with(replica(number), |report| report.replication.link = Some(link)))
}

fn says(report: NodeReport) -> Said {
    Said::Report(Box::new(report))
}

fn silent() -> Said {
    Said::Silent(Silence::Unreachable("no answer in 2 s".to_owned()))
}

fn heard(two: Said, three: Said) -> Vec<Heard> {
    vec![Heard { address: address(2), said: two }, Heard { address: address(3), said: three }]
}

fn data(age: u64) -> DataFile {
    DataFile {
        path: PathBuf::from("/data/dump.rdb"),
        size: 1000,
        age: Some(Duration::from_secs(age)),
        format: Some(RdbFormat { magic: RdbMagic::Redis, version: 11 }),
        empty: false,
    }
}

fn attempts(waited: u64, asked: &[(NodeId, Duration)]) -> Attempts<'_> {
    Attempts {
        waited: Duration::from_secs(waited),
        limit: LIMIT,
        asked,
        runs: false,
        answers_for: Duration::from_secs(waited),
    }
}

/// The decision at the first look, over data that is ten minutes old.
fn first(heard: &[Heard]) -> StartDecision {
    decide(&former(), Some(&data(600)), heard, &attempts(0, &[]))
}

#[track_caller]
fn assert_goes(decision: &StartDecision, why: &str) {
    assert!(matches!(decision, StartDecision::Go(_)) && decision.to_string().contains(why), "{decision}");
}

#[track_caller]
fn assert_asks(decision: &StartDecision, number: u8) {
    let StartDecision::Ask { replica, address: at, .. } = decision else { panic!("{decision}") };
    assert_eq!((*replica, *at), (id(number), address(number)), "{decision}");
}

#[test]
fn nodes_conf_tells_who_copied_this_node() {
    let former = former();
    assert_eq!((former.id, former.config_epoch, former.slots.len()), (id(1), 5, 101));
    assert_eq!(former.replicas.iter().map(|known| known.id).collect::<Vec<_>>(), [id(2), id(3)]);
    assert_eq!(former.others.iter().map(|known| known.id).collect::<Vec<_>>(), [id(4)]);
    assert_eq!(Former::of(&entries(&line(4, "master", None, 6, "0"))), None, "it does not name the node itself");
}

#[test]
fn who_was_no_primary_with_slots_starts_at_once() {
    for own in [line(1, "myself,slave", Some(4), 5, ""), line(1, "myself,master", None, 5, "")] {
        let former = Former::of(&entries(&[own, line(2, "slave", Some(1), 5, "")].concat())).unwrap();
        assert_eq!(former.slots, SlotSet::EMPTY);
        let decision = decide(&former, None, &heard(says(replica(2)), silent()), &attempts(0, &[]));
        assert_goes(&decision, "no primary with slots");
    }
}

#[test]
fn a_replica_that_was_up_all_along_takes_over_first() {
    for link in [link(true, false, None), link(false, false, Some(0)), link(false, false, Some(400))] {
        assert_asks(&first(&heard(with_link(2, link), Said::Absent)), 2);
    }
}

#[test]
fn the_replica_that_has_most_is_asked_and_ties_go_to_the_lowest_id() {
    let ahead = |number| says(with(replica(number), |report| report.replication.offset = 2000));
    assert_asks(&first(&heard(says(replica(2)), ahead(3))), 3);
    assert_asks(&first(&heard(ahead(2), ahead(3))), 2);
}

#[test]
fn a_replica_is_found_by_its_id_and_not_by_its_address() {
    let moved = vec![
        Heard {
            address: address(2),
            said: says(report(&line(9, "myself,master", None, 1, ""), 1, Replication::default())),
        },
        Heard { address: address(3), said: Said::Absent },
        Heard { address: address(7), said: says(replica(2)) },
    ];
    let StartDecision::Ask { replica, address: at, .. } = first(&moved) else { panic!("{}", first(&moved)) };
    assert_eq!((replica, at), (id(2), address(7)));
    assert_goes(&first(&moved[..2]), "answers at 127.0.0.2:6379");
}

#[test]
fn a_replica_that_nodes_conf_does_not_know_yet_counts() {
    let mut heard = heard(Said::Absent, Said::Absent);
    heard.push(Heard { address: address(8), said: says(replica(8)) });
    assert_asks(&first(&heard), 8);
}

#[test]
fn a_replica_that_holds_no_whole_copy_is_not_asked() {
    let restarted = with_link(2, link(false, false, None));
    assert_goes(&first(&heard(restarted, Said::Absent)), "has not been in sync since");
    let syncing = with_link(2, link(false, true, Some(3)));
    assert_goes(&first(&heard(syncing, Said::Absent)), "full sync");
    let empty = says(with(replica(2), |report| report.keys = 0));
    assert_goes(&first(&heard(empty, Said::Absent)), "holds no keys");
    let view = [line(2, "myself,slave", Some(4), 6, ""), line(4, "master", None, 6, "101-16383")].concat();
    let other = says(report(&view, 10, Replication { link: Some(link(true, false, None)), offset: 5 }));
    assert_goes(&first(&heard(other, Said::Absent)), "follows this node no longer");
}

#[test]
fn where_the_own_disk_holds_nothing_the_disk_of_a_restarted_replica_counts() {
    let restarted = || heard(with_link(2, link(false, false, None)), Said::Absent);
    assert_asks(&decide(&former(), None, &restarted(), &attempts(0, &[])), 2);
    let empty = DataFile { empty: true, ..data(1) };
    assert_asks(&decide(&former(), Some(&empty), &restarted(), &attempts(0, &[])), 2);
}

#[test]
fn data_that_is_newer_than_the_replicas_broken_link_is_kept() {
    let broken = |since| heard(with_link(2, link(false, false, Some(since))), Said::Absent);
    let decision = |age, since| decide(&former(), Some(&data(age)), &broken(since), &attempts(0, &[]));
    assert_goes(&decision(10, 13), "the data on this disk is newer than that of 02000000, whose link broke 13 s ago");
    assert_asks(&decision(10, 12), 2);
    assert_asks(&decision(600, 1), 2);
    let unknown = DataFile { age: None, ..data(0) };
    assert_asks(&decide(&former(), Some(&unknown), &broken(1000), &attempts(0, &[])), 2);
}

#[test]
fn a_replica_that_is_leaving_is_not_asked_and_this_is_said() {
    let view = [line(1, "master", None, 5, "0-100"), line(2, "myself,slave,nofailover", Some(1), 5, "")].concat();
    let leaving = || says(report(&view, 10, Replication { link: Some(link(false, false, Some(1))), offset: 9 }));
    let decision = first(&heard(leaving(), Said::Absent));
    assert!(matches!(decision, StartDecision::GoHeldBack(_)), "{decision}");
    assert_asks(&first(&heard(leaving(), says(replica(3)))), 3);
}

#[test]
fn who_was_taken_over_starts_at_once() {
    let promoted = [line(2, "myself,master", None, 7, "0-100"), line(1, "master,fail", None, 5, "")].concat();
    let promoted = || says(report(&promoted, 10, Replication::default()));
    assert_goes(&first(&heard(promoted(), says(replica(3)))), "02000000 owns the slots of this node");
    // The others tell as well, be its heir silent.
    let told = [line(4, "myself,master", None, 6, "101-16383"), line(3, "master", None, 7, "0-100")].concat();
    let mut everybody = heard(silent(), silent());
    everybody.push(Heard { address: address(4), said: says(report(&told, 1, Replication::default())) });
    assert_goes(&first(&everybody), "03000000 owns the slots of this node");
    // Once the server runs it goes on holding old data until it has heard of it as well.
    let runs = decide(&former(), None, &everybody, &Attempts { runs: true, ..attempts(3_600, &[]) });
    assert!(matches!(runs, StartDecision::Wait(_)), "{runs}");
}

#[test]
fn an_owner_of_some_slots_or_with_a_lower_epoch_has_not_taken_over() {
    for (epoch, slots) in [(7, "0-50"), (5, "0-100"), (4, "0-100")] {
        let told = [line(4, "myself,master", None, 6, "101-16383"), line(9, "master", None, epoch, slots)].concat();
        let mut everybody = heard(says(replica(2)), Said::Absent);
        everybody.push(Heard { address: address(4), said: says(report(&told, 1, Replication::default())) });
        assert_asks(&first(&everybody), 2);
    }
}

#[test]
fn when_everything_restarts_at_once_nobody_waits() {
    assert_goes(&first(&heard(Said::Absent, Said::Absent)), "is not up");
    let restarted = |number| with_link(number, link(false, false, None));
    assert_goes(&first(&heard(restarted(2), restarted(3))), "has not been in sync");
    assert_goes(&first(&heard(Said::Absent, restarted(3))), "no replica holds better data");
}

#[test]
fn a_replica_that_may_hold_data_is_waited_for_and_not_for_ever() {
    let loading = || Said::Silent(Silence::NotReady("LOADING".to_owned()));
    for doubtful in [heard(silent(), Said::Absent), heard(Said::Absent, loading()), Vec::new()] {
        for waited in [0, 29] {
            let decision = decide(&former(), Some(&data(1)), &doubtful, &attempts(waited, &[]));
            assert!(matches!(decision, StartDecision::Wait(_)), "{decision}");
        }
        assert_goes(&decide(&former(), Some(&data(1)), &doubtful, &attempts(30, &[])), "after 30 s nobody is known");
    }
}

#[test]
fn a_pod_of_ours_that_does_not_let_us_in_is_not_taken_for_worse() {
    let locked = || Said::Locked(Silence::Denied("WRONGPASS".to_owned()));
    let runs = |waited| Attempts { runs: true, ..attempts(waited, &[]) };
    let decide = |heard: &[Heard], attempts: &Attempts<'_>| decide(&former(), Some(&data(1)), heard, attempts);
    let shut = heard(locked(), silent());
    for attempts in [attempts(0, &[]), attempts(3_600, &[]), runs(3_600)] {
        let wait = decide(&shut, &attempts);
        assert!(matches!(wait, StartDecision::Wait(_)), "{wait}");
        assert!(wait.to_string().contains("WRONGPASS; give all pods the same passwords"), "{wait}");
    }
    // Another one that holds better data is asked at once.
    assert_asks(&decide(&heard(locked(), says(replica(3))), &attempts(0, &[])), 3);
    // A stranger at its address says nothing of it for longer than the limit, nor does somebody who is silent.
    let stranger = || Said::Silent(Silence::Denied("WRONGPASS".to_owned()));
    assert_goes(&decide(&heard(stranger(), silent()), &runs(30)), "nobody is known to hold better data");
}

#[test]
fn a_node_without_replicas_starts_at_once() {
    let lone = Former::of(&entries(&line(1, "myself,master", None, 1, "0-16383"))).unwrap();
    assert_goes(&decide(&lone, Some(&data(1)), &[], &attempts(0, &[])), "no replica copies this node");
}

#[test]
fn an_attempt_is_waited_out_before_anybody_is_asked_again() {
    let both = || heard(says(replica(2)), says(replica(3)));
    let decide = |waited, asked: &[(NodeId, Duration)]| decide(&former(), None, &both(), &attempts(waited, asked));
    let ago = Duration::from_millis;
    let waits = |decision: StartDecision, whom: &str| {
        let said = decision.to_string();
        assert!(matches!(decision, StartDecision::Wait(_)) && said.contains(whom), "{said}");
    };
    waits(decide(1, &[(id(2), ago(900))]), "02000000 was asked");
    assert_asks(&decide(1, &[(id(2), ago(1_000))]), 3);
    waits(decide(3, &[(id(2), ago(3_000)), (id(3), ago(1_900))]), "03000000 was asked");
    assert_asks(&decide(3, &[(id(2), ago(3_000)), (id(3), ago(2_000))]), 2);
    // On a slow disk every vote takes its time.
    waits(decide(9, &[(id(2), ago(8_900)), (id(3), ago(7_900)), (id(2), ago(4_900))]), "02000000 was asked");
}

/// Node 2, whose primary 1 has died, and the primaries 4 and 5, whose bus links are as given.
fn with_voters(four: &str, five: &str) -> Said {
    let link = |line: String, state: &str| line.replace("connected", state);
    let view = [
        link(line(1, "master", None, 5, "0-100"), "disconnected"),
        line(2, "myself,slave", Some(1), 5, ""),
        link(line(4, "master", None, 6, "101-8000"), four),
        link(line(5, "master", None, 7, "8001-16383"), five),
    ];
    says(with(replica(2), |report| report.view = View::new(entries(&view.concat())).unwrap()))
}

#[test]
fn a_replica_that_cannot_be_elected_is_not_asked_and_who_can_vote_is_started_held_back() {
    let decide = |four, five, waited| {
        let heard = heard(with_voters(four, five), Said::Absent);
        decide(&former(), None, &heard, &attempts(waited, &[]))
    };
    assert_asks(&decide("connected", "connected", 0), 2);
    for (four, five) in [("disconnected", "connected"), ("connected", "disconnected"), ("disconnected", "disconnected")]
    {
        let wait = decide(four, five, 1);
        assert!(matches!(wait, StartDecision::Wait(_)), "{wait}");
        let needed = decide(four, five, 2);
        assert!(matches!(needed, StartDecision::GoHeldBack(_)), "{needed}");
        assert!(needed.to_string().contains("of 3 primaries can vote, and this one is needed"), "{needed}");
    }
}

#[test]
fn held_back_it_asks_for_as_long_as_it_takes_and_in_its_turn() {
    let asked: Vec<_> = (0..20).map(|number| (id(2), Duration::from_secs(100 - number * 5))).collect();
    let runs = |waited: u64, asked| Attempts { runs: true, ..attempts(waited, asked) };
    let both = heard(with_voters("connected", "connected"), Said::Absent);
    assert_asks(&decide(&former(), None, &both, &runs(3_600, &asked)), 2);
    assert_asks(&decide(&former(), None, &both, &runs(0, &[])), 2);
    let alone = heard(with_voters("disconnected", "disconnected"), Said::Absent);
    let wait = decide(&former(), None, &alone, &runs(3_600, &asked));
    assert!(matches!(wait, StartDecision::Wait(_)), "{wait}");
}

#[test]
fn time_is_up_although_somebody_holds_better_data_and_this_is_said() {
    let decision = decide(&former(), None, &heard(says(replica(2)), silent()), &attempts(30, &[(id(2), LIMIT)]));
    assert!(matches!(decision, StartDecision::GoHeldBack(_)), "{decision}");
    assert!(
        decision.to_string().contains("02000000 holds better data and has not taken over within 30 s"),
        "{decision}"
    );
}

#[test]
fn an_emptied_node_is_never_copied_by_who_followed_its_address() {
    let blank = |heard: &[Heard], waited| decide_blank(address(1), heard, &attempts(waited, &[]));
    assert_asks(&blank(&heard(says(replica(2)), Said::Absent), 0), 2);
    assert_asks(&blank(&heard(with_link(2, link(false, false, None)), Said::Absent), 0), 2);
    let given_up = blank(&heard(says(replica(2)), Said::Absent), 30);
    assert!(matches!(given_up, StartDecision::GoHeldBack(_)), "{given_up}");
}

#[test]
fn an_emptied_node_that_nobody_follows_starts_at_once() {
    let elsewhere = "127.0.0.9:6379".parse().unwrap();
    let answers = || heard(says(replica(2)), Said::Absent);
    assert_goes(&decide_blank(elsewhere, &answers(), &attempts(0, &[])), "no replica copies this node");
    let promoted = [line(2, "myself,master", None, 7, "0-100"), line(1, "master,fail", None, 5, "")].concat();
    let promoted = heard(says(report(&promoted, 10, Replication::default())), Said::Absent);
    assert_goes(&decide_blank(address(1), &promoted, &attempts(0, &[])), "no replica");
    assert_goes(&decide_blank(address(1), &[], &attempts(0, &[])), "no replica");
    let empty = says(with(replica(2), |report| report.keys = 0));
    assert_goes(&decide_blank(address(1), &heard(empty, Said::Absent), &attempts(0, &[])), "holds no keys");
}

#[test]
fn an_emptied_node_waits_for_who_may_follow_it_and_not_for_itself() {
    let doubtful = heard(silent(), Said::Absent);
    assert!(matches!(decide_blank(address(1), &doubtful, &attempts(0, &[])), StartDecision::Wait(_)));
    assert_goes(&decide_blank(address(1), &doubtful, &attempts(30, &[])), "after 30 s");
    assert_goes(&decide_blank(address(2), &doubtful, &attempts(0, &[])), "no replica");
}
