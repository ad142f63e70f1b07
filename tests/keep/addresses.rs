//! Pods that come back under other addresses, and addresses that come back under other pods.

use std::thread;
use std::time::{Duration, Instant};

use testbed::{Testbed, Valkey, run, wait_for};

use crate::tools::{LIMIT, cluster, ids, keys, pods, view, wait_whole};

/// What is promised is 8 s, on a machine that does nothing else.
const SOON: Duration = Duration::from_secs(20);

/// How often pods exchange their addresses.
const ROUNDS: usize = 4;

/// Stops all pods, moves each to a new address, and starts them again, all at once. Says when the last server accepted
/// connections.
fn move_all(bed: &Testbed) -> Instant {
    let at_once = |act: &(dyn Fn(usize) + Sync)| {
        thread::scope(|scope| {
            let pods = bed.pods().iter().map(|pod| pod.ordinal());
            for pod in pods {
                scope.spawn(move || act(pod));
            }
        });
    };
    at_once(&|pod| assert!(bed.pod(pod).stop().unwrap().success()));
    at_once(&|pod| {
        bed.pod(pod).move_to(bed.spare_addr());
        bed.pod(pod).start().unwrap();
    });
    Instant::now()
}

#[test]
fn a_cluster_whose_pods_all_come_back_under_new_addresses_is_whole_again_by_itself() {
    for valkey in Valkey::all() {
        // What a drain saves is there after the restart.
        let (bed, before) = cluster(pods(&valkey).run_args(&["--save", "always"]));
        let known = ids(&bed).unwrap();
        let accepted = move_all(&bed);
        wait_whole(&bed);
        let took = accepted.elapsed();
        println!("{}: all addresses new: whole {took:.1?} after the last server accepted", valkey.version);
        assert!(took <= SOON, "{took:?}");
        assert_eq!((ids(&bed).unwrap(), keys(&bed)), (known, before), "{}", valkey.version);
    }
}

/// As in a network that is small: each has an address that was another one's. Who was stopped first knows of none of the
/// handovers that came after it.
#[test]
fn a_cluster_whose_pods_were_stopped_one_by_one_and_come_back_with_each_other_s_addresses_is_whole_again() {
    Valkey::each(Valkey::all(), |valkey| {
        let (bed, before) =
            cluster(pods(valkey).run_args(&["--save", "always"]).config("cluster-node-timeout", "5000"));
        let known = ids(&bed).unwrap();
        for round in 0..ROUNDS {
            let mut addresses: Vec<_> = bed.pods().iter().map(|pod| pod.addr()).collect();
            bed.pods().iter().for_each(|pod| assert!(pod.stop().unwrap().success()));
            addresses.reverse();
            bed.pods().iter().zip(addresses).for_each(|(pod, address)| pod.move_to(address));
            thread::scope(|scope| bed.pods().iter().for_each(|pod| drop(scope.spawn(|| pod.start().unwrap()))));
            let took = wait_whole(&bed);
            let is_mended = |log: &str| log.contains("had another node at our own address");
            bed.pods().iter().for_each(|pod| assert!(is_mended(&pod.run_log()), "{}", pod.run_log()));
            println!("{}: addresses exchanged, round {round}: whole {took:.1?} after the start", valkey.version);
            assert_eq!((ids(&bed).unwrap(), keys(&bed)), (known.clone(), before), "{}", valkey.version);
        }
    });
}

/// What makes the test above one.
#[test]
fn without_run_such_a_cluster_stays_down() {
    const WATCHED: Duration = Duration::from_secs(12);
    Valkey::each(Valkey::all(), |valkey| {
        let (bed, _) = cluster(pods(valkey).config("cluster-node-timeout", "2000"));
        move_all(&bed);
        let says_ok = |pod| Ok(bed.cluster_info(pod)?["cluster_state"] == "ok");
        let up = || (0..6).map(says_ok).collect::<anyhow::Result<Vec<_>>>();
        // Until the node timeout they do not know.
        bed.wait_for("every node to say fail", LIMIT, || Ok((up()? == [false; 6]).then_some(()))).unwrap();
        assert!(wait_for("any node to say ok", WATCHED, || Ok(up()?.contains(&true).then_some(()))).is_err());
    });
}

fn foreign_cluster(valkey: &Valkey) -> Testbed {
    let theirs = pods(valkey).run_args(&["--cluster-id", "other"]).build().unwrap();
    let formed = run(&mut theirs.valkeeper(&["bootstrap", "--cluster-id", "other"]), LIMIT).unwrap();
    assert!(formed.status.success(), "{formed:?}");
    theirs.wait_in_sync(LIMIT).unwrap();
    theirs
}

#[test]
fn pods_form_no_cluster_by_themselves_though_one_that_stands_answers_beside_them() {
    let ours = pods(&Valkey::newest()).supervised(true).build().unwrap();
    let theirs = foreign_cluster(&Valkey::newest());
    ours.dns().pod_moved("valkey-7", theirs.pod(0).addr());
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        for pod in 0..6 {
            assert_eq!(view(&ours, pod).unwrap().entries().len(), 1);
        }
    }
    assert_eq!(view(&theirs, 0).unwrap().entries().len(), 6);
    ours.dns().pod_gone("valkey-7");
    ours.form(3, 1).unwrap();
    wait_whole(&ours);
}

#[test]
fn a_foreign_cluster_at_a_former_address_of_ours_is_never_merged_with_ours() {
    /// Of theirs, the pod that gets our address.
    const MOVED: usize = 4;
    /// How long DNS is not up to date.
    const STALE: Duration = Duration::from_secs(30);
    Valkey::each(Valkey::all(), |valkey| {
        let (ours, before) = cluster(pods(valkey).supervised(true));
        let theirs = foreign_cluster(valkey);
        let (our_ids, their_ids) = (ids(&ours).unwrap(), ids(&theirs).unwrap());
        let replica = (0..6).find(|pod| !ours.primaries().unwrap().contains(pod)).unwrap();

        // Our DNS goes on naming the address that their pod has by now.
        ours.dns().auto(false);
        let former = ours.pod(replica).addr();
        ours.pod(replica).stop().unwrap();
        theirs.pod(MOVED).restart_at(former).unwrap();
        ours.pod(replica).restart_at(ours.spare_addr()).unwrap();
        let started = Instant::now();
        let apart = |while_dns: &str| {
            for (bed, own, other, moved) in
                [(&ours, &our_ids, &their_ids, replica), (&theirs, &their_ids, &our_ids, MOVED)]
            {
                for pod in bed.pods() {
                    // Whoever was just started is still finding out.
                    let state = &bed.cluster_info(pod.ordinal()).unwrap()["cluster_state"];
                    assert!(state == "ok" || pod.ordinal() == moved, "{while_dns}: {} says {state}", pod.name());
                    let view = view(bed, pod.ordinal()).unwrap();
                    let mut known = view.entries().iter().filter(|node| node.is_known());
                    let merged = known.find(|node| other.contains(&node.id) || !own.contains(&node.id));
                    assert!(merged.is_none(), "{while_dns}: {} knows {merged:?}", pod.name());
                }
            }
        };
        while started.elapsed() < STALE {
            apart("DNS is stale");
            thread::sleep(Duration::from_millis(200));
        }
        wait_whole(&ours);
        wait_whole(&theirs);
        apart("DNS is stale");
        ours.dns().auto(true);
        ours.dns().pod_moved(ours.pod(replica).name(), ours.pod(replica).addr());
        wait_whole(&ours);
        apart("DNS is right again");
        assert_eq!(keys(&ours), before, "{}", valkey.version);
    });
}
