//! Pods that leave, and what is refused.

use std::thread;

use testbed::redis::cmd;
use testbed::{Ended, Testbed, Valkey, Writer};

use super::clients::Counters;
use super::tools::{LIMIT, alone, assert_settled, builder, cluster, shares, valkeeper, write};

const STILL: usize = 10_000;

fn refused(bed: &Testbed, args: &[&str], texts: &[&str]) {
    Ended::of(&mut bed.valkeeper(args), LIMIT).unwrap().expect(76, texts);
}

#[test]
fn pods_that_leave_own_nothing_and_a_member_that_stays_takes_over() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let version = &valkey.version;
        // Shards {0,3} {1,4} {2,5}; 3 to 5 are the replicas. The last two pods leave, and so does a primary.
        let bed = builder(valkey, 6).config("repl-diskless-sync-delay", "0").build().unwrap();
        bed.form(3, 1).unwrap();
        write(&bed, "still", STILL, 100);
        bed.wait_in_sync(LIMIT).unwrap();
        let primaries = bed.primaries().unwrap();
        let counters = Counters::start(&bed, 1, "still", STILL);
        let writer = Writer::start_patient(&bed, LIMIT / 6).unwrap();

        // A whole shard and the primary of another.
        let (first, second) = (primaries[1], primaries[2]);
        let copy = copy_of(&bed, second);
        let names: Vec<String> = [first, second, copy].iter().map(|pod| format!("valkey-{pod}")).collect();
        let args: Vec<&str> =
            ["evacuate", "--shards", "2"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let report = valkeeper(&bed, &args);
        assert_eq!(report["handed_over"].as_array().unwrap().len(), 1, "{version}: {report}");
        let sizes = shares(&bed);
        for leaving in [first, second, copy] {
            assert_eq!(sizes[leaving], 0, "{version}: {sizes:?}");
        }
        assert_eq!(sizes.iter().filter(|size| **size == 8192).count(), 2, "{version}: {sizes:?}");
        assert_settled(&bed);
        let again = valkeeper(&bed, &args);
        assert_eq!((&again["slots_moved"], &again["handed_over"]), (&0.into(), &serde_json::json!([])), "{again}");

        counters.stop().assert_clean(version);
        let lost = writer.stop();
        assert_eq!(lost.error_count(), 0, "{version}: {lost}");
        assert_eq!(lost.verify(&bed).unwrap().keys, 0, "{version}: {lost}");
    });
}

fn copy_of(bed: &Testbed, primary: usize) -> usize {
    let nodes = bed.cluster_nodes(primary).unwrap();
    let id = nodes.lines().find(|line| line.contains("myself")).unwrap().split(' ').next().unwrap();
    let line = nodes.lines().find(|line| line.contains(&format!("slave {id}"))).unwrap();
    let pod = bed.pods().iter().find(|pod| line.contains(&format!("{}:", pod.addr()))).unwrap();
    pod.ordinal()
}

#[test]
fn what_cannot_be_done_is_refused_with_what_to_do() {
    let _alone = alone();
    let bed = cluster(builder(&Valkey::newest(), 4), 3);
    refused(&bed, &["evacuate", "valkey-9"], &["no member of the cluster is called valkey-9", "valkeeper status"]);
    refused(&bed, &["rebalance", "--weight", "valkey-9=2"], &["no member of the cluster is called valkey-9"]);
    let all = ["evacuate", "valkey-0", "valkey-1", "valkey-2", "valkey-3"];
    refused(&bed, &all, &["nobody would be left to own slots"]);
    refused(
        &bed,
        &["evacuate", "--shards", "4", "valkey-3"],
        &["4 shards are to remain, and only 3 shards keep a member"],
    );
    bed.pod(2).kill().unwrap();
    refused(&bed, &["rebalance"], &["slots without a primary that answers", "bring the missing pods back"]);
}

#[test]
fn a_run_that_others_would_undo_from_now_on_does_not_end_well() {
    let _alone = alone();
    let bed = cluster(builder(&Valkey::get("8.1"), 2), 2);
    write(&bed, "key", 300, 100);
    let before = bed.keys(0).unwrap();
    let mut client = bed.connection(0).unwrap();
    thread::scope(|scope| {
        let run = scope
            .spawn(|| refused(&bed, &["evacuate", "--max-rate", "50", "valkey-1"], &["--auto-rebalance in valkey-0"]));
        bed.wait_for("keys to arrive", LIMIT, || Ok((bed.keys(0)? > before).then_some(()))).unwrap();
        cmd("CLIENT").arg("SETNAME").arg("valkeeper-keeps-even").exec(&mut client).unwrap();
        run.join().unwrap();
    });
}

#[test]
fn a_dry_run_foretells_and_moves_nothing() {
    let _alone = alone();
    let bed = cluster(builder(&Valkey::get("8.1"), 4), 3);
    // Slot 16383 is among those that would move.
    let key = (0..).map(|n| format!("big:{n}")).find(|key| slot(&bed, key) == 16_383).unwrap();
    let value = "x".repeat(6_000_000);
    testbed::redis::cmd("SET").arg(&key).arg(value).exec(&mut bed.connection(2).unwrap()).unwrap();
    let foretold = valkeeper(&bed, &["rebalance", "--dry-run"]);
    assert_eq!(foretold["moves"].as_array().unwrap().len(), 3, "{foretold}");
    assert_eq!(foretold["big_keys"][0]["key"], *key, "{foretold}");
    assert_eq!(shares(&bed)[3], 0);
    let report = valkeeper(&bed, &["rebalance"]);
    assert_eq!(report["big_keys"][0]["key"], *key, "{report}");
    assert_eq!(shares(&bed), [4096; 4]);
}

fn slot(bed: &Testbed, key: &str) -> u16 {
    testbed::redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query(&mut bed.connection(0).unwrap()).unwrap()
}

#[test]
fn keys_of_every_database_go_with_their_slots() {
    let _alone = alone();
    let bed = cluster(builder(&Valkey::newest(), 2).config("cluster-databases", "4"), 2);
    let connection = |database: u8| {
        let mut connection = bed.connection(0).unwrap();
        cmd("SELECT").arg(database).exec(&mut connection).unwrap();
        connection
    };
    let mine = (0..200).map(|number| format!("key:{number}")).filter(|key| slot(&bed, key) < 8192);
    let mine: Vec<String> = mine.collect();
    for database in [0, 3] {
        let mut connection = connection(database);
        mine.iter().for_each(|key| cmd("SET").arg(key).arg(database).exec(&mut connection).unwrap());
    }
    // All slots of the first pod, so that the last one goes key by key.
    valkeeper(&bed, &["rebalance", "--weight", "valkey-0=0"]);
    for database in [0, 3] {
        let mut connection = bed.connection(1).unwrap();
        cmd("SELECT").arg(database).exec(&mut connection).unwrap();
        for key in &mine {
            let found: Option<u8> = cmd("GET").arg(key).query(&mut connection).unwrap();
            assert_eq!(found, Some(database), "{key} in database {database}");
        }
    }
}

#[test]
fn a_primary_that_dies_is_waited_for_as_long_as_its_servers_take_to_replace_it() {
    let _alone = alone();
    // With the node timeout that servers have by themselves.
    let bed = builder(&Valkey::newest(), 6).config("repl-diskless-sync-delay", "0").build().unwrap();
    bed.form(3, 1).unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    bed.pod(bed.primaries().unwrap()[0]).kill().unwrap();
    Ended::of(&mut bed.valkeeper(&["rebalance"]), LIMIT).unwrap().expect(0, &[]);
}
