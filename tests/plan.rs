//! `plan` on small observations: what it decides, and the sentence that goes into the log.

#[path = "plan/shape.rs"]
mod shape;
#[path = "plan/standing.rs"]
mod standing;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use valkeeper::topology::parse::{ClusterInfo, ReplicaLink, Replication};
use valkeeper::topology::{
    ClusterId, Decision, Deed, DesiredTopology, Mark, NodeReport, Observation, Peer, PodName, Policy, Refusal,
    Settings, Shape, Silence, Stage, StageKind, Version, View, parse, plan, restore,
};

const LOWERED: Settings = Settings {
    node_timeout: Duration::from_millis(500),
    min_replicas_to_write: Settings::NO_WRITES,
    ..Settings::DEFAULT
};

const CLOSED: Settings = Settings { min_replicas_to_write: Settings::NO_WRITES, ..Settings::DEFAULT };

fn id(node: usize) -> String {
    format!("{node:040x}")
}

fn ip(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(node + 1).unwrap()))
}

/// A node that knows nobody.
fn blank(node: usize) -> Peer {
    let view = format!("{} :6379@16379 myself,master - 0 0 {node} connected", id(node));
    Peer {
        pod: PodName::of_statefulset("valkey", u32::try_from(node).unwrap()),
        address: SocketAddr::new(ip(node), 6379),
        answer: Ok(Box::new(NodeReport {
            name: format!("ours/valkey-{node}"),
            version: Some(Version::new(9, 1, 2)),
            view: View::new(parse::nodes(&view).unwrap()).unwrap(),
            cluster: ClusterInfo { ok: false, slots_assigned: 0, current_epoch: 0 },
            keys: 0,
            used_memory: 0,
            save_failed: false,
            replication: Replication::default(),
            settings: Settings::DEFAULT,
        })),
    }
}

fn blanks(count: usize) -> Observation {
    Observation { peers: (0..count).map(blank).collect(), ..Observation::default() }
}

fn report(observation: &mut Observation, node: usize) -> &mut NodeReport {
    observation.peers[node].answer.as_deref_mut().unwrap()
}

fn desired(shards: u16, replicas: u16) -> DesiredTopology {
    let shape = Shape { shards: NonZeroU16::new(shards).unwrap(), replicas };
    DesiredTopology { cluster: ClusterId::new("ours").unwrap(), shape }
}

fn decide(observation: &Observation, shards: u16, replicas: u16, hurry: bool) -> Decision {
    plan(observation, &desired(shards, replicas), &Policy { hurry, give_up: None })
}

fn stage(decision: Decision) -> Stage {
    match decision {
        Decision::Act(stage) => stage,
        other => panic!("{other}"),
    }
}

#[test]
fn a_server_that_cannot_carry_our_mark_is_refused() {
    let mut observation = blanks(3);
    report(&mut observation, 1).version = Some(Version::new(7, 0, 15));
    let Decision::Refuse(refusal) = decide(&observation, 3, 0, true) else { panic!("not refused") };
    assert_eq!(refusal.to_string(), "valkey-1 runs 7.0.15, which cannot carry our mark");
    assert!(refusal.remedy().contains("7.2.0") && matches!(refusal, Refusal::TooOld { .. }));
}

#[test]
fn settings_are_lowered_only_while_nobody_has_a_slot_or_a_key() {
    let lowers = |observation: &Observation, hurry| {
        let Decision::Act(stage) = decide(observation, 3, 0, hurry) else { return false };
        stage.actions.iter().any(|action| matches!(action.deed, Deed::Lower(..)))
    };
    assert!(lowers(&blanks(3), true) && !lowers(&blanks(3), false));
    let mut observation = blanks(3);
    report(&mut observation, 2).cluster.slots_assigned = 1;
    assert!(!lowers(&observation, true));
    let mut observation = blanks(3);
    report(&mut observation, 2).keys = 1;
    assert!(!lowers(&observation, true));
    assert!(!lowers(&blanks(2), true), "nor while somebody is missing");
}

