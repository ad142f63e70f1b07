//! Two runs at once.

use std::thread;

use testbed::{Testbed, Valkey};

use super::clients::Counters;
use super::tools::{alone, assert_settled, builder, cluster, shares, valkeeper, write};

const STILL: usize = 8_000;

/// Every key that was written, and those that were counted up: in each round one of 500, and another one is read.
fn assert_all_there(bed: &Testbed, counters: Counters, about: &str) {
    assert_settled(bed);
    let tally = counters.stop();
    tally.assert_clean(about);
    let keys: u64 = bed.pods().iter().map(|pod| bed.keys(pod.ordinal()).unwrap()).sum();
    assert_eq!(keys, STILL as u64 + 500.min(tally.answers / 2), "{about}");
}

#[test]
fn two_runs_with_different_aims_take_turns_and_lose_nothing() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let bed = cluster(builder(valkey, 5), 3);
        write(&bed, "still", STILL, 100);
        let counters = Counters::start(&bed, 1, "still", STILL);
        let heavy = format!("{}=3", bed.pod(4).name());
        thread::scope(|scope| {
            let aims = [vec!["rebalance"], vec!["rebalance", "--weight", &heavy]];
            let runs = aims.map(|aim| {
                scope.spawn({
                    let bed = &bed;
                    move || valkeeper(bed, &aim)
                })
            });
            runs.into_iter().for_each(|run| drop(run.join().unwrap()));
        });
        assert_all_there(&bed, counters, &valkey.version);
    });
}

#[test]
fn two_runs_at_once_do_what_one_does() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        // Of five and of six, not all can own as many as the others.
        for pods in [4, 5, 6] {
            let about = format!("{}, {pods} pods", valkey.version);
            let bed = cluster(builder(valkey, pods), 3);
            write(&bed, "still", STILL, 100);
            let counters = Counters::start(&bed, 1, "still", STILL);
            thread::scope(|scope| {
                let runs = [0, 1].map(|_| scope.spawn(|| valkeeper(&bed, &["rebalance"])));
                runs.into_iter().for_each(|run| drop(run.join().unwrap()));
            });
            let (shares, even) = (shares(&bed), 16_384 / usize::from(pods));
            assert!(shares.iter().all(|size| (even..=even + 1).contains(size)), "{about}: {shares:?}");
            assert_all_there(&bed, counters, &about);
        }
    });
}
