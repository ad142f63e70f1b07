//! A minority that is cut off: nothing is done there, nothing is done to it, and afterwards all is well by itself.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testbed::{Networks, Testbed, Valkey};
use valkeeper::topology::{NodeId, Role, SlotSet};

use crate::tools::{LIMIT, fill, ids, keys, pods, view, wait_whole};

/// The primary of shard 0, and a replica of shard 1: one of three primaries is no majority.
const MINORITY: [usize; 2] = [0, 4];
/// The heir in shard 0, and whose view is asked.
const HEIR: usize = 3;
/// Several node timeouts.
const LONG: Duration = Duration::from_secs(10);

/// What a node takes for granted: who there is, as what, and with which slots.
fn beliefs(bed: &Testbed, pod: usize) -> Result<Vec<(NodeId, Role, SlotSet)>> {
    let view = view(bed, pod)?;
    Ok(view.entries().iter().map(|node| (node.id, node.role, node.slot_set())).collect())
}

#[test]
fn a_minority_that_is_cut_off_is_left_alone_and_comes_back_whole() {
    Valkey::each(Valkey::all(), cut_off);
}

fn cut_off(valkey: &Valkey) {
    Networks::with(|networks| {
        let bed = pods(valkey).config("cluster-node-timeout", "3000").supervised(true).start_servers(false).build()?;
        let is_there = |pod: &usize| MINORITY.contains(pod);
        let addresses = |is_wanted: &dyn Fn(&usize) -> bool| -> Vec<Ipv4Addr> {
            bed.pods().iter().filter(|pod| is_wanted(&pod.ordinal())).map(|pod| pod.addr()).collect()
        };
        let IpAddr::V4(dns) = bed.dns().addr().ip() else {
            unreachable!("the test bed's DNS has an address of its network")
        };
        let here = [addresses(&|pod| !is_there(pod)), vec![dns]].concat();
        networks.share(&here, &addresses(&is_there))?;
        for pod in bed.pods() {
            match is_there(&pod.ordinal()) {
                true => networks.there(|| pod.start())?,
                false => pod.start()?,
            }
        }
        bed.form(3, 1)?;
        assert_eq!(bed.primaries()?, [0, 1, 2]);
        let before = fill(&bed);
        wait_whole(&bed);
        let known = ids(&bed)?;
        let there = |pod: usize| networks.there(|| Ok((beliefs(&bed, pod)?, bed.keys(pod)?)));
        let believed = [there(MINORITY[0])?, there(MINORITY[1])?];
        let logged = MINORITY.map(|pod| bed.pod(pod).run_log().len());

        networks.cut()?;
        let started = Instant::now();
        bed.wait_for("the heir to take over", LIMIT, || {
            let view = view(&bed, HEIR)?;
            ensure!(view.myself().owns_slots(), "{:?}", view.myself());
            Ok(Some(()))
        })?;
        // Acknowledged by the majority while the minority knows nothing of it.
        bed.wait_for("the heir to take writes", LIMIT, || testbed::fill(&bed, HEIR, 500, 100).map(Some))?;
        while started.elapsed() < LONG {
            for (pod, believed) in MINORITY.into_iter().zip(&believed) {
                assert_eq!(&there(pod)?, believed, "pod {pod}");
            }
            let known_here: Vec<_> = beliefs(&bed, HEIR)?.into_iter().map(|(id, ..)| id).collect();
            assert!(known.iter().all(|id| known_here.contains(id)), "{known_here:?} of {known:?}");
        }
        for (pod, logged) in MINORITY.into_iter().zip(logged) {
            let state = networks.there(|| Ok(bed.cluster_info(pod)?["cluster_state"].clone()))?;
            assert_eq!(state, "fail", "pod {pod}");
            let log = bed.pod(pod).run_log();
            assert!(!log[logged..].contains("stage"), "pod {pod}: {}", &log[logged..]);
        }

        networks.mend()?;
        let took = wait_whole(&bed);
        println!("{}: whole {took:.1?} after the end of the partition", bed.valkey().version);
        assert_eq!((ids(&bed)?, keys(&bed)), (known, before + 500));
        assert!(view(&bed, HEIR)?.myself().owns_slots(), "what the majority has acknowledged is what counts");
        Ok(())
    })
    .unwrap();
}