#[test]
fn lowered_settings_go_back_in_two_steps_timeouts_before_writes() {
    let mut observation = blanks(2);
    for node in 0..2 {
        let report = report(&mut observation, node);
        report.name = format!("ours/valkey-{node}/15000-0-10-5");
        report.settings = LOWERED;
    }
    let first = restore(&observation, &desired(2, 0)).unwrap();
    assert_eq!(first.kind, StageKind::Restore);
    for action in &first.actions {
        assert_eq!(action.deed, Deed::RestoreTimeout(Settings::DEFAULT.node_timeout), "{action}");
    }
    for node in 0..2 {
        report(&mut observation, node).settings.node_timeout = Settings::DEFAULT.node_timeout;
    }
    let second = restore(&observation, &desired(2, 0)).unwrap();
    assert!(second.actions.iter().all(|action| matches!(&action.deed, Deed::Restore(mark, settings)
        if mark.forming.is_none() && *settings == Settings::DEFAULT)));
}

#[test]
fn lowered_settings_that_nobody_speaks_for_are_those_of_the_other_members() {
    let own = Settings { node_timeout: Duration::from_secs(7), ..Settings::DEFAULT };
    let mut observation = blanks(2);
    report(&mut observation, 0).settings = own;
    report(&mut observation, 1).settings = LOWERED;
    let stage = stage(decide(&observation, 2, 0, false));
    let deeds: Vec<_> = stage.actions.iter().map(|action| &action.deed).collect();
    assert!(matches!(deeds.as_slice(), [Deed::Announce(mark)] if mark.forming == Some(own)), "{stage}");
}

#[test]
fn what_a_mark_holds_goes_back_also_where_somebody_has_opened_the_node_by_hand() {
    let mut observation = blanks(2);
    for node in 0..2 {
        report(&mut observation, node).name = format!("ours/valkey-{node}/15000-0-10-5");
        report(&mut observation, node).settings = LOWERED;
    }
    let opened = report(&mut observation, 1);
    opened.settings.min_replicas_to_write = 0;
    let stage = restore(&observation, &desired(2, 0)).unwrap();
    assert_eq!(stage.actions.len(), 2, "{stage}");
    for action in &stage.actions {
        let now = observation.reports().find(|(_, report)| report.id() == action.on).unwrap().1;
        assert!(action.deed.still_fits(now), "{action}");
    }
}

#[test]
fn a_pod_that_gets_another_name_while_it_is_formed_keeps_what_its_mark_holds() {
    let mut observation = blanks(1);
    let node = report(&mut observation, 0);
    (node.name, node.settings) = ("ours/valkey-7/15000-0-10-5".to_owned(), LOWERED);
    let renamed = Deed::Announce(Mark::parse("ours/valkey-0/15000-0-10-5").unwrap());
    assert!(renamed.still_fits(node));
    assert!(!Deed::Announce(Mark::parse("ours/valkey-0").unwrap()).still_fits(node));
}

#[test]
fn a_small_cluster_meets_in_full_from_one_side_where_one_acts_for_all_and_a_large_one_round_a_ring() {
    let full = |nodes: usize| nodes * (nodes - 1);
    let meetings = [(8, full(8), full(8)), (9, full(9), full(9) / 2), (64, full(64), full(64) / 2), (100, 700, 700)];
    for (nodes, from_both, from_one) in meetings {
        let mut observation = blanks(nodes);
        // The first node, too, has its epoch already.
        let view = format!("{} :6379@16379 myself,master - 0 0 {nodes} connected", id(0));
        report(&mut observation, 0).view = View::new(parse::nodes(&view).unwrap()).unwrap();
        let meet = |observation: &Observation, hurry| {
            let stage = stage(decide(observation, u16::try_from(nodes).unwrap(), 0, hurry));
            assert_eq!(stage.kind, StageKind::Meet);
            stage.actions.len()
        };
        assert_eq!(meet(&observation, false), from_both);
        for node in 0..nodes {
            let report = report(&mut observation, node);
            report.name = format!("ours/valkey-{node}/15000-0-10-5");
            report.settings.min_replicas_to_write = Settings::NO_WRITES;
        }
        assert_eq!(meet(&observation, true), from_one);
    }
}

