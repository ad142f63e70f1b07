//! All that valkeeper does, done as its own user.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::redis::cmd;
use testbed::{Ended, Leave, Ready, Rolling, Testbed, Valkey, Writer, fill, restart_pod};
use valkeeper::config::Secret;

use crate::tools::{
    KEEPER, LIMIT, PASSWORD, WATCHER, Witness, builder, scope, users, valkeeper, valkeeper_in, write_users,
};

const SHARDS: usize = 3;
/// So many that hold keys, and so many keys each.
const SLOTS: usize = 60;
const KEYS: u64 = 50;

/// What none of the stories below comes to, or what a server does not live to tell.
const NOT_SEEN: [&str; 13] = [
    // A server that does it is gone.
    "shutdown",
    // Only with `dual-channel-replication-enabled yes`.
    "sync",
    // Only where the data of a shard is given up.
    "cluster|bumpepoch",
    // Only where most primaries have died at once.
    "client|kill",
    // Only where a drain gives up what it has begun.
    "client|unpause",
    "cluster|cancelslotmigrations",
    // No command: without it no key goes over on 9.1.
    "@write",
    // Only where a client has a transaction while its slot is on its way.
    "multi",
    "exec",
    // Only the probes over HTTP.
    "ping",
    // On 9.1 only for slots that are half-way since before an upgrade.
    "memory|usage",
    "migrate",
    "restore-asking",
];

#[test]
fn everything_works_as_the_user_that_acl_prints_and_all_that_it_is_granted_is_used() {
    Valkey::each(Valkey::all(), |valkey| {
        let mut witness = Witness::default();
        assert_keeps(valkey, &mut witness);
        assert_moves(valkey, &mut witness);
        let unused = witness.unused(scope(valkey));
        println!("{}: not seen: {unused:?}", valkey.version);
        assert!(unused.iter().all(|command| NOT_SEEN.contains(command)), "{}: {unused:?}", valkey.version);
    });
}

/// Under `run`, with users from an ACL file: forming, a restart under a client, a crash, a lost disk, a new password.
fn assert_keeps(valkey: &Valkey, witness: &mut Witness) {
    let version = &valkey.version;
    let pods = u8::try_from(SHARDS * 2).unwrap();
    let bed = builder(valkey, pods).supervised(true).config("aclfile", "users.acl").build().unwrap();
    let file = bed.dir().join("password");
    fs::write(&file, PASSWORD).unwrap();
    for pod in bed.pods() {
        write_users(&bed, pod.ordinal());
        pod.set_run_args(&["--password-file", file.to_str().unwrap(), "--password-overlap", "0s"]);
        pod.spawn().unwrap();
    }
    bed.pods().iter().for_each(|pod| pod.wait_ready().unwrap());
    bed.form(SHARDS.try_into().unwrap(), 1).unwrap();
    let [_, follows_as]: [String; 2] =
        cmd("CONFIG").arg("GET").arg("masteruser").query(&mut bed.connection(0).unwrap()).unwrap();
    assert_eq!(follows_as, KEEPER);
    assert_looks(&bed);
    witness.look(&bed);

    let writer = Writer::start_patient(&bed, Duration::from_secs(3)).unwrap();
    let rolling = Rolling { leave: Leave::Terminate, away: Duration::ZERO, ready: Ready::Probe, deadline: LIMIT };
    let restarted = restart_pod(&bed, &writer, bed.primaries().unwrap()[0], &rolling).unwrap();
    assert!(restarted.was_primary && restarted.status.success(), "{version}: {restarted:?}");
    bed.wait_in_sync(LIMIT).unwrap();
    let report = writer.stop();
    assert_eq!(report.error_count(), 0, "{version}: {report}");
    assert_eq!(report.verify(&bed).unwrap().keys, 0, "{version}: {report}");
    witness.look(&bed);

    let dead = bed.primaries().unwrap()[1];
    bed.pod(dead).kill_server().unwrap();
    bed.pod(dead).wait_end(LIMIT).unwrap();
    wait_succeeded(&bed, dead);
    bed.pod(dead).start().unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    witness.look(&bed);

    let lost = bed.primaries().unwrap()[2];
    bed.pod(lost).lose_disk().unwrap();
    wait_succeeded(&bed, lost);
    write_users(&bed, lost);
    bed.pod(lost).start().unwrap();
    bed.wait_for("the lost node to be replaced and forgotten", LIMIT, || {
        for pod in bed.pods() {
            let nodes = bed.cluster_nodes(pod.ordinal())?;
            ensure!(nodes.lines().count() == SHARDS * 2 && !nodes.contains("fail"), "{nodes}");
        }
        Ok(Some(()))
    })
    .unwrap();
    bed.wait_in_sync(LIMIT).unwrap();

    fs::write(&file, "another").unwrap();
    let hash = Secret::new("another").hash();
    bed.wait_for("all ACL files to hold the new password alone", LIMIT, || {
        for pod in bed.pods() {
            let text = fs::read_to_string(pod.dir().join("users.acl"))?;
            let line = text.lines().find(|line| line.starts_with(&format!("user {KEEPER} "))).unwrap_or_default();
            let hashes: Vec<_> = line.split(' ').filter_map(|word| word.strip_prefix('#')).collect();
            ensure!(hashes == [hash.as_str()], "{}: {text}", pod.name());
        }
        Ok(Some(()))
    })
    .unwrap();
    witness.look(&bed);
}

