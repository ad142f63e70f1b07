//! Every state that a killed run, or a failover after it, can leave a slot in, made by hand on real servers.

use testbed::redis::cmd;
use testbed::{Testbed, Valkey};

use super::tools::{LIMIT, alone, assert_settled, builder, cluster, owners, shares, valkeeper, write};

const SLOT: u16 = 16_383;
const KEYS: usize = 200;
const TAG: &str = "{half}";

/// What was done to the slot before the run was killed.
enum Step {
    Importing,
    Migrating,
    /// So many keys.
    Keys(usize),
    /// A key at the target that the source still has, of an older time.
    Both,
    NodeAtTarget,
    NodeAtSource,
}

fn set_slot(bed: &Testbed, pod: usize, slot: u16, words: &[&str]) {
    cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(words).exec(&mut bed.connection(pod).unwrap()).unwrap();
}

fn id(bed: &Testbed, pod: usize) -> String {
    cmd("CLUSTER").arg("MYID").query(&mut bed.connection(pod).unwrap()).unwrap()
}

fn name(key: usize) -> String {
    format!("{TAG}{key}")
}

fn take(bed: &Testbed, step: &Step, slot: u16, source: usize, target: usize) {
    let (from, to) = (id(bed, source), id(bed, target));
    let migrate = |words: &[&str], keys: &[String]| {
        let mut command = cmd("MIGRATE");
        command.arg(bed.pod(target).addr().to_string()).arg(bed.pod(target).port()).arg("").arg(0).arg(5000);
        command.arg(words).arg("KEYS").arg(keys).exec(&mut bed.connection(source).unwrap()).unwrap();
    };
    match step {
        Step::Importing => set_slot(bed, target, slot, &["IMPORTING", &from]),
        Step::Migrating => set_slot(bed, source, slot, &["MIGRATING", &to]),
        Step::Keys(many) => migrate(&[], &(0..*many).map(name).collect::<Vec<_>>()),
        Step::Both => {
            migrate(&["COPY"], &[name(KEYS - 1)]);
            let mut client = bed.connection(source).unwrap();
            cmd("SET").arg(name(KEYS - 1)).arg("newer").exec(&mut client).unwrap();
        }
        Step::NodeAtTarget => set_slot(bed, target, slot, &["NODE", &to]),
        Step::NodeAtSource => set_slot(bed, source, slot, &["NODE", &to]),
    }
}

#[test]
fn whatever_a_killed_run_leaves_behind_is_closed_or_finished() {
    use Step::{Both, Importing, Keys, Migrating, NodeAtSource, NodeAtTarget};
    let _alone = alone();
    let stories: [(&str, &[Step]); 8] = [
        ("only importing", &[Importing]),
        ("only migrating", &[Migrating]),
        ("nothing sent yet", &[Importing, Migrating]),
        ("half of the keys", &[Importing, Migrating, Keys(KEYS / 2)]),
        ("a key on both sides", &[Importing, Migrating, Keys(KEYS / 2), Both]),
        ("all keys", &[Importing, Migrating, Keys(KEYS)]),
        ("only the target was told", &[Importing, Migrating, Keys(KEYS), NodeAtTarget]),
        ("only the source was told", &[Importing, Migrating, Keys(KEYS), NodeAtSource]),
    ];
    Valkey::each(Valkey::all(), |valkey| {
        let bed = cluster(builder(valkey, 3), 3);
        for (story, steps) in &stories {
            let about = format!("{}: {story}", valkey.version);
            let slot: u16 = cmd("CLUSTER").arg("KEYSLOT").arg(TAG).query(&mut bed.connection(0).unwrap()).unwrap();
            let source = owners(&bed)[usize::from(slot)].unwrap();
            let target = (source + 1) % 3;
            let mut client = bed.connection(source).unwrap();
            for key in 0..KEYS {
                cmd("SET").arg(name(key)).arg(key).exec(&mut client).unwrap();
            }
            steps.iter().for_each(|step| take(&bed, step, slot, source, target));
            valkeeper(&bed, &["rebalance"]);
            assert!(shares(&bed).iter().all(|size| (5461..=5462).contains(size)), "{about}: {:?}", shares(&bed));
            assert_settled(&bed);
            let owner = owners(&bed)[usize::from(slot)].unwrap();
            for key in 0..KEYS {
                let value: Option<String> =
                    cmd("GET").arg(name(key)).query(&mut bed.connection(owner).unwrap()).unwrap();
                let newer = key == KEYS - 1 && steps.iter().any(|step| matches!(step, Both));
                let wanted = if newer { "newer".to_owned() } else { key.to_string() };
                assert_eq!(value, Some(wanted), "{about}: {key}");
            }
        }
    });
}

#[test]
fn a_slot_that_was_half_way_is_finished_after_either_side_has_failed_over() {
    let _alone = alone();
    let by_key = Valkey::all().into_iter().filter(|valkey| valkey.version.starts_with("8."));
    Valkey::each(by_key.collect(), |valkey| {
        for fails_over in ["source", "target"] {
            let about = format!("{}: {fails_over}", valkey.version);
            let bed = builder(valkey, 6).config("repl-diskless-sync-delay", "0").build().unwrap();
            bed.form(3, 1).unwrap();
            write(&bed, "still", 5_000, 10);
            let primaries = bed.primaries().unwrap();
            let (source, target) = (owners(&bed)[usize::from(SLOT)].unwrap(), primaries[0]);
            for step in [Step::Importing, Step::Migrating] {
                take(&bed, &step, SLOT, source, target);
            }
            bed.wait_in_sync(LIMIT).unwrap();
            let before = if fails_over == "source" { source } else { target };
            let nodes = bed.cluster_nodes(before).unwrap();
            let replica = bed.pods().iter().find(|pod| {
                let line = nodes.lines().find(|line| line.contains(&format!("{}:", pod.addr()))).unwrap();
                line.contains(&format!("slave {}", id(&bed, before)))
            });
            let replica = replica.unwrap().ordinal();
            cmd("CLUSTER").arg("FAILOVER").exec(&mut bed.connection(replica).unwrap()).unwrap();
            bed.wait_for("the replica to take over", LIMIT, || Ok((shares(&bed)[replica] > 0).then_some(()))).unwrap();
            bed.wait_in_sync(LIMIT).unwrap();
            valkeeper(&bed, &["rebalance"]);
            assert_settled(&bed);
            let mut sizes = shares(&bed);
            sizes.sort();
            assert_eq!(sizes, [0, 0, 0, 5461, 5461, 5462], "{about}");
            let keys: u64 = bed.primaries().unwrap().into_iter().map(|pod| bed.keys(pod).unwrap()).sum();
            assert_eq!(keys, 5_000, "{about}");
        }
    });
}
