//! Finding peers through a real DNS server that answers late, in part, wrongly or not at all.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use testbed::{Answer, DnsServer, Fault, RecordType, Subnet, Transport};
use valkeeper::config::{Credentials, Reach, Service};
use valkeeper::discovery::{Discovery, Found};
use valkeeper::topology::ClusterId;

const SERVICE: &str = "valkey.test.";

struct World {
    runtime: tokio::runtime::Runtime,
    server: DnsServer,
    _subnet: Subnet,
}

impl World {
    fn new() -> Self {
        let subnet = Subnet::lease();
        let server = DnsServer::start(IpAddr::V4(subnet.host(250)), SERVICE, 6379).unwrap();
        server.handle().auto(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, server, _subnet: subnet }
    }

    fn set(&self, name: &str, answers: &[Answer]) {
        self.server.handle().set(name, answers.to_vec());
    }

    fn discovery(&self, names: &[&str], statefulset: Option<&str>, members: usize) -> Discovery {
        let reach = Reach {
            service: Service::Names(names.iter().map(|name| (*name).to_owned()).collect()),
            statefulset: statefulset.map(str::to_owned),
            port: 6379,
            dns_servers: vec![self.server.handle().addr()],
            cluster: ClusterId::new("valkey.test"),
            credentials: Credentials::default(),
        };
        let _guard = self.runtime.enter();
        Discovery::new(&reach, members).unwrap()
    }

    fn round(&self, discovery: &Discovery) -> Found {
        self.runtime.block_on(discovery.round())
    }

    fn asked(&self, name: &str, kind: RecordType, transport: Transport) -> usize {
        self.server.handle().queries(name, kind, transport)
    }
}

fn v4(last: u8) -> Answer {
    Answer::A(Ipv4Addr::new(127, 1, 2, last))
}

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 1, 2, last], port))
}

fn pods(found: &Found) -> Vec<(Option<&str>, SocketAddr)> {
    found
        .candidates
        .iter()
        .map(|candidate| (candidate.pod.as_ref().map(|pod| pod.as_str()), candidate.address))
        .collect()
}

#[test]
fn srv_records_give_pod_names_and_ports() {
    let world = World::new();
    world.set(
        "_valkey._tcp.valkey.test.",
        &[Answer::Srv("valkey-0.valkey.test.".to_owned(), 7000), Answer::Srv("valkey-1.valkey.test.".to_owned(), 7001)],
    );
    world.set("valkey-0.valkey.test.", &[v4(1)]);
    world.set("valkey-1.valkey.test.", &[v4(2)]);
    let found = world.round(&world.discovery(&["valkey.test"], None, 2));
    assert_eq!(pods(&found), [(Some("valkey-0"), at(1, 7000)), (Some("valkey-1"), at(2, 7001))]);
    let named = world.round(&world.discovery(&["_valkey._tcp.valkey.test"], None, 2));
    assert_eq!(pods(&named), pods(&found), "the port's name may be part of the service");
}

#[test]
fn the_pods_of_a_statefulset_are_asked_for_one_by_one() {
    let world = World::new();
    world.set("valkey-0.valkey.test.", &[v4(1)]);
    world.set("valkey-2.valkey.test.", &[v4(3)]);
    let found = world.round(&world.discovery(&["valkey.test"], Some("valkey"), 3));
    assert_eq!(pods(&found), [(Some("valkey-0"), at(1, 6379)), (Some("valkey-2"), at(3, 6379))]);
    assert_eq!(found.unresolved.iter().map(|pod| pod.as_str()).collect::<Vec<_>>(), ["valkey-1"]);
    assert!(found.trouble.is_empty(), "a name without records is an answer: {:?}", found.trouble);
}

