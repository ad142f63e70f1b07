//! Observations that no cluster gives: every field on its own, from a few values each, so that they meet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use valkeeper::topology::node::Flags;
use valkeeper::topology::parse::{ClusterInfo, ReplicaLink, Replication};
use valkeeper::topology::{
    ClusterId, DesiredTopology, NodeEntry, NodeId, NodeReport, Observation, Peer, PodName, Policy, Role, Settings,
    Shape, Silence, Slot, SlotRange, Version, View,
};

/// What `plan` is given.
pub(crate) fn worlds() -> impl Strategy<Value = (Observation, DesiredTopology, Policy)> {
    (vec(peers(), 0..7), vec(pods(), 0..3), 1u16..4, 0u16..3, any::<bool>()).prop_filter_map(
        "a cluster id",
        |(peers, unresolved, shards, replicas, hurry)| {
            let shape = Shape { shards: NonZeroU16::new(shards)?, replicas };
            let desired = DesiredTopology { cluster: ClusterId::new("ours")?, shape };
            Some((
                Observation { peers, unresolved, ..Observation::default() },
                desired,
                Policy { hurry, give_up: None },
            ))
        },
    )
}

fn peers() -> impl Strategy<Value = Peer> {
    let silence = Just(Silence::Unreachable("refused".to_owned()));
    let answer = prop_oneof![5 => reports().prop_map(|report| Ok(Box::new(report))), 1 => silence.prop_map(Err)];
    (option::of(pods()), ips(), answer).prop_map(|(pod, ip, answer)| Peer {
        pod,
        address: SocketAddr::new(ip, 6379),
        answer,
    })
}

fn reports() -> impl Strategy<Value = NodeReport> {
    let names = prop_oneof![
        Just(""),
        Just("ours/"),
        Just("ours/valkey-0"),
        Just("ours/valkey-1/15000-0-10-5"),
        Just("theirs/valkey-0"),
        Just("somebody"),
    ];
    let links = option::of(any::<bool>());
    let counts = (0u16..3, 0u64..3, 0u64..2);
    (names, vec(entries(), 1..6), 0usize..6, counts, links, any::<(bool, bool)>()).prop_filter_map(
        "somebody is asked",
        |(name, mut entries, myself, (assigned, epoch, keys), link, (ok, is_old))| {
            let place = myself % entries.len();
            entries.get_mut(place)?.flags.myself = true;
            let version = if is_old { None } else { Some(Version::new(9, 1, 2)) };
            Some(NodeReport {
                name: name.to_owned(),
                version,
                view: View::new(entries)?,
                cluster: ClusterInfo { ok, slots_assigned: assigned * 8_192, current_epoch: epoch },
                keys,
                used_memory: 0,
                save_failed: false,
                replication: Replication {
                    link: link.map(|up| ReplicaLink { up, syncing: !up, last_heard: None, down_for: None }),
                    offset: 0,
                },
                settings: Settings {
                    node_timeout: Duration::from_secs(15),
                    min_replicas_to_write: 0,
                    replicas_max_lag: Duration::from_secs(10),
                    sync_delay: Duration::from_secs(5),
                },
            })
        },
    )
}

fn entries() -> impl Strategy<Value = NodeEntry> {
    let roles = prop_oneof![3 => Just(None), 1 => Just(Some(None)), 2 => ids().prop_map(|id| Some(Some(id)))];
    let flags = any::<(bool, bool, bool, bool, bool)>();
    (ids(), option::of(ips()), roles, flags, vec(ranges(), 0..3), 0u64..4).prop_map(
        |(id, ip, role, (suspected, failed, handshake, without_address, connected), slots, config_epoch)| NodeEntry {
            id,
            ip,
            port: 6379,
            tls_port: None,
            bus_port: 16379,
            hostname: None,
            role: role.map_or(Role::Primary, Role::Replica),
            flags: Flags { suspected, failed, handshake, without_address, ..Flags::default() },
            config_epoch,
            connected,
            slots,
            moving: Vec::new(),
        },
    )
}

fn ids() -> impl Strategy<Value = NodeId> {
    (0u8..7).prop_filter_map("forty digits", |number| NodeId::parse(&format!("{number:040x}")))
}

fn ips() -> impl Strategy<Value = IpAddr> {
    (1u8..8).prop_map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)))
}

fn pods() -> impl Strategy<Value = PodName> {
    prop_oneof![Just("valkey-0"), Just("valkey-1"), Just("valkey-2"), Just("valkey"), Just("valkey-70000")]
        .prop_filter_map("a pod name", PodName::new)
}

fn ranges() -> impl Strategy<Value = SlotRange> {
    (0u16..8, 0u16..8).prop_filter_map("a range", |(first, length)| {
        let first = first * 2_048;
        SlotRange::new(Slot::new(first)?, Slot::new((first + (length + 1) * 2_047).min(16_383))?)
    })
}