/// Primaries that know each other and do not say ok yet, with these words for the flags of the others.
fn primaries(count: usize, others: &str) -> Observation {
    let mut observation = blanks(count);
    let share = |node: usize| format!("{}-{}", node * 16_384 / count, (node + 1) * 16_384 / count - 1);
    for node in 0..count {
        let report = report(&mut observation, node);
        (report.name, report.settings) = (format!("ours/valkey-{node}/15000-0-10-5"), CLOSED);
        (report.cluster.slots_assigned, report.cluster.ok) = (16_384, false);
        let line = |other: usize| {
            let flags = if other == node { "myself,master" } else { others };
            format!("{} {}:6379@16379 {flags} - 0 0 {} connected {}", id(other), ip(other), other + 1, share(other))
        };
        let lines: Vec<_> = (0..count).map(line).collect();
        report.view = View::new(parse::nodes(&lines.join("\n")).unwrap()).unwrap();
    }
    observation
}

#[test]
fn the_node_timeout_is_lowered_when_links_stand_and_goes_up_again_where_nodes_are_too_busy_for_that() {
    let standing = primaries(9, "master");
    let lower = stage(decide(&standing, 9, 0, true));
    for action in &lower.actions {
        let now = standing.reports().find(|(_, report)| report.id() == action.on).unwrap().1;
        assert!(
            action.deed.still_fits(now) && matches!(&action.deed, Deed::Lower(_, to) if *to == LOWERED),
            "{action}"
        );
        let mut open = now.clone();
        (open.name, open.settings) = ("ours/valkey-0".to_owned(), Settings::DEFAULT);
        assert!(!action.deed.still_fits(&open), "somebody else was through with it");
    }
    assert_eq!((lower.kind, lower.actions.len()), (StageKind::Hurry, 9));
    assert!(matches!(decide(&standing, 9, 0, false), Decision::Wait(_)), "only where a cluster is formed");

    let mut busy = primaries(9, "master,fail?");
    assert!(!matches!(decide(&busy, 9, 0, true), Decision::Act(_)), "nothing is lowered yet");
    (0..9).for_each(|node| report(&mut busy, node).settings = LOWERED);
    let up = stage(decide(&busy, 9, 0, true));
    let timeout = Settings::DEFAULT.node_timeout;
    assert!(up.actions.iter().all(|action| action.deed == Deed::RestoreTimeout(timeout)), "{up}");
    let mut silent = primaries(9, "master");
    (0..9).for_each(|node| report(&mut silent, node).settings = LOWERED);
    silent.peers[1].answer = Err(Silence::Unreachable("timed out".to_owned()));
    assert_eq!(stage(decide(&silent, 9, 0, true)).actions.len(), 8);
    let few = primaries(3, "master");
    assert!(matches!(decide(&few, 3, 0, true), Decision::Wait(_)), "few have theirs lowered from the beginning");
}

#[test]
fn slots_are_given_to_nobody_whom_nobody_knows() {
    let mut observation = primaries(2, "master");
    for node in 0..2 {
        let report = report(&mut observation, node);
        report.cluster.slots_assigned = 0;
        let mut lines = vec![format!("{} :6379@16379 myself,master - 0 0 {} connected", id(node), node + 1)];
        if node == 0 {
            lines.push(format!("{} {}:6379@16379 master - 0 0 2 connected", id(1), ip(1)));
        } else {
            lines.push(format!("{} {}:6379@16379 handshake,master - 0 0 0 connected", id(7), ip(0)));
        }
        report.view = View::new(parse::nodes(&lines.join("\n")).unwrap()).unwrap();
    }
    let decision = decide(&observation, 2, 0, true);
    assert_eq!(decision.to_string(), "waiting: valkey-1 has no link to valkey-0");
}