#[test]
fn addresses_of_both_families_count_and_each_once() {
    let world = World::new();
    let v6 = Answer::Aaaa("fd00::1".parse().unwrap());
    world.set(SERVICE, &[v4(1), v4(1), v4(2), v6.clone(), v6]);
    world.set("valkey-0.valkey.test.", &[v4(1)]);
    let found = world.round(&world.discovery(&["valkey.test"], Some("valkey"), 1));
    let v6: SocketAddr = "[fd00::1]:6379".parse().unwrap();
    assert_eq!(pods(&found), [(Some("valkey-0"), at(1, 6379)), (None, at(2, 6379)), (None, v6)]);
}

#[test]
fn nothing_is_cached_so_a_pod_that_moved_is_seen_in_the_next_round() {
    let world = World::new();
    let discovery = world.discovery(&["valkey.test"], Some("valkey"), 1);
    world.set("valkey-0.valkey.test.", &[v4(1)]);
    assert_eq!(pods(&world.round(&discovery)), [(Some("valkey-0"), at(1, 6379))]);
    world.set("valkey-0.valkey.test.", &[v4(9)]);
    assert_eq!(pods(&world.round(&discovery)), [(Some("valkey-0"), at(9, 6379))]);
    world.server.handle().remove("valkey-0.valkey.test.");
    assert_eq!(world.round(&discovery).unresolved.len(), 1, "nor is what is gone remembered");
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let world = World::new();
    world.set(SERVICE, &(1..=40).map(v4).collect::<Vec<_>>());
    world.server.handle().fault(SERVICE, Fault::Truncate);
    let found = world.round(&world.discovery(&["valkey.test"], None, 40));
    assert_eq!(found.candidates.len(), 40, "{found:?}");
    assert!(world.asked(SERVICE, RecordType::A, Transport::Tcp) > 0);
}

#[test]
fn half_an_answer_is_half_the_peers() {
    let world = World::new();
    world.set(SERVICE, &(1..=6).map(v4).collect::<Vec<_>>());
    world.server.handle().fault(SERVICE, Fault::Partial(3));
    assert_eq!(world.round(&world.discovery(&["valkey.test"], None, 6)).candidates.len(), 3);
}

#[test]
fn an_error_of_the_server_is_trouble_and_hides_nobody_else() {
    for fault in [Fault::ServFail, Fault::Refused] {
        let world = World::new();
        for pod in 0..3 {
            world.set(&format!("valkey-{pod}.valkey.test."), &[v4(pod + 1)]);
        }
        world.server.handle().fault("valkey-1.valkey.test.", fault);
        let found = world.round(&world.discovery(&["valkey.test"], Some("valkey"), 3));
        assert_eq!(found.candidates.len(), 2);
        assert_eq!(found.unresolved.len(), 1);
        assert!(found.trouble.iter().any(|trouble| trouble.contains("valkey-1.valkey.test.")), "{:?}", found.trouble);
    }
}

#[test]
fn a_late_answer_still_counts_and_silence_ends() {
    let world = World::new();
    world.set(SERVICE, &[v4(1)]);
    world.server.handle().fault(SERVICE, Fault::Late(Duration::from_millis(700)));
    let discovery = world.discovery(&["valkey.test"], None, 1);
    assert_eq!(world.round(&discovery).candidates.len(), 1);
    world.server.handle().heal_all();
    world.server.handle().fault_all(Fault::Silent);
    let started = Instant::now();
    let found = world.round(&discovery);
    assert!(found.candidates.is_empty() && !found.trouble.is_empty(), "{found:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "a round is bounded: {:?}", started.elapsed());
    world.server.handle().heal_all();
    assert_eq!(world.round(&discovery).candidates.len(), 1, "and the next one is not spoilt by it");
}

#[test]
fn of_several_forms_of_a_name_the_first_with_records_counts() {
    let world = World::new();
    world.set(SERVICE, &[v4(1)]);
    let found = world.round(&world.discovery(&["valkey.test.ns.example", "valkey.test"], None, 1));
    assert_eq!(pods(&found), [(None, at(1, 6379))]);
}
