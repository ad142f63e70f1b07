//! What is decided about slots: who is to own which, what half-moved ones mean, which shards are kept, how much goes over
//! at once.

#[path = "rebalance_plan/steady.rs"]
mod steady;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use valkeeper::topology::parse::{self, ClusterInfo, ReplicaLink, Replication};
use valkeeper::topology::rebalance::{
    BIG, Counts, Evacuation, Goal, Ground, Key, Mend, Move, Refused, Share, Window, batches, doubts, fill, mend, spread,
};
use valkeeper::topology::{
    ClusterId, Label, Membership, NodeId, NodeReport, Observation, Peer, PodName, Settings, Silence, Slot, SlotRange,
    SlotSet, Version, View,
};

fn id(node: usize) -> NodeId {
    NodeId::parse(&format!("{node:040x}")).unwrap()
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn range(first: u16, last: u16) -> SlotSet {
    [SlotRange::new(slot(first), slot(last)).unwrap()].iter().collect()
}

/// Of a replica that has never had a copy.
const DOWN: ReplicaLink = ReplicaLink { up: false, syncing: false, last_heard: None, down_for: None };

/// One node of a cluster: of whom it is a replica, what it owns, and its open slots as the server writes them.
#[derive(Clone)]
struct Node {
    replica_of: Option<usize>,
    slots: &'static str,
    open: String,
    version: Version,
    /// Whether it is a replica without a link to its primary.
    unlinked: bool,
}

fn primary(slots: &'static str) -> Node {
    Node { replica_of: None, slots, open: String::new(), version: Version::new(8, 1, 0), unlinked: false }
}

fn replica(of: usize) -> Node {
    Node { replica_of: Some(of), ..primary("") }
}

fn with(node: Node, open: &str) -> Node {
    Node { open: open.to_owned(), ..node }
}

/// A cluster in which everybody knows what is so.
fn observe(nodes: &[Node]) -> Observation {
    let line = |node: usize, asked: usize| {
        let Node { replica_of, slots, open, .. } = &nodes[node];
        let (role, of) = match replica_of {
            Some(primary) => ("slave", id(*primary).to_string()),
            None => ("master", "-".to_owned()),
        };
        let (mine, open) = if node == asked { ("myself,", open.as_str()) } else { ("", "") };
        let ip = node + 1;
        format!("{} 10.0.0.{ip}:6379@16379 {mine}{role} {of} 0 0 {node} connected {slots} {open}\n", id(node))
    };
    let peers = nodes.iter().enumerate().map(|(asked, node)| {
        let view: String = (0..nodes.len()).map(|node| line(node, asked)).collect();
        Peer {
            pod: PodName::of_statefulset("valkey", u32::try_from(asked).unwrap()),
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(asked + 1).unwrap())), 6379),
            answer: Ok(Box::new(NodeReport {
                name: format!("ours/valkey-{asked}"),
                version: Some(node.version),
                view: View::new(parse::nodes(&view).unwrap()).unwrap(),
                cluster: ClusterInfo { ok: true, slots_assigned: 16_384, current_epoch: 9 },
                keys: 100,
                used_memory: 1_000_000,
                save_failed: false,
                replication: Replication { link: node.unlinked.then_some(DOWN), ..Replication::default() },
                settings: Settings::DEFAULT,
            })),
        }
    });
    Observation { peers: peers.collect(), ..Observation::default() }
}

fn ours() -> ClusterId {
    ClusterId::new("ours").unwrap()
}

fn ground(observation: &Observation) -> Result<Ground, Refused> {
    Ground::survey(&Membership::of(observation, &ours()))
}

/// How many slots each owns after the moves, which must be possible.
fn after(shares: &[Share], moves: &[Move]) -> Vec<usize> {
    let mut owned: BTreeMap<NodeId, SlotSet> = shares.iter().map(|share| (share.id, share.slots.clone())).collect();
    for one in moves {
        let from = owned[&one.from].clone();
        assert_eq!(from.and(&one.slots), one.slots, "only what one owns can be given");
        owned.insert(one.from, from.without(&one.slots));
        owned.get_mut(&one.to).unwrap().add(&one.slots);
    }
    shares.iter().map(|share| owned[&share.id].len()).collect()
}

