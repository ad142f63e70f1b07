//! Forming, restarting, crashing and healing, all over TLS.

use std::thread;
use std::time::Duration;

use anyhow::ensure;
use testbed::{Builder, Leave, Ready, Rolling, Testbed, Valkey, Writer, rolling_restart};

use super::tools::{LIMIT, alone, assert_clean, assert_nothing_is_plain, builder, cluster, keys, wait_whole, writer};

/// Sooner than Valkey's own failover could be, with a node timeout of 15 s.
const BY_OUR_DOING: Duration = Duration::from_secs(5);

/// What a primary had acknowledged and not sent when it was killed, of one writer that has one write under way.
const UNREPLICATED: u64 = 5;

#[test]
fn a_cluster_forms_and_nothing_of_it_is_plain() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        for (who, builder) in [("stock servers", builder(valkey, 6)), ("run", builder(valkey, 6).supervised(true))] {
            let bed = cluster(builder);
            wait_whole(&bed);
            bed.wait_for("valkey-cli to find nothing wrong", LIMIT, || bed.cli_check(0).map(Some)).unwrap();
            assert_nothing_is_plain(&bed);
            println!("{}: {who}: formed", valkey.version);
        }
    });
}

fn assert_restarts_are_unnoticed(builder: Builder, leave: Leave) {
    let bed = cluster(builder.config("save", "3600 1").config("cluster-node-timeout", "5000"));
    let writer = writer(&bed);
    let rolling = Rolling { leave, away: Duration::from_millis(200), ready: Ready::Probe, deadline: LIMIT };
    let restarts = rolling_restart(&bed, &writer, &rolling).unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
    let report = writer.stop();
    assert_clean(&bed, &report);
    assert!(restarts.iter().filter(|restart| restart.was_primary).count() >= 3, "{restarts:?}");
    println!("{}: {report}", bed.valkey().version);
}

#[test]
fn sigterm_to_run_restarts_every_pod_and_no_write_is_lost_or_refused() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        assert_restarts_are_unnoticed(builder(valkey, 6).supervised(true), Leave::Terminate);
    });
}

#[test]
fn drain_before_sigterm_restarts_every_stock_server_and_no_write_is_lost_or_refused() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        assert_restarts_are_unnoticed(builder(valkey, 6), Leave::Drain(Vec::new()));
    });
}

/// The writers' own count of acknowledgements grows by that many in every shard.
fn go_on(bed: &Testbed, writer: &Writer, count: u64) {
    let mark = writer.mark();
    bed.wait_for("every shard to be written to", LIMIT, || {
        let report = writer.report_since(&mark);
        ensure!(report.shards.iter().all(|shard| shard.acknowledged >= count), "{report}");
        Ok(Some(()))
    })
    .unwrap();
}

#[test]
fn writes_go_on_at_once_when_the_server_or_the_pod_of_a_primary_is_killed() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        // Here `run` finds all of TLS in the server's configuration.
        let builder = builder(valkey, 6).supervised(true).tls_in_config().config("cluster-node-timeout", "15000");
        let bed = cluster(builder);
        for (what, whole_pod) in [("server", false), ("pod", true)] {
            let primary = bed.primaries().unwrap()[usize::from(whole_pod)];
            let writer = writer(&bed);
            go_on(&bed, &writer, 100);
            if whole_pod {
                bed.pod(primary).kill().unwrap();
            } else {
                bed.pod(primary).kill_server().unwrap();
                bed.pod(primary).wait_end(LIMIT).unwrap();
            }
            go_on(&bed, &writer, 100);
            let report = writer.stop();
            let (gap, lost) = (report.longest_gap().length, report.verify(&bed).unwrap());
            println!("{}: {what} killed: writes paused for {gap:.1?}, {} lost", valkey.version, lost.keys);
            assert!(gap <= BY_OUR_DOING && lost.keys <= UNREPLICATED, "{}: {what}: {lost:?} {report}", valkey.version);
            bed.pod(primary).start().unwrap();
            bed.wait_in_sync(LIMIT).unwrap();
            assert!(!bed.primaries().unwrap().contains(&primary), "{}", valkey.version);
        }
    });
}

#[test]
fn a_primary_without_persistence_that_restarts_at_once_comes_back_as_a_replica_and_no_key_is_lost() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let builder = builder(valkey, 6).supervised(true).config("cluster-node-timeout", "15000");
        // Also beside a port without TLS, at which `run` is not to ask.
        for builder in [builder.clone(), builder.config("port", "6378")] {
            let bed = cluster(builder);
            let (before, primary) = (keys(&bed), bed.primaries().unwrap()[0]);
            bed.pod(primary).restart_at_once().unwrap();
            bed.pod(primary).wait_ready().unwrap();
            bed.wait_in_sync(LIMIT).unwrap();
            assert!(!bed.primaries().unwrap().contains(&primary), "{}", bed.pod(primary).run_log());
            assert_eq!(keys(&bed), before, "{}", valkey.version);
        }
    });
}

#[test]
fn a_cluster_is_whole_again_after_new_addresses_and_lost_disks() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let bed = cluster(builder(valkey, 6).run_args(&["--save", "always"]));
        let before = keys(&bed);
        let at_once = |act: &(dyn Fn(usize) + Sync)| {
            thread::scope(|scope| {
                bed.pods().iter().for_each(|pod| drop(scope.spawn(|| act(pod.ordinal()))));
            });
        };
        at_once(&|pod| assert!(bed.pod(pod).stop().unwrap().success()));
        at_once(&|pod| {
            bed.pod(pod).move_to(bed.spare_addr());
            bed.pod(pod).start().unwrap();
        });
        wait_whole(&bed);
        assert_eq!(keys(&bed), before, "{}", valkey.version);

        let primary = bed.primaries().unwrap()[1];
        bed.pod(primary).lose_disk().unwrap();
        bed.wait_for("an heir", LIMIT, || {
            let primaries = bed.primaries()?;
            Ok((primaries.len() == 3 && !primaries.contains(&primary)).then_some(()))
        })
        .unwrap();
        bed.pod(primary).start().unwrap();
        wait_whole(&bed);
        assert_eq!(keys(&bed), before, "{}", valkey.version);
        assert_nothing_is_plain(&bed);
    });
}
