//! `run --bootstrap`: the first pod forms the cluster where none stands, and nobody needs a Job.

use std::thread::sleep;
use std::time::Duration;

use testbed::{Builder, Testbed, Valkey};

use crate::tools::{LIMIT, pods, wait_whole};

const SHAPE: [&str; 5] = ["--bootstrap", "--shards", "3", "--replicas", "1"];

fn to_form(builder: Builder) -> Testbed {
    let bed = builder.supervised(true).start_servers(false).build().unwrap();
    bed.pods().iter().for_each(|pod| pod.set_run_args(&SHAPE));
    bed
}

/// Waits until the first pod says that it has formed the cluster, and all is as it is to be.
#[track_caller]
fn wait_formed(bed: &Testbed) {
    bed.wait_for("the first pod to tell", LIMIT, || Ok((times_formed(bed, 0) == 1).then_some(()))).unwrap();
    wait_whole(bed);
}

fn times_formed(bed: &Testbed, pod: usize) -> usize {
    bed.pod(pod).run_log().matches("the cluster stands after").count()
}

#[test]
fn pods_of_every_version_form_their_cluster_themselves_and_only_the_first_one_does_it() {
    for valkey in Valkey::all() {
        let bed = to_form(pods(&valkey));
        bed.pods().iter().skip(1).for_each(|pod| pod.start().unwrap());
        // More than a round of those that are there.
        sleep(Duration::from_secs(3));
        for pod in bed.pods().iter().skip(1) {
            assert!(bed.cluster_nodes(pod.ordinal()).unwrap().lines().count() == 1, "{} has met somebody", pod.name());
        }
        bed.pod(0).start().unwrap();
        wait_formed(&bed);
        assert!((1..6).all(|pod| times_formed(&bed, pod) == 0));
    }
}

#[test]
fn a_first_pod_that_is_killed_in_the_middle_goes_on_when_it_is_back() {
    let bed = to_form(pods(&Valkey::newest()));
    bed.pods().iter().try_for_each(testbed::Pod::spawn).unwrap();
    bed.wait_for("the first step", LIMIT, || {
        let met = |pod: &testbed::Pod| Ok(bed.cluster_nodes(pod.ordinal())?.lines().count() > 1);
        let met: anyhow::Result<Vec<bool>> = bed.pods().iter().map(met).collect();
        Ok(met?.contains(&true).then_some(()))
    })
    .unwrap();
    bed.pod(0).kill().unwrap();
    bed.pod(0).start().unwrap();
    wait_whole(&bed);
}

#[test]
fn a_cluster_that_stands_is_left_as_it_is() {
    let bed = to_form(pods(&Valkey::newest()));
    bed.pods().iter().try_for_each(testbed::Pod::start).unwrap();
    wait_formed(&bed);
    bed.pod(1).stop().unwrap();
    bed.pod(0).stop().unwrap();
    bed.pod(0).start().unwrap();
    // It finds a cluster in which one is missing, and has nothing to form.
    sleep(Duration::from_secs(3));
    bed.pod(1).start().unwrap();
    wait_whole(&bed);
    assert_eq!(times_formed(&bed, 0), 0, "{}", bed.pod(0).run_log());
}