#[test]
fn who_is_missing_is_said_by_name_and_reason() {
    let mut observation = blanks(3);
    observation.peers[1].answer = Err(Silence::NotReady("LOADING Valkey is loading the dataset in memory".to_owned()));
    observation.peers.remove(2);
    observation.unresolved = PodName::new("valkey-2").into_iter().collect();
    let decision = decide(&observation, 3, 0, true);
    assert_eq!(
        decision.to_string(),
        "waiting: valkey-1 (10.0.0.2:6379) is not ready: LOADING Valkey is loading the dataset in memory, valkey-2 has no \
         address in DNS"
    );
}

/// A node with this view: a line for each node it knows, `N role flags slots`, where the role is `primary` or the number
/// of the node that is copied.
fn member(node: usize, keys: u64, knows: &[(usize, &str, &str, &str)]) -> Peer {
    let line = |(other, role, flags, slots): &(usize, &str, &str, &str)| {
        let myself = if *other == node { "myself," } else { "" };
        let (role, of) = match role.parse::<usize>() {
            Ok(primary) => ("slave", id(primary)),
            Err(_) => ("master", "-".to_owned()),
        };
        format!("{} {}:6379@16379 {myself}{role}{flags} {of} 0 0 {other} connected {slots}", id(*other), ip(*other))
    };
    let view = knows.iter().map(line).collect::<Vec<_>>().join("\n");
    let mut peer = blank(node);
    let report = peer.answer.as_deref_mut().unwrap();
    report.view = View::new(parse::nodes(&view).unwrap()).unwrap();
    report.cluster = ClusterInfo { ok: true, slots_assigned: 16_384, current_epoch: 9 };
    report.keys = keys;
    if !report.myself().role.is_primary() {
        let link = ReplicaLink { up: true, syncing: false, last_heard: None, down_for: None };
        report.replication = Replication { link: Some(link), offset: 0 };
    }
    peer
}

fn seen(peers: Vec<Peer>) -> Observation {
    Observation { peers, ..Observation::default() }
}

#[test]
fn a_copy_of_a_primary_that_is_gone_is_never_given_up_for_another() {
    // Node 0 came back without its nodes.conf as node 2, over an old dump, and claims every slot.
    let newcomer = member(2, 250_000, &[(2, "primary", "", "0-16383")]);
    let replica = member(1, 270_000, &[(0, "primary", ",fail", "0-16383"), (1, "0", "", ""), (2, "primary", "", "")]);
    let decision = decide(&seen(vec![newcomer, replica]), 1, 1, true);
    let Decision::Refuse(refusal) = decision else { panic!("{decision}") };
    assert!(refusal.to_string().starts_with("the slots 0-16383 belong to the node 00000000"), "{refusal}");
    assert!(refusal.remedy().starts_with("valkey-1 holds a copy"), "{}", refusal.remedy());
}

#[test]
fn of_too_many_replicas_one_with_a_whole_copy_stays() {
    let view = [(0, "primary", "", "0-8191"), (1, "primary", "", "8192-16383"), (2, "0", "", ""), (3, "0", "", "")];
    let mut observation = seen((0..4).map(|node| member(node, 10, &view)).collect());
    let moved = |observation: &Observation| match decide(observation, 2, 1, false) {
        Decision::Act(Stage { kind: StageKind::Replicate, actions }) => actions[0].label.to_string(),
        other => other.to_string(),
    };
    report(&mut observation, 2).replication.link =
        Some(ReplicaLink { up: false, syncing: true, last_heard: None, down_for: None });
    assert_eq!(moved(&observation), "valkey-2", "not the one that is in sync");
    report(&mut observation, 3).replication.link =
        Some(ReplicaLink { up: false, syncing: true, last_heard: None, down_for: None });
    assert!(moved(&observation).starts_with("waiting"), "{}", moved(&observation));
}

