//! Targets that die, hang or are somebody else while slots go to them key by key.

use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use testbed::redis::{cmd, pipe};
use testbed::{Server, ServerOptions, Testbed, Valkey};

use super::clients::Counters;
use super::tools::{LIMIT, alone, assert_settled, builder, cluster, owners, valkeeper, write};

const STILL: usize = 12_000;

/// The pod that gets slots, and its replica.
const TARGET: usize = 3;
const COPY: usize = 4;

fn by_key() -> impl Iterator<Item = Valkey> {
    Valkey::all().into_iter().filter(|valkey| valkey.version.starts_with("8."))
}

fn begin(bed: &Testbed, options: &[&str]) -> Child {
    let mut command = bed.valkeeper(&[&["rebalance"], options].concat());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn keys(bed: &Testbed, pods: &[usize]) -> u64 {
    pods.iter().map(|pod| bed.keys(*pod).unwrap()).sum()
}

#[test]
fn a_primary_that_dies_soon_after_its_first_keys_came_is_followed_by_its_replica() {
    let _alone = alone();
    Valkey::each(by_key().collect(), |valkey| {
        let version = &valkey.version;
        let settings =
            builder(valkey, 5).config("repl-diskless-sync-delay", "0").config("cluster-node-timeout", "2000");
        let bed = cluster(settings, 3);
        write(&bed, "still", STILL, 100);
        let id: String = cmd("CLUSTER").arg("MYID").query(&mut bed.connection(TARGET).unwrap()).unwrap();
        cmd("CLUSTER").arg("REPLICATE").arg(id).exec(&mut bed.connection(COPY).unwrap()).unwrap();
        bed.wait_for("a replica in sync", LIMIT, || {
            let info: String = cmd("INFO").arg("replication").query(&mut bed.connection(COPY)?)?;
            Ok(info.contains("master_link_status:up").then_some(()))
        })
        .unwrap();

        let mut run = begin(&bed, &["--max-rate", "400"]);
        bed.wait_for("keys at the target", LIMIT, || Ok((bed.keys(TARGET)? > 300).then_some(()))).unwrap();
        bed.pod(TARGET).kill().unwrap();
        run.kill().unwrap();
        run.wait().unwrap();
        bed.wait_for("its replica to take over", LIMIT, || Ok(bed.primaries()?.contains(&COPY).then_some(()))).unwrap();
        bed.pod(TARGET).start().unwrap();
        valkeeper(&bed, &["rebalance"]);
        assert_settled(&bed);
        // What was on its way to the replica at that moment, and no more.
        let left = keys(&bed, &[0, 1, 2, COPY]);
        assert!(left + 20 >= STILL as u64, "{version}: {left} of {STILL} keys are left");
    });
}

#[test]
fn no_keys_go_to_whoever_has_the_address_of_a_target_by_now() {
    let _alone = alone();
    Valkey::each(by_key().collect(), |valkey| {
        let version = &valkey.version;
        let bed = cluster(builder(valkey, 4), 3);
        // Some batches of one slot, with a long pause between them.
        let source = many_in_a_slot_that_moves(&bed, 3_000);
        let run = begin(&bed, &["--max-rate", "150", "--timeout", "8s"]);
        bed.wait_for("a first batch to be over", LIMIT, || Ok(migrates(&bed, source).map(drop))).unwrap();
        assert_ne!(bed.keys(TARGET).unwrap(), 0, "{version}");
        let target = bed.pod(TARGET);
        target.kill().unwrap();
        thread::sleep(Duration::from_millis(400));
        let former = target.options();
        let mut other = Server::start(ServerOptions { dir: bed.dir().join("other"), ..former }).unwrap();
        other.wait_answering(LIMIT).unwrap();
        cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16_383).exec(&mut bed.connection(TARGET).unwrap()).unwrap();

        let ended = run.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{version}: {said}");
        assert_eq!(bed.keys(TARGET).unwrap(), 0, "{version}: {said}");
        assert!(said.contains("no keys are sent to valkey-3"), "{version}: {said}");
        other.stop().unwrap();
    });
}

/// What the server says of the MIGRATEs that have ended, once there are any.
fn migrates(bed: &Testbed, source: usize) -> Option<String> {
    let stats: String = cmd("INFO").arg("commandstats").query(&mut bed.connection(source).unwrap()).unwrap();
    stats.lines().find(|line| line.starts_with("cmdstat_migrate:")).map(str::to_owned)
}

/// All in one slot that `rebalance` is about to move; who owns it.
fn many_in_a_slot_that_moves(bed: &Testbed, keys: usize) -> usize {
    let planned = valkeeper(bed, &["rebalance", "--dry-run"]);
    let slot = planned["moves"][0]["ranges"][0][1].as_u64().unwrap();
    let mut asked = bed.connection(0).unwrap();
    let mut tags = pipe();
    for tag in 0..100_000 {
        tags.cmd("CLUSTER").arg("KEYSLOT").arg(format!("{{{tag}}}"));
    }
    let slots: Vec<u64> = tags.query(&mut asked).unwrap();
    let tag = slots.iter().position(|of| *of == slot).expect("a tag for every slot");
    let owner = owners(bed)[usize::try_from(slot).unwrap()].unwrap();
    let mut sets = pipe();
    for key in 0..keys {
        sets.cmd("SET").arg(format!("{{{tag}}}:{key}")).arg("x".repeat(100)).ignore();
    }
    sets.exec(&mut bed.connection(owner).unwrap()).unwrap();
    owner
}

#[test]
fn a_target_that_hangs_holds_up_few_commands_and_the_run_goes_on_when_it_is_back() {
    let _alone = alone();
    Valkey::each(by_key().collect(), |valkey| {
        let version = &valkey.version;
        let bed = cluster(builder(valkey, 4), 3);
        write(&bed, "still", STILL, 100);
        let counters = Counters::start(&bed, 1, "still", STILL);
        let run = begin(&bed, &["--max-rate", "1500"]);
        bed.wait_for("keys at the target", LIMIT, || Ok((bed.keys(TARGET)? > 300).then_some(()))).unwrap();
        bed.pod(TARGET).pause().unwrap();
        thread::sleep(Duration::from_secs(4));
        bed.pod(TARGET).resume().unwrap();
        let ended = run.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{version}: {said}");
        assert_settled(&bed);
        counters.stop().assert_clean(version);
        for source in 0..3 {
            let line = migrates(&bed, source).unwrap();
            let failed = line.rsplit("failed_calls=").next().unwrap().trim().parse::<u32>().unwrap();
            assert!(failed <= 2, "{version}: {line}");
        }
    });
}