/// Servers that nobody supervises, with users from their configuration: slots that are moved, and a drain.
fn assert_moves(valkey: &Valkey, witness: &mut Witness) {
    let users = users(valkey);
    let rules = users.iter().map(|line| line.strip_prefix("user ").unwrap());
    let replication = builder(valkey, 3).config("masteruser", KEEPER).config("masterauth", PASSWORD);
    let bed = rules.fold(replication, |builder, rule| builder.config("user", rule)).build().unwrap();
    let [first, second, third] = bed.pods() else { panic!("three pods") };
    first.start().unwrap();
    second.start().unwrap();
    valkeeper(&bed, &["bootstrap", "--shards", "2", "--replicas", "0"]);
    for slot in 0..SLOTS {
        fill(&bed, slot % 2, KEYS, 100).unwrap();
    }
    third.start().unwrap();
    let met = first.addr().to_string();
    cmd("CLUSTER").arg("MEET").arg(met).arg(first.port()).exec(&mut bed.connection(2).unwrap()).unwrap();
    bed.wait_for("everybody to know everybody", LIMIT, || {
        for pod in bed.pods() {
            let nodes = bed.cluster_nodes(pod.ordinal())?;
            let known = nodes.lines().filter(|line| line.contains(" connected") && !line.contains("handshake")).count();
            ensure!(known == bed.pods().len(), "{nodes}");
            ensure!(bed.cluster_info(pod.ordinal())?["cluster_state"] == "ok");
        }
        Ok(Some(()))
    })
    .unwrap();

    valkeeper(&bed, &["rebalance"]);
    assert_eq!(bed.primaries().unwrap(), [0, 1, 2]);
    assert!(bed.keys(2).unwrap() > 0);
    valkeeper(&bed, &["evacuate", third.name()]);
    assert_eq!(bed.primaries().unwrap(), [0, 1]);
    assert_eq!(bed.keys(0).unwrap() + bed.keys(1).unwrap(), SLOTS as u64 * KEYS);
    witness.look(&bed);
    for pod in bed.primaries().unwrap() {
        valkeeper_in(&bed, pod, &["drain"]);
    }
    witness.look(&bed);
}

fn wait_succeeded(bed: &Testbed, dead: usize) {
    bed.wait_for("the replica of a dead primary to take over", LIMIT, || {
        let primaries: Vec<usize> = bed.primaries()?;
        ensure!(primaries.len() == SHARDS && !primaries.contains(&dead), "{primaries:?}");
        Ok(Some(()))
    })
    .unwrap();
}

/// Whoever only looks needs no more than the user for that.
fn assert_looks(bed: &Testbed) {
    for user in [KEEPER, WATCHER] {
        let looks = |command: &[&str]| -> Result<Ended> {
            Ended::of(bed.valkeeper_in(0, command).env("VALKEEPER_USERNAME", user), LIMIT)
        };
        for probe in ["startup", "liveness", "readiness"] {
            looks(&["probe", probe]).unwrap().expect(0, &[]);
        }
        looks(&["status"]).unwrap().expect(0, &[]);
        looks(&["doctor"]).unwrap().expect(0, &[]);
    }
}