#[test]
fn while_a_shard_has_no_primary_nobody_changes_sides() {
    // Node 0 says already that it copies node 2; node 2 did not say yet that it took over.
    let after = [(0, "2", "", ""), (1, "primary", "", "8192-16383"), (2, "primary", "", "0-8191"), (3, "1", "", "")];
    let before = [(0, "primary", "", "0-8191"), (1, "primary", "", "8192-16383"), (2, "0", "", ""), (3, "1", "", "")];
    let views = [after, before, before, before];
    let observation = seen(views.iter().enumerate().map(|(node, view)| member(node, 10, view)).collect());
    let decision = decide(&observation, 2, 1, false);
    assert!(decision.to_string().contains("shard 0 has no primary"), "{decision}");
}

#[test]
fn a_primary_of_before_a_failover_is_no_shard_too_many() {
    let stale = [(0, "primary", "", "0-8191"), (1, "primary", "", "8192-16383"), (2, "0", "", ""), (3, "1", "", "")];
    let now =
        [(0, "primary", ",fail", ""), (1, "primary", "", "8192-16383"), (2, "primary", "", "0-8191"), (3, "1", "", "")];
    let views = [stale, now, now, now];
    let observation = seen(views.iter().enumerate().map(|(node, view)| member(node, 10, view)).collect());
    let decision = decide(&observation, 2, 1, false);
    assert!(decision.to_string().contains("valkey-0 and valkey-2 both claim the slots 0-8191"), "{decision}");
}

#[test]
fn a_stranger_is_refused_only_when_everybody_has_answered() {
    let mut observation = blanks(3);
    report(&mut observation, 1).name = "other/valkey-1".to_owned();
    assert!(matches!(decide(&observation, 3, 0, true), Decision::Refuse(Refusal::Foreign(_))));
    observation.peers[2].answer = Err(Silence::Refused);
    let decision = decide(&observation, 3, 0, true);
    assert!(matches!(decision, Decision::Wait(_)), "{decision}");
    assert!(decision.to_string().contains("belongs to the cluster other"), "{decision}");
}

#[test]
fn primaries_get_higher_epochs_than_those_that_will_copy_them() {
    let mut observation = blanks(6);
    for node in 0..6 {
        let view = format!("{} :6379@16379 myself,master - 0 0 0 connected", id(node));
        report(&mut observation, node).view = View::new(parse::nodes(&view).unwrap()).unwrap();
    }
    let stage = stage(decide(&observation, 3, 1, false));
    let epoch = |node: usize| {
        let action = stage.actions.iter().find(|action| action.on.to_string() == id(node)).unwrap();
        if let Deed::SetEpoch(epoch) = action.deed { epoch } else { panic!("{action}") }
    };
    assert!((0..3).map(epoch).min() > (3..6).map(epoch).max(), "{stage}");
}

#[test]
fn what_was_decided_on_an_old_look_is_not_done() {
    let mut observation = blanks(1);
    let node = report(&mut observation, 0);
    let mark = |text: &str| Mark::parse(text).unwrap();
    let lower = Deed::Lower(mark("ours/valkey-0/15000-0-10-5"), LOWERED);
    let announce = Deed::Announce(mark("ours/valkey-0"));
    let restore = Deed::Restore(mark("ours/valkey-0"), Settings::DEFAULT);
    assert!(lower.still_fits(node) && announce.still_fits(node));
    assert!(!restore.still_fits(node), "it takes writes already, and must not be closed again");
    node.cluster.slots_assigned = 1;
    assert!(!lower.still_fits(node), "it is not empty any more");
    (node.name, node.settings) = ("ours/valkey-0/15000-0-10-5".to_owned(), LOWERED);
    assert!(!announce.still_fits(node) && restore.still_fits(node), "its mark holds settings to put back");
    node.name = "theirs/valkey-0".to_owned();
    assert!(!lower.still_fits(node) && !announce.still_fits(node), "another cluster was quicker");
}
