//! A cluster that stands: gaps are filled, what is gone is forgotten, and what would mix data is refused.

use valkeeper::topology::health::assess;

use super::*;

type Line<'l> = (usize, &'l str, &'l str, &'l str);

/// Two shards: 0 and 1 are the primaries, 2 and 3 their replicas.
const STANDS: [Line<'static>; 4] =
    [(0, "primary", "", "0-8191"), (1, "primary", "", "8192-16383"), (2, "0", "", ""), (3, "1", "", "")];

fn seen_by(nodes: impl IntoIterator<Item = usize>, view: &[Line<'_>]) -> Observation {
    seen(nodes.into_iter().map(|node| member(node, 10, view)).collect())
}

/// The lines of a view, and one more.
fn and<'l>(view: &[Line<'l>], more: Line<'l>) -> Vec<Line<'l>> {
    view.iter().copied().chain([more]).collect()
}

fn forgotten(decision: &Decision) -> Vec<String> {
    match decision {
        Decision::Act(Stage { kind: StageKind::Forget, actions }) => actions.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn who_lost_its_disk_is_forgotten_by_everybody_who_knows_it() {
    let gone = and(&STANDS, (9, "1", ",fail", ""));
    let mut observation = seen_by(0..4, &gone);
    observation.peers[3] = member(3, 10, &STANDS);
    let decision = decide(&observation, 2, 1, false);
    let short = &id(9)[..8];
    let expected: Vec<_> = (0..3).map(|node| format!("valkey-{node} forgets {short}")).collect();
    assert_eq!(forgotten(&decision), expected, "{decision}");
}

#[test]
fn nobody_is_forgotten_who_may_come_back_or_holds_something() {
    let with = |line: Line<'static>| seen_by(0..4, &and(&STANDS, line));
    let gone = || with((9, "1", ",fail", ""));
    let forgets = |observation: &Observation| !forgotten(&decide(observation, 2, 1, false)).is_empty();
    assert!(forgets(&gone()));

    let mut one_reaches_it = gone();
    one_reaches_it.peers[2] = member(2, 10, &and(&STANDS, (9, "1", "", "")));
    assert!(!forgets(&one_reaches_it), "somebody talks to it");

    let mut a_slot = gone();
    a_slot.peers[2] = member(2, 10, &and(&STANDS, (9, "primary", ",fail", "5")));
    assert!(!forgets(&a_slot), "somebody gives it a slot still");

    let mut missing = gone();
    missing.peers.pop();
    assert!(!forgets(&missing), "it may be the pod that is missing");

    let mut silent = gone();
    let answer = Err(Silence::Unreachable("timed out".to_owned()));
    silent.peers.push(Peer { pod: None, address: SocketAddr::new(ip(9), 6379), answer });
    assert!(!forgets(&silent), "it may be who is silent");

    let mut twice = gone();
    report(&mut twice, 3).name = "ours/valkey-2".to_owned();
    twice.peers[3].pod = None;
    assert!(!forgets(&twice), "a pod that runs twice is no other pod");

    let mut followed = gone();
    let lines = [STANDS[0], STANDS[1], STANDS[2], (3, "9", "", ""), (9, "primary", ",fail", "")];
    followed.peers[3] = member(3, 10, &lines);
    assert!(!forgets(&followed), "somebody copies it");

    let mut ailing = gone();
    report(&mut ailing, 1).cluster.ok = false;
    assert!(!forgets(&ailing), "the cluster is not ok");
}

#[test]
fn a_new_node_joins_and_fills_a_gap_while_another_pod_is_missing() {
    // Node 3 is away, and pod 2 has lost its disk: it is node 6 now.
    let stands = [STANDS[0], STANDS[1], (2, "0", ",fail", ""), (3, "1", ",fail", "")];
    let mut observation = seen_by(0..2, &stands);
    let mut newcomer = blank(6);
    newcomer.pod = PodName::new("valkey-2");
    newcomer.answer.as_deref_mut().unwrap().name = "ours/valkey-2".to_owned();
    observation.peers.push(newcomer.clone());
    let meets = decide(&observation, 2, 1, false);
    assert!(matches!(&meets, Decision::Act(stage) if stage.kind == StageKind::Meet), "{meets}");

    let met = and(&stands, (6, "primary", "", ""));
    let mut observation = seen_by([0, 1], &met);
    let mut joined = member(6, 0, &met);
    joined.pod = newcomer.pod;
    joined.answer.as_deref_mut().unwrap().name = "ours/valkey-2".to_owned();
    observation.peers.push(joined);
    let decision = decide(&observation, 2, 1, false);
    assert_eq!(decision.to_string(), format!("replicate: valkey-2 becomes a replica of {}", &id(0)[..8]));
}

#[test]
fn while_somebody_is_missing_a_server_that_carries_no_mark_is_not_touched() {
    let mut observation = seen_by(0..3, &STANDS);
    let mut unmarked = blank(6);
    unmarked.answer.as_deref_mut().unwrap().name.clear();
    unmarked.pod = None;
    observation.peers.push(unmarked);
    observation.peers.remove(2);
    let decision = decide(&observation, 2, 1, false);
    assert!(matches!(decision, Decision::Wait(_)), "{decision}");
}

#[test]
fn where_slots_stand_a_server_without_a_mark_joins_only_when_dns_cannot_be_wrong_any_more() {
    let mut observation = seen_by(0..3, &STANDS[..3]);
    let mut unmarked = blank(6);
    unmarked.pod = PodName::new("valkey-3");
    unmarked.answer.as_deref_mut().unwrap().name.clear();
    observation.peers.push(unmarked);
    let newcomer = report(&mut observation, 3).id();
    let adopts = |observation: &Observation| decide(observation, 2, 1, false);
    assert!(adopts(&observation).to_string().starts_with("announce: valkey-3 is named"), "{}", adopts(&observation));
    observation.newcomers.insert(newcomer);
    assert!(adopts(&observation).to_string().contains("has just appeared"), "{}", adopts(&observation));
    assert!(matches!(adopts(&observation), Decision::Wait(_)), "{}", adopts(&observation));
    let mut known = observation.clone();
    known.peers[0] = member(0, 10, &and(&STANDS[..3], (6, "primary", "", "")));
    assert!(!matches!(adopts(&known), Decision::Wait(_)), "one of ours knows it: {}", adopts(&known));
    for node in 0..3 {
        report(&mut observation, node).cluster.slots_assigned = 0;
    }
    assert!(!matches!(adopts(&observation), Decision::Wait(_)), "where nothing stands there is nothing to be mixed");
}

#[test]
fn where_slots_are_not_served_nothing_is_done_while_somebody_is_missing() {
    let stands = [STANDS[0], (1, "primary", ",fail", "8192-16383"), STANDS[2], (3, "1", "", "")];
    let mut observation = seen_by([0, 2], &stands);
    observation.peers.push(blank(6));
    let decision = decide(&observation, 2, 1, false);
    assert!(matches!(decision, Decision::Wait(_)), "{decision}");
}

#[test]
fn an_island_whose_owner_is_away_is_another_cluster_all_the_same() {
    let one = [(0, "primary", "", "0-16383"), (1, "0", "", "")];
    let other = [(2, "primary", ",fail", "0-16383"), (3, "2", "", "")];
    let observation = seen(vec![member(0, 10, &one), member(1, 10, &one), member(3, 10, &other)]);
    let decision = decide(&observation, 2, 1, false);
    assert!(matches!(decision, Decision::Refuse(Refusal::TwoIslands { .. })), "{decision}");
}

#[test]
fn new_shards_stand_without_slots_and_get_their_replicas() {
    let joined = and(&and(&STANDS, (4, "primary", "", "")), (5, "primary", "", ""));
    let mut observation = seen_by(0..6, &joined);
    for node in [4, 5] {
        report(&mut observation, node).keys = 0;
    }
    let decision = decide(&observation, 3, 1, false);
    assert_eq!(decision.to_string(), format!("replicate: valkey-5 becomes a replica of {}", &id(4)[..8]));
    let grown = and(&and(&STANDS, (4, "primary", "", "")), (5, "4", "", ""));
    let mut observation = seen_by(0..6, &grown);
    report(&mut observation, 4).keys = 0;
    let decision = decide(&observation, 3, 1, false);
    assert!(matches!(decision, Decision::Converged(_)), "{decision}");
}

#[test]
fn a_primary_that_slots_are_on_their_way_to_is_not_made_a_replica() {
    let slots = format!("[100-<-{}]", id(0));
    let joined = and(&and(&STANDS, (4, "primary", "", "")), (5, "primary", "", ""));
    let mut observation = seen_by(0..6, &joined);
    let own = and(&and(&STANDS, (4, "primary", "", "")), (5, "primary", "", &slots));
    observation.peers[5] = member(5, 0, &own);
    report(&mut observation, 4).keys = 0;
    let decision = decide(&observation, 3, 1, false);
    assert!(!decision.to_string().contains("valkey-5 becomes"), "{decision}");
}

/// Three shards, the third of which, node 4 with its replica 5, owns nothing yet. What nodes 0 and 4 say of their slots
/// that are on their way, and how many keys node 4 holds.
fn filling(sent: &str, received: &str, keys: u64) -> Observation {
    let source = format!("0-8191 {sent}");
    let (grown, new) = ((5, "4", "", ""), (4, "primary", "", ""));
    let mut observation = seen_by(0..6, &and(&and(&STANDS, new), grown));
    let at_source = and(&and(&[(0, "primary", "", source.as_str())], new), grown);
    observation.peers[0] = member(0, 10, &[&at_source, &STANDS[1..]].concat());
    observation.peers[4] = member(4, keys, &and(&and(&STANDS, (4, "primary", "", received)), grown));
    observation
}

#[test]
fn a_primary_that_its_first_slots_are_on_their_way_to_is_waited_for_whatever_it_holds() {
    let (sent, received) = (format!("[100->-{}]", id(4)), format!("[100-<-{}]", id(0)));
    let cases = [(sent.as_str(), received.as_str(), 0), ("", &received, 0), (&sent, &received, 7), (&sent, "", 7)];
    for (sent, received, keys) in cases {
        let decision = decide(&filling(sent, received, keys), 3, 1, false);
        assert_eq!(decision.to_string(), "waiting: slots are on their way to valkey-4", "{sent} {received} {keys}");
    }
    let observation = filling(&sent, &received, 7);
    let health = assess(&observation, &ClusterId::new("ours").unwrap(), Some(desired(3, 1).shape));
    assert!(health.findings.iter().all(|finding| finding.code != "refused"), "{:?}", health.findings);
    let waiting = health.findings.iter().find(|finding| finding.code == "waiting").unwrap();
    assert!(waiting.remedy.contains("`valkeeper rebalance`"), "{}", waiting.remedy);
}

#[test]
fn keys_without_slots_are_refused_and_nobody_is_told_to_delete_them_unseen() {
    let decision = decide(&filling("", "", 7), 3, 1, false);
    let Decision::Refuse(refusal @ Refusal::DataWithoutSlots { .. }) = decision else { panic!("{decision}") };
    let remedy = refusal.remedy();
    let (look, flush) = (remedy.find("CLUSTER NODES"), remedy.find("FLUSHALL"));
    assert!(look.is_some() && look < flush, "{remedy}");
}

#[test]
fn more_shards_than_there_are_primaries_for_are_refused() {
    let decision = decide(&seen_by(0..4, &STANDS), 4, 0, false);
    assert!(matches!(decision, Decision::Refuse(Refusal::OtherShards { primaries: 2, .. })), "{decision}");
}

#[test]
fn who_knew_each_other_is_led_together_even_where_the_shape_is_refused() {
    let lost = [STANDS[0], STANDS[1], STANDS[2], (3, "1", ",fail", "")];
    let mut observation = seen_by(0..4, &lost);
    observation.peers[3].address = SocketAddr::new(ip(33), 6379);
    let decision = decide(&observation, 1, 1, false);
    assert!(matches!(&decision, Decision::Act(stage) if stage.kind == StageKind::Meet), "{decision}");
    let decision = decide(&seen_by(0..4, &STANDS), 1, 1, false);
    assert!(matches!(decision, Decision::Refuse(Refusal::TooManyMembers { .. })), "{decision}");
}

#[test]
fn a_node_that_was_forgotten_and_comes_back_with_its_slots_is_refused() {
    // Its slots were given to node 4 while it was away.
    let now = [STANDS[0], STANDS[2], (3, "4", "", ""), (4, "primary", "", "8192-16383")];
    let mut observation = seen_by([0, 2, 3, 4], &now);
    observation.peers.push(member(1, 5_000, &STANDS));
    let decision = decide(&observation, 2, 1, false);
    let Decision::Refuse(refusal @ Refusal::Stray { .. }) = decision else { panic!("{decision}") };
    assert_eq!(
        refusal.to_string(),
        "valkey-1 holds 5000 keys and takes the slots 8192-16383 for its own, but nobody in the cluster knows it any more"
    );
}

#[test]
fn a_lost_shard_is_given_up_only_by_name_and_where_nobody_holds_a_copy() {
    // Both pods of the second shard have lost their disks.
    let lost = [STANDS[0], (1, "primary", ",fail", "8192-16383"), STANDS[2], (3, "1", ",fail", "")];
    let met = and(&and(&lost, (4, "primary", "", "")), (5, "primary", "", ""));
    let mut observation = seen_by([0, 2, 4, 5], &met);
    for node in 0..4 {
        let pod = report(&mut observation, node);
        pod.cluster.ok = false;
        pod.name = format!("ours/valkey-{node}");
        pod.keys = if node < 2 { 10 } else { 0 };
    }
    let decision = decide(&observation, 2, 1, false);
    let Decision::Refuse(refusal) = &decision else { panic!("{decision}") };
    assert!(refusal.remedy().contains(&format!("--accept-data-loss {}", id(1))), "{}", refusal.remedy());

    let owner = observation.peers[0].answer.as_ref().unwrap().view.entries().iter().find(|entry| entry.flags.failed);
    let give_up = |owner| plan(&observation, &desired(2, 1), &Policy { give_up: owner, ..Policy::KEEP });
    let forgets = give_up(owner.map(|entry| entry.id));
    assert_eq!(forgotten(&forgets).len(), 4, "{forgets}");
    let another = observation.peers[1].answer.as_ref().unwrap().id();
    assert!(matches!(give_up(Some(another)), Decision::Refuse(_)), "{}", give_up(Some(another)));

    let free = [STANDS[0], STANDS[2], (3, "1", ",fail", ""), (4, "primary", "", ""), (5, "primary", "", "")];
    let dress = |freed: &mut Observation| {
        for node in 0..4 {
            let pod = report(freed, node);
            pod.cluster = ClusterInfo { ok: false, slots_assigned: 8192, current_epoch: 9 };
            pod.name = format!("ours/valkey-{node}");
            pod.keys = if node < 2 { 10 } else { 0 };
        }
    };
    let mut freed = seen_by([0, 2, 4, 5], &free);
    dress(&mut freed);
    // In these views the epoch is the node's number: that of node 4 is above all owners'.
    assert_eq!(stage(decide(&freed, 2, 1, false)).to_string(), "slots: valkey-2 gets the slots 8192-16383");
    let high = [(7, "primary", "", "0-8191"), (2, "7", "", ""), free[2], free[3], free[4]];
    let mut freed = seen_by([7, 2, 4, 5], &high);
    dress(&mut freed);
    assert_eq!(stage(decide(&freed, 2, 1, false)).to_string(), "slots: valkey-2 gets an epoch above all others");
}

#[test]
fn a_lost_shard_with_a_copy_is_not_given_up() {
    let lost = [STANDS[0], (1, "primary", ",fail", "8192-16383"), STANDS[2], STANDS[3], (4, "primary", "", "")];
    let mut observation = seen_by([0, 2, 3, 4], &lost);
    report(&mut observation, 3).name = "ours/valkey-1".to_owned();
    report(&mut observation, 3).keys = 0;
    let owner = observation.peers[0].answer.as_ref().unwrap().view.entries().iter().find(|entry| entry.flags.failed);
    let policy = Policy { give_up: owner.map(|entry| entry.id), ..Policy::KEEP };
    let decision = plan(&observation, &desired(2, 1), &policy);
    assert!(matches!(decision, Decision::Refuse(Refusal::LostSlots { copy: Some(_), .. })), "{decision}");
}

#[test]
fn replicas_are_kept_away_from_the_zone_and_the_machine_of_their_primary() {
    // Three zones, pods in turn: each replica would by its ordinal be in the zone of its primary.
    let view: Vec<Line<'_>> = [(0, "0-5460"), (1, "5461-10922"), (2, "10923-16383"), (3, ""), (4, ""), (5, "")]
        .map(|(node, slots)| (node, "primary", "", slots))
        .to_vec();
    let mut observation = seen_by(0..6, &view);
    for node in 0..6 {
        let pod = report(&mut observation, node);
        pod.name = format!("ours/valkey-{node}//zone-{}/host-{node}", node % 3);
        pod.keys = 0;
    }
    let followed = |observation: &Observation| -> Vec<(usize, usize)> {
        let stage = stage(decide(observation, 3, 1, false));
        let primary = |action: &valkeeper::topology::Action| match &action.deed {
            Deed::Replicate(primary) => (0..3).find(|node| id(*node) == primary.to_string()).unwrap(),
            other => panic!("{other:?}"),
        };
        (3..6).zip(stage.actions.iter().map(primary)).collect()
    };
    assert!(
        followed(&observation).iter().all(|(node, primary)| node % 3 != primary % 3),
        "{:?}",
        followed(&observation)
    );

    // All in one zone, two on each machine.
    for node in 0..6 {
        report(&mut observation, node).name = format!("ours/valkey-{node}//zone/host-{}", node / 2);
    }
    assert!(
        followed(&observation).iter().all(|(node, primary)| node / 2 != primary / 2),
        "{:?}",
        followed(&observation)
    );
}

#[test]
fn an_owner_that_somebody_will_never_believe_gets_a_higher_epoch() {
    // The epoch of a node is its number.
    let seen_by_3 = |view: &[Line<'_>]| {
        let mut observation = seen_by(0..4, &STANDS);
        observation.peers[3] = member(3, 10, view);
        observation
    };
    let heard_too_late = [(0, "primary", "", ""), STANDS[1], (2, "0", "", "0-8191"), STANDS[3]];
    let stuck = seen_by_3(&heard_too_late);
    let decision = decide(&stuck, 2, 1, false).to_string();
    assert_eq!(decision, "outrank: valkey-0 gets an epoch above all others");

    let mut highest = stuck.clone();
    (0..4).for_each(|node| report(&mut highest, node).cluster.current_epoch = 0);
    let decision = decide(&highest, 2, 1, false).to_string();
    assert_eq!(decision, "outrank: valkey-1 gets an epoch above all others", "the server gives it none else");

    let waits = |observation: &Observation| {
        let decision = decide(observation, 2, 1, false);
        assert!(matches!(&decision, Decision::Wait(_)), "{decision}");
    };
    // The news is on its way: who is taken for the owner has a lower epoch.
    waits(&seen_by_3(&[(0, "primary", "", "0-16383"), (1, "primary", "", ""), STANDS[2], STANDS[3]]));
    // Nobody tells it.
    waits(&seen_by_3(&[(0, "primary", ",fail", ""), STANDS[1], (2, "0", "", "0-8191"), STANDS[3]]));
    // It is told before its slots move, and this one afterwards.
    waits(&seen_by_3(&[(0, "primary", "", ""), STANDS[1], (2, "primary", "", "0-8191"), STANDS[3]]));
    // It sends a slot away.
    let mut moving = stuck.clone();
    let sends = format!("0-8191 [5->-{}]", id(1));
    moving.peers[0] = member(0, 10, &[(0, "primary", "", &sends), STANDS[1], STANDS[2], STANDS[3]]);
    waits(&moving);
    // Two claim them.
    let mut claimed = seen_by(0..4, &STANDS);
    claimed.peers[2] = member(2, 10, &[(0, "primary", "", ""), STANDS[1], (2, "primary", "", "0-8191"), STANDS[3]]);
    let decision = decide(&claimed, 2, 1, false);
    assert!(!decision.to_string().contains("epoch"), "{decision}");
}
