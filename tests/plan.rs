//! `plan` on small observations: what it decides, and the sentence that goes into the log.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use valkeeper::topology::parse::{ClusterInfo, Replication};
use valkeeper::topology::{
    ClusterId, Decision, Deed, DesiredTopology, NodeReport, Observation, Peer, PodName, Policy, Refusal, Settings,
    Shape, Silence, Stage, StageKind, Version, View, parse, plan, restore,
};

const LOWERED: Settings = Settings {
    node_timeout: Duration::from_millis(500),
    min_replicas_to_write: Settings::NO_WRITES,
    ..Settings::DEFAULT
};

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
    plan(observation, &desired(shards, replicas), &Policy { hurry })
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
fn a_small_cluster_meets_in_full_and_a_large_one_round_a_ring() {
    for (nodes, meetings) in [(6, 6 * 5), (64, 64 * 63), (100, 100 * 7)] {
        let mut observation = blanks(nodes);
        // The first node, too, has its epoch already.
        let view = format!("{} :6379@16379 myself,master - 0 0 {nodes} connected", id(0));
        report(&mut observation, 0).view = View::new(parse::nodes(&view).unwrap()).unwrap();
        let stage = stage(decide(&observation, u16::try_from(nodes).unwrap(), 0, false));
        assert_eq!((stage.kind, stage.actions.len()), (StageKind::Meet, meetings));
    }
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