fn shares(parts: &[(SlotSet, u32)]) -> Vec<Share> {
    let share = |(node, (slots, weight)): (usize, &(SlotSet, u32))| Share {
        id: id(node),
        slots: slots.clone(),
        weight: *weight,
    };
    parts.iter().enumerate().map(share).collect()
}

#[test]
fn slots_are_spread_evenly_or_by_weight_with_as_few_moves_as_possible() {
    let three = || vec![range(0, 5460), range(5461, 10_922), range(10_923, 16_383)];
    let none = SlotSet::EMPTY;
    // What they own, what they weigh; what they own afterwards, how many slots move.
    type Case = (&'static str, Vec<SlotSet>, Vec<u32>, Vec<usize>, usize);
    let cases: [Case; 6] = [
        ("even already", three(), vec![1; 3], vec![5461, 5462, 5461], 0),
        ("a fourth joins", [three(), vec![none.clone()]].concat(), vec![1; 4], vec![4096; 4], 4096),
        ("one is emptied", three(), vec![1, 1, 0], vec![8192, 8192, 0], 5461),
        ("one weighs twice", three(), vec![2, 1, 1], vec![8192, 4096, 4096], 2731),
        ("all on one", vec![SlotSet::ALL, none.clone(), none], vec![1; 3], vec![5462, 5461, 5461], 10_922),
        ("two join", [three(), vec![SlotSet::EMPTY; 2]].concat(), vec![1; 5], vec![3277, 3277, 3277, 3277, 3276], 6553),
    ];
    for (name, slots, weights, wanted, moved) in cases {
        let shares = shares(&slots.into_iter().zip(weights).collect::<Vec<_>>());
        let moves = spread(&shares).unwrap();
        assert_eq!(after(&shares, &moves), wanted, "{name}");
        assert_eq!(moves.iter().map(|one| one.slots.len()).sum::<usize>(), moved, "{name}");
        assert_eq!(spread(&shares), Some(moves), "{name}: the same again");
    }
    assert_eq!(spread(&shares(&[(SlotSet::ALL, 0)])), None);
}

#[test]
fn what_is_given_up_goes_to_those_with_least_and_nothing_else_moves() {
    let shares = shares(&[(range(0, 9_999), 1), (range(10_000, 10_999), 1), (range(11_000, 16_383), 0)]);
    let moves = fill(&shares).unwrap();
    assert_eq!(after(&shares, &moves), [10_000, 6_384, 0]);
    assert!(moves.iter().all(|one| one.from == id(2)));
    assert_eq!(fill(&[Share { id: id(0), slots: SlotSet::ALL, weight: 0 }]), None);
}

#[test]
fn every_half_open_state_has_its_remedy() {
    let (a, b, c) = (id(0), id(1), id(2));
    let to = |node: NodeId| format!("[5->-{node}]");
    let from = |node: NodeId| format!("[5-<-{node}]");
    let finish = |to| Some(Mend::Finish { slot: slot(5), from: a, to });
    let close = |on| Some(Mend::Close { slot: slot(5), on });
    // What the owner says, what the one that is to get it says, what a third says, how many keys the receiver has.
    let cases = [
        ("killed among the keys", to(b), from(a), String::new(), 3, finish(b)),
        ("nothing sent yet", to(b), from(a), String::new(), 0, finish(b)),
        ("the target forgot", to(b), String::new(), String::new(), 0, finish(b)),
        ("only importing", String::new(), from(a), String::new(), 0, close(b)),
        ("the source forgot", String::new(), from(a), String::new(), 3, finish(b)),
        ("only the target was told", from(b), String::new(), String::new(), 0, close(a)),
        ("a mark of a former owner", String::new(), String::new(), to(b), 0, close(c)),
        ("the owner sends to itself", to(a), String::new(), String::new(), 0, close(a)),
        ("nothing is open", String::new(), String::new(), String::new(), 0, None),
    ];
    for (name, at_a, at_b, at_c, keys, wanted) in cases {
        let nodes =
            [with(primary("0-5460"), &at_a), with(primary("5461-10922"), &at_b), with(primary("10923-16383"), &at_c)];
        let observation = observe(&nodes);
        let membership = Membership::of(&observation, &ours());
        let ground = Ground::survey(&membership).unwrap();
        let counts: Counts = doubts(&ground).into_iter().map(|doubt| (doubt, keys)).collect();
        assert_eq!(mend(&ground, &membership, &counts), Ok(wanted.into_iter().collect()), "{name}");
    }
}

#[test]
fn a_slot_that_was_sent_to_a_dead_primary_goes_to_who_has_taken_over() {
    let nodes = [
        with(primary("0-5460"), &format!("[5->-{}]", id(3))),
        primary("5461-10922"),
        primary("10923-16383"),
        replica(2),
    ];
    let observation = observe(&nodes);
    let membership = Membership::of(&observation, &ours());
    let ground = Ground::survey(&membership).unwrap();
    let wanted = Mend::Finish { slot: slot(5), from: id(0), to: id(2) };
    assert_eq!(mend(&ground, &membership, &Counts::new()), Ok(BTreeSet::from([wanted])));
}

#[test]
fn a_slot_half_of_which_is_with_a_node_that_is_gone_is_refused() {
    let nodes = [with(primary("0-8191"), &format!("[5->-{}]", id(7))), primary("8192-16383")];
    let observation = observe(&nodes);
    let membership = Membership::of(&observation, &ours());
    let refused = mend(&Ground::survey(&membership).unwrap(), &membership, &Counts::new()).unwrap_err();
    assert_eq!(refused.to_string(), "the slot 5 of valkey-0 is half moved to the node 00000000, which is not here");
    assert!(refused.remedy().contains("CLUSTER SETSLOT 5 STABLE"), "{}", refused.remedy());
}

#[test]
fn what_is_half_way_to_a_node_that_cannot_take_it_is_refused() {
    let refused = |nodes: &[Node]| {
        let observation = observe(nodes);
        let membership = Membership::of(&observation, &ours());
        mend(&Ground::survey(&membership).unwrap(), &membership, &Counts::new()).unwrap_err()
    };
    let (sent, received) = (format!("[5->-{}]", id(1)), format!("[5-<-{}]", id(0)));
    let mut nodes = [with(primary("0-8191"), &sent), with(primary("8192-16383"), &received), replica(1)];
    nodes[2].unlinked = true;
    assert!(matches!(refused(&nodes), Refused::Uncopied { .. }));
    nodes[0].version = Version::new(9, 1, 0);
    let older = refused(&nodes);
    assert!(matches!(older, Refused::OlderTarget { .. }), "{older}");
    assert_eq!(older.patience(Duration::from_secs(15)), Duration::ZERO);
}

#[test]
fn servers_have_the_time_that_they_take_to_replace_a_dead_primary() {
    let timeout = Duration::from_secs(15);
    let labels = |node: usize| Label { pod: None, address: observe(&[primary("")]).peers[node].address };
    let (node, by) = (labels(0), labels(0));
    for refused in
        [Refused::Uncovered(Box::new(SlotSet::EMPTY)), Refused::NotOk(labels(0)), Refused::Suspected { node, by }]
    {
        assert_eq!(refused.patience(timeout), Duration::from_secs(40), "{refused}");
    }
}

#[test]
fn keys_of_a_slot_on_a_third_node_are_refused_and_an_empty_mark_there_is_closed() {
    let nodes = [
        with(primary("0-5460"), &format!("[5->-{}]", id(1))),
        with(primary("5461-10922"), &format!("[5-<-{}]", id(0))),
        with(primary("10923-16383"), &format!("[5-<-{}]", id(0))),
    ];
    let observation = observe(&nodes);
    let membership = Membership::of(&observation, &ours());
    let ground = Ground::survey(&membership).unwrap();
    let finish = Mend::Finish { slot: slot(5), from: id(0), to: id(1) };
    let close = Mend::Close { slot: slot(5), on: id(2) };
    assert_eq!(mend(&ground, &membership, &Counts::new()), Ok(BTreeSet::from([finish, close])));
    let counts = Counts::from([((id(2), slot(5)), 4)]);
    assert!(matches!(mend(&ground, &membership, &counts), Err(Refused::Stray { keys: 4, .. })));
}

#[test]
fn a_slot_whose_source_was_told_first_becomes_the_targets() {
    let nodes = [primary("0-4 6-8191"), with(primary("8192-16383"), &format!("[5-<-{}]", id(0)))];
    let observation = observe(&nodes);
    let membership = Membership::of(&observation, &ours());
    let ground = Ground::survey(&membership).unwrap();
    let wanted = Mend::Own { slot: slot(5), by: id(1) };
    assert_eq!(mend(&ground, &membership, &Counts::new()), Ok(BTreeSet::from([wanted])));
}

#[test]
fn slots_are_moved_only_where_the_cluster_is_beyond_doubt() {
    assert!(matches!(ground(&Observation::default()), Err(Refused::Nobody(_))));
    let uncovered = observe(&[primary("0-8191"), primary("8193-16383")]);
    let Err(Refused::Uncovered(slots)) = ground(&uncovered) else { panic!("not refused") };
    assert_eq!(slots.to_string(), "8192");
    let contested = observe(&[primary("0-8192"), primary("8192-16383")]);
    assert!(matches!(ground(&contested), Err(Refused::Contested(_, _, slots)) if slots.to_string() == "8192"));
    let mut not_ok = observe(&[primary("0-8191"), primary("8192-16383")]);
    not_ok.peers[1].answer.as_deref_mut().unwrap().cluster.ok = false;
    assert!(matches!(ground(&not_ok), Err(Refused::NotOk(_))));
    let mut silent = observe(&[primary("0-8191"), primary("8192-16383")]);
    silent.peers[1].answer = Err(Silence::Refused);
    assert!(matches!(ground(&silent), Err(Refused::Uncovered(_))));
}

#[test]
fn weights_are_for_primaries_and_newer_data_goes_to_no_older_server() {
    let mut nodes = vec![primary("0-8191"), primary("8192-16383"), replica(0), primary("")];
    let moves = |nodes: &[Node], weights: &[(&str, u32)]| {
        let observation = observe(nodes);
        let membership = Membership::of(&observation, &ours());
        let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        Goal::Even(weights).moves(&Ground::survey(&membership).unwrap(), &membership)
    };
    assert_eq!(moves(&nodes, &[("valkey-9", 1)]), Err(Refused::Unknown("valkey-9".to_owned())));
    assert_eq!(moves(&nodes, &[("valkey-2", 2)]), Err(Refused::NotPrimary("valkey-2".to_owned())));
    assert_eq!(moves(&nodes, &[("valkey-2", 0), ("valkey-3", 0)]), Ok(Vec::new()));
    assert_eq!(moves(&nodes, &[("valkey-0", 0), ("valkey-1", 0), ("valkey-3", 0)]), Err(Refused::Everybody));
    nodes[0].version = Version::new(9, 1, 0);
    assert!(matches!(moves(&nodes, &[]), Err(Refused::OlderTarget { .. })));
}

#[test]
fn slots_go_to_no_primary_whose_replica_has_no_copy() {
    let mut nodes = vec![primary("0-16383"), primary(""), replica(0), replica(1)];
    let moves = |nodes: &[Node]| {
        let observation = observe(nodes);
        let membership = Membership::of(&observation, &ours());
        Goal::Even(BTreeMap::new()).moves(&Ground::survey(&membership).unwrap(), &membership)
    };
    assert!(moves(&nodes).is_ok());
    nodes[2].unlinked = true;
    assert!(moves(&nodes).is_ok(), "who gives slots away needs none");
    nodes[3].unlinked = true;
    assert!(matches!(moves(&nodes), Err(Refused::Uncopied { .. })));
}

#[test]
fn an_evacuation_keeps_the_shards_with_the_most_members_that_stay() {
    let nodes = [primary("0-5460"), primary("5461-10922"), primary("10923-16383"), replica(0), replica(1), replica(2)];
    let observation = observe(&nodes);
    let membership = Membership::of(&observation, &ours());
    let ground = Ground::survey(&membership).unwrap();
    let evacuate = |pods: &[usize], shards: Option<u16>| {
        let pods: Vec<String> = pods.iter().map(|pod| format!("valkey-{pod}")).collect();
        Evacuation::of(&ground, &membership, &pods, shards.and_then(NonZeroU16::new))
    };
    // Who leaves, how many shards remain; who is kept, who hands over, who leaves with its whole shard, how many slots move.
    type Case = (&'static [usize], Option<u16>, &'static [usize], &'static [usize], &'static [usize], usize);
    let cases: [Case; 6] = [
        (&[3], None, &[0, 1, 2], &[], &[], 0),
        (&[0], None, &[0, 1, 2], &[0], &[], 0),
        (&[2, 5], None, &[0, 1], &[], &[2, 5], 5461),
        (&[2, 5, 1], None, &[0, 1], &[1], &[2, 5], 5461),
        (&[3], Some(2), &[1, 2], &[], &[], 5461),
        (&[0, 4], Some(2), &[1, 2], &[], &[], 5461),
    ];
    for (leaving, shards, kept, handovers, dissolving, moved) in cases {
        let plan = evacuate(leaving, shards).unwrap();
        let ids = |nodes: &[usize]| nodes.iter().map(|node| id(*node)).collect::<Vec<_>>();
        assert_eq!((plan.kept, plan.handovers), (ids(kept), ids(handovers)), "{leaving:?}");
        let called = |node: &usize| format!("valkey-{node}");
        let names: Vec<_> = plan.dissolving.iter().filter_map(|label| Some(label.pod.as_ref()?.to_string())).collect();
        assert_eq!(names, dissolving.iter().map(called).collect::<Vec<_>>(), "{leaving:?}");
        assert_eq!(plan.moves.iter().map(|one| one.slots.len()).sum::<usize>(), moved, "{leaving:?}");
    }
    assert_eq!(evacuate(&[0, 1, 2, 3, 4, 5], None), Err(Refused::Everybody));
    assert_eq!(evacuate(&[0, 3], Some(3)), Err(Refused::TooFewShards { asked: 3, left: 2 }));
    assert_eq!(evacuate(&[9], None), Err(Refused::Unknown("valkey-9".to_owned())));
}

#[test]
fn a_batch_fits_the_window_and_a_key_that_does_not_goes_alone() {
    let key = |bytes| Key { name: Vec::new(), bytes };
    let sizes = |keys: Vec<Key>| batches(keys, Window::START).iter().map(|batch| batch.keys.len()).collect::<Vec<_>>();
    assert_eq!(sizes(Vec::new()), Vec::<usize>::new());
    assert_eq!(sizes(vec![key(100); 600]), [600]);
    assert_eq!(sizes(vec![key(100), key(BIG), key(100)]), [1, 1, 1]);
    assert!(batches(vec![key(BIG)], Window::START)[0].is_big());
}

#[test]
fn the_window_follows_the_time_that_batches_take() {
    let long = Duration::from_millis(100);
    let shrunk = Window::START.after(1, long);
    assert!(shrunk.limit() < Window::START.limit());
    assert!((0..100).fold(Window::START, |window, _| window.after(1, long)).limit() > 0);
    let short = Duration::from_millis(1);
    assert!(shrunk.after(shrunk.limit(), short).limit() > shrunk.limit());
    assert_eq!(shrunk.after(1, short), shrunk, "a small batch says nothing of a full one");
    assert_eq!(shrunk.after(BIG, long), shrunk, "a large key says nothing of many");
}
