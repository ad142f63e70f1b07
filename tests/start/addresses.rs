//! A nodes.conf from before all pods had another address.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use valkeeper::topology::PodName;
use valkeeper::topology::parse::nodes_conf;
use valkeeper::topology::start::{are_outdated, with_addresses_of_pods};

use super::id;

const VARS: &str = "vars currentEpoch 6 lastVoteEpoch 0\n";

fn ip(last: u8) -> SocketAddr {
    (IpAddr::from([10, 0, 0, last]), 6379).into()
}

/// A line about the node of that pod, as 8.1 writes it.
fn line(pod: u8, at: &str, flags: &str) -> String {
    format!(
        "{} {at},valkey-{pod}.valkey-headless.prod.svc.cluster.local,tls-port=0,shard-id=aaaa {flags} - 0 0 5 connected \
         {pod}00-{pod}99 [93->-{}]\n",
        id(pod),
        id(9)
    )
}

fn at(last: u8) -> String {
    format!("10.0.0.{last}:6379@16379")
}

fn pods(known: &[(u8, u8)]) -> BTreeMap<PodName, SocketAddr> {
    known.iter().map(|(pod, last)| (PodName::new(&format!("valkey-{pod}")).unwrap(), ip(*last))).collect()
}

#[test]
fn another_node_at_our_own_address_tells_that_it_is_outdated() {
    let entries =
        |own: u8| nodes_conf(&[line(1, &at(own), "myself,master"), line(2, &at(2), "master")].concat()).unwrap();
    assert!(are_outdated(&entries(1), ip(2)));
    // The own line is from before in any case.
    assert!(!are_outdated(&entries(3), ip(3)));
    assert!(!are_outdated(&entries(1), ip(7)));
    // Where servers share an address, the port tells them apart.
    assert!(!are_outdated(&entries(1), SocketAddr::new(ip(2).ip(), 6380)));
}

#[test]
fn each_node_gets_the_address_of_its_pod_and_nothing_else_changes() {
    let before =
        [line(1, &at(1), "myself,master"), line(2, &at(2), "master"), line(3, &at(3), "slave"), VARS.to_owned()];
    let after =
        [line(1, &at(1), "myself,master"), line(2, &at(3), "master"), line(3, &at(1), "slave"), VARS.to_owned()];
    let mended = with_addresses_of_pods(&before.concat(), ip(2), &pods(&[(1, 2), (2, 3), (3, 1)])).unwrap();
    assert_eq!((mended.text, mended.nodes), (after.concat(), vec![id(2), id(3)]));
    assert_eq!(with_addresses_of_pods(&after.concat(), ip(2), &pods(&[(1, 2), (2, 3), (3, 1)])), None);
}

#[test]
fn where_another_pod_is_nobody_is_looked_for() {
    let before = [line(1, &at(1), "myself,master"), line(2, &at(2), "master"), line(3, &at(3), "slave,fail")];
    let gone = |pod, flags| line(pod, ":0@0", flags);
    // DNS says nothing yet: nobody else is at our own address.
    let mended = with_addresses_of_pods(&before.concat(), ip(2), &pods(&[])).unwrap();
    let after = [line(1, &at(1), "myself,master"), gone(2, "master,noaddr"), line(3, &at(3), "slave,fail")];
    assert_eq!(mended.text, after.concat());
    // Of the others it only knows the one that is where node 3 was.
    let mended = with_addresses_of_pods(&before.concat(), ip(2), &pods(&[(1, 2), (4, 3)])).unwrap();
    assert_eq!(mended.nodes, [id(2), id(3)]);
    let nodes = nodes_conf(&mended.text).unwrap();
    assert!(nodes[1..].iter().all(|node| node.ip.is_none() && node.flags.without_address));
    assert!(nodes[2].flags.failed, "what else is known of it stays");
    // Stale DNS has pod 2 where this one is.
    let mended = with_addresses_of_pods(&before.concat(), ip(2), &pods(&[(2, 2), (3, 3)])).unwrap();
    assert_eq!(mended.text, after.concat());
}

#[test]
fn addresses_of_six_and_nodes_without_a_name_are_read_too() {
    let line = |at: &str, flags: &str| format!("{} {at} {flags} - 0 0 5 connected\n", id(2));
    let own: SocketAddr = "[fd00::2]:6379".parse().unwrap();
    let mended = with_addresses_of_pods(&line("fd00::2:6379@16379", "master"), own, &pods(&[])).unwrap();
    assert_eq!(mended.text, line(":0@0", "master,noaddr"));
    let named = "fd00::2:6379@16379,valkey-2.valkey-headless";
    let there: BTreeMap<_, _> = [(PodName::new("valkey-2").unwrap(), "[fd00::3]:6379".parse().unwrap())].into();
    let mended = with_addresses_of_pods(&line(named, "master"), own, &there).unwrap();
    assert_eq!(mended.text, line("fd00::3:6379@16379,valkey-2.valkey-headless", "master"));
}
