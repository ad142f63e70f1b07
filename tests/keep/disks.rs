//! Pods that come back without their disks: new nodes, for which a place is found, and old ones, which are forgotten.

use std::fs;
use std::time::Duration;

use testbed::redis::cmd;
use testbed::{Testbed, Valkey};

use crate::tools::{cluster, ids, keys, pods, wait_whole};

/// What is promised is 20 s, on a machine that does nothing else.
const SOON: Duration = Duration::from_secs(40);

fn builder(valkey: &Valkey) -> testbed::Builder {
    pods(valkey).supervised(true)
}

/// Another pod of the same shard as this one, before anything happens: pod mod 3 is the shard.
fn sibling(pod: usize) -> usize {
    (pod + 3) % 6
}

/// These pods lose their disks at once and come back; then all is well, and the nodes that they were are forgotten.
#[track_caller]
fn assert_replaced(bed: &Testbed, what: &str, lost: &[usize], before: u64) {
    let old = ids(bed).unwrap();
    for pod in lost {
        bed.pod(*pod).lose_disk().unwrap();
    }
    // The heir of a dead primary has what it had before anybody comes back without it.
    bed.wait_for("every shard to have a primary that is there", SOON, || {
        let primaries = bed.primaries()?;
        anyhow::ensure!(primaries.len() == 3 && !primaries.iter().any(|one| lost.contains(one)), "{primaries:?}");
        Ok(Some(()))
    })
    .unwrap();
    for pod in lost {
        bed.pod(*pod).start().unwrap();
    }
    let took = wait_whole(bed);
    println!("{}: {what}: whole {took:.1?} after the start", bed.valkey().version);
    assert!(took <= SOON, "{what}: {took:?}");
    assert_eq!(ids(bed).unwrap().intersection(&old).count(), 6 - lost.len(), "{what}");
    assert_eq!(keys(bed), before, "{}: {what}", bed.valkey().version);
}

#[test]
fn a_pod_that_lost_its_disk_is_replaced_and_the_node_it_was_is_forgotten() {
    Valkey::each(Valkey::all(), |valkey| {
        let (bed, before) = cluster(builder(valkey));
        let replica = sibling(bed.primaries().unwrap()[0]);
        assert_replaced(&bed, "a replica without its disk", &[replica], before);
        let primary = bed.primaries().unwrap()[1];
        assert_replaced(&bed, "a primary without its disk", &[primary], before);
        let primaries = bed.primaries().unwrap();
        let two = [primaries[0], sibling(primaries[2])];
        assert_replaced(&bed, "a primary and another shard's replica without their disks", &two, before);
    });
}

#[test]
fn a_lost_disk_is_replaced_also_where_run_reaches_its_server_at_an_address_that_nobody_else_knows() {
    Valkey::each(Valkey::all(), |valkey| {
        let (bed, before) = cluster(builder(valkey).apart(true));
        let replica = sibling(bed.primaries().unwrap()[0]);
        assert_replaced(&bed, "a replica without its disk", &[replica], before);
    });
}

#[test]
fn twenty_lost_disks_in_a_row_leave_a_whole_cluster_and_nobody_behind() {
    Valkey::each(Valkey::all(), |valkey| {
        let (bed, before) = cluster(builder(valkey));
        for round in 0..20 {
            assert_replaced(&bed, &format!("disk {} of 20", round + 1), &[round % 6], before);
        }
    });
}

/// As the guide to production says: an RDB and a nodes.conf of each primary, nothing of replicas, and other addresses.
#[test]
fn a_backup_of_the_primaries_is_restored() {
    Valkey::each(Valkey::all(), |valkey| {
        let (bed, before) = cluster(builder(valkey));
        let primaries = bed.primaries().unwrap();
        primaries.iter().for_each(|primary| cmd("SAVE").exec(&mut bed.connection(*primary).unwrap()).unwrap());
        // One that is left for a moment would take over.
        bed.pods().iter().try_for_each(testbed::Pod::pause).unwrap();
        bed.pods().iter().for_each(|pod| assert!(!pod.kill().unwrap().success()));
        for pod in bed.pods() {
            let backup =
                ["dump.rdb", "nodes.conf"].map(|name| (name, fs::read(pod.dir().join(name)).unwrap_or_default()));
            pod.lose_disk().unwrap();
            if primaries.contains(&pod.ordinal()) {
                fs::create_dir_all(pod.dir()).unwrap();
                backup.iter().for_each(|(name, text)| fs::write(pod.dir().join(name), text).unwrap());
            }
            pod.move_to(bed.spare_addr());
        }
        bed.pods().iter().try_for_each(testbed::Pod::spawn).unwrap();
        wait_whole(&bed);
        assert_eq!(keys(&bed), before);
        assert_eq!(bed.primaries().unwrap(), primaries);
    });
}
