//! The parser on what real servers of 8.0, 8.1 and 9.1 said (`make fixtures` captures it anew), and on anything else.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use valkeeper::topology::node::Moving;
use valkeeper::topology::observation::View;
use valkeeper::topology::parse::{ClusterInfo, Info, nodes, nodes_conf};
use valkeeper::topology::start::NodesConf;
use valkeeper::topology::{NodeEntry, Role, SLOT_COUNT, SlotSet, Version};

const VERSIONS: [&str; 3] = ["8.0", "8.1", "9.1"];
const A: &str = "9a5e00112114a2d9855d2f4679c566f51a977cd0";
const B: &str = "ee8e405a4d6ac10adba22bd1df1184679fe00965";

fn fixture(version: &str, name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn all_slots(entries: &[NodeEntry]) -> SlotSet {
    entries.iter().flat_map(|entry| &entry.slots).collect()
}

#[test]
fn a_fresh_node_knows_only_itself() {
    for version in VERSIONS {
        let entries = nodes(&fixture(version, "fresh.nodes")).unwrap();
        let view = View::new(entries).unwrap();
        assert_eq!(view.others().count(), 0, "{version}");
        let info = ClusterInfo::parse(&fixture(version, "fresh.cluster-info")).unwrap();
        assert_eq!((info.ok, info.slots_assigned), (false, 0), "{version}");
    }
}

#[test]
fn a_formed_cluster_has_every_slot_and_every_role() {
    for version in VERSIONS {
        let entries = nodes(&fixture(version, "formed.nodes")).unwrap();
        assert_eq!(entries.len(), 6, "{version}");
        assert_eq!(all_slots(&entries), SlotSet::ALL, "{version}");
        let primaries: Vec<_> = entries.iter().filter(|entry| entry.role.is_primary()).map(|entry| entry.id).collect();
        assert_eq!(primaries.len(), 3, "{version}");
        for entry in &entries {
            assert!(entry.connected && entry.endpoint().is_some() && !entry.is_lost(), "{version}: {entry:?}");
            if let Role::Replica(primary) = entry.role {
                assert!(primaries.contains(&primary.unwrap()), "{version}: {entry:?}");
            }
        }
        let info = ClusterInfo::parse(&fixture(version, "formed.cluster-info")).unwrap();
        assert_eq!((info.ok, info.slots_assigned), (true, SLOT_COUNT), "{version}");
        assert_eq!(Info::parse(&fixture(version, "formed.info")).keys(), 1, "{version}");
    }
}

#[test]
fn trouble_is_read_as_the_server_means_it() {
    for version in VERSIONS {
        let entries = nodes(&fixture(version, "troubled.nodes")).unwrap();
        let view = View::new(entries.clone()).unwrap();
        let one = |what: &str, is: &dyn Fn(&NodeEntry) -> bool| {
            let found: Vec<_> = entries.iter().filter(|entry| is(entry)).collect();
            assert_eq!(found.len(), 1, "{version}: {what} in {entries:?}");
            found.into_iter().next().unwrap().clone()
        };
        let named = one("a host name", &|entry| entry.hostname.as_deref() == Some("valkey-1.example.org"));
        let v6 = one("an IPv6 address", &|entry| entry.ip == Some("fd00:10:244::3".parse().unwrap()));
        assert_eq!((v6.port, v6.bus_port), (6379, 16379), "{version}");
        let failed = one("a failed node", &|entry| entry.flags.failed);
        assert!(failed.is_lost() && failed.role == Role::Replica(Some(named.id)), "{version}");
        one("a node that will not take over", &|entry| entry.flags.no_failover);
        let stranger = one("a handshake", &|entry| entry.flags.handshake);
        assert!(view.get(stranger.id).is_none(), "{version}: a handshake has no identity yet");
        assert!(view.is_meeting((stranger.ip.unwrap(), stranger.port).into()), "{version}");
        let moving: Vec<_> =
            view.get(view.entries().iter().find(|entry| entry.flags.myself).unwrap().id).unwrap().moving.clone();
        assert!(
            matches!(moving.as_slice(), [Moving::To(out, to), Moving::From(into, from)]
            if out.number() == 0 && into.number() == 16000 && *to == named.id && *from == named.id),
            "{version}: {moving:?}"
        );
        assert_eq!(all_slots(&entries), SlotSet::ALL, "{version}: slots on their way still have their owner");
    }
}

#[test]
fn nodes_conf_reads_like_cluster_nodes() {
    for version in VERSIONS {
        for name in ["fresh", "formed"] {
            let from_file = nodes_conf(&fixture(version, &format!("{name}.nodes.conf"))).unwrap();
            let said = nodes(&fixture(version, &format!("{name}.nodes"))).unwrap();
            let ids =
                |entries: &[NodeEntry]| entries.iter().map(|entry| entry.id).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(ids(&from_file), ids(&said), "{version} {name}");
            assert_eq!(all_slots(&from_file), all_slots(&said), "{version} {name}");
        }
        let troubled = nodes_conf(&fixture(version, "troubled.nodes.conf")).unwrap();
        assert!(troubled.iter().any(|entry| entry.hostname.as_deref() == Some("valkey-1.example.org")), "{version}");
    }
}

#[test]
fn a_node_that_speaks_tls_is_found_at_its_port_for_that() {
    const ID: &str = "9a5e00112114a2d9855d2f4679c566f51a977cd0";
    for (port, tls_port, plain, secure) in [(0, 6379, 0, 6379), (6379, 6380, 6379, 6380), (6379, 0, 6379, 6379)] {
        let line =
            format!("{ID} 10.0.0.1:{port}@16379,,tls-port={tls_port},shard-id=2136 myself,master - 0 0 3 connected");
        let found = NodesConf::Nodes(nodes_conf(&line).unwrap());
        let port = |found: &NodesConf| match found {
            NodesConf::Nodes(nodes) => nodes[0].port,
            other => panic!("{other:?}"),
        };
        assert_eq!((port(&found), port(&found.clone().over_tls())), (plain, secure));
    }
}

#[test]
fn replication_is_read_on_both_sides() {
    for version in VERSIONS {
        let primary = Info::parse(&fixture(version, "formed.info")).replication();
        assert!(primary.link.is_none() && primary.offset > 0, "{version}: {primary:?}");
        let replica = Info::parse(&fixture(version, "replica.info")).replication();
        assert!(replica.link.is_some(), "{version}: {replica:?}");
    }
}

#[test]
fn the_version_is_valkeys_own() {
    for (version, release) in VERSIONS.iter().zip([(8, 0), (8, 1), (9, 1)]) {
        let found = Info::parse(&fixture(version, "fresh.info")).version().unwrap();
        assert_eq!((found.major, found.minor), release, "{version}");
        assert!(found >= Version::OLDEST);
    }
}

#[test]
fn lines_of_servers_to_come_are_read_and_unknown_flags_passed_over() {
    let line = format!(
        "{A} [fd00::7]:6379@16379,host.example,tls-port=6380,shard-id=abc,new=thing myself,replica,noaddr,fail?,learner,zap {B} 0 0 9 connected"
    );
    let entry = nodes(&line).unwrap().remove(0);
    assert_eq!(entry.role, Role::Replica(valkeeper::topology::NodeId::parse(B)));
    assert_eq!(entry.ip, Some("fd00::7".parse().unwrap()));
    assert!(entry.flags.suspected && entry.flags.without_address && entry.flags.myself);
    let nowhere = nodes(&format!("{A} :0@0 master,noaddr - 0 0 1 disconnected 5")).unwrap().remove(0);
    assert_eq!(nowhere.endpoint(), None);
}

#[test]
fn a_line_whose_meaning_is_not_certain_is_an_error_that_shows_it() {
    for line in [
        "not an id".to_owned(),
        format!("{A} 127.0.0.1 master - 0 0 1 connected"),
        format!("{A} 127.0.0.1:6379@16379 master - 0 0 one connected"),
        format!("{A} 127.0.0.1:6379@16379 master - 0 0 1 connected 0-16384"),
        format!("{A} 127.0.0.1:6379@16379 master - 0 0 1 connected 9-5"),
        format!("{A} 127.0.0.1:6379@16379 master - 0 0 1 connected [5->-nobody]"),
        format!("{A} 127.0.0.1:6379@16379 master - 0 0"),
    ] {
        let error = nodes(&line).unwrap_err().to_string();
        assert!(error.contains("CLUSTER NODES") && error.contains(&line[..8]), "{error}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,400}") {
        let _ = (nodes(&text), nodes_conf(&text), ClusterInfo::parse(&text));
        let info = Info::parse(&text);
        let _ = (info.version(), info.keys(), info.replication(), info.used_memory());
    }

    #[test]
    fn no_mangled_line_makes_the_parser_panic(cut in 0usize..200, insert in "[ -~]{0,12}") {
        for version in VERSIONS {
            for line in fixture(version, "troubled.nodes").lines() {
                let mut bytes = line.as_bytes().to_vec();
                let at = cut.min(bytes.len());
                bytes.splice(at..at, insert.bytes());
                let _ = nodes(&String::from_utf8_lossy(&bytes));
                bytes.truncate(at);
                let _ = nodes(&String::from_utf8_lossy(&bytes));
            }
        }
    }
}

#[test]
fn a_view_names_its_observer_and_nobody_twice() {
    let entries = nodes(&fixture("9.1", "formed.nodes")).unwrap();
    let twice = entries.iter().chain(entries.last()).cloned().collect();
    assert_eq!(View::new(twice).map(|view| view.entries().len()), None);
    let of_others = entries.into_iter().filter(|entry| !entry.flags.myself).collect();
    assert_eq!(View::new(of_others).map(|view| view.entries().len()), None);
}
