//! Pods that are told no shape keep the one that stands.

use testbed::{Testbed, Valkey};

use crate::tools::{LIMIT, ids, view};

#[test]
fn without_a_shape_a_cluster_of_any_size_is_kept_as_it_stands() {
    Valkey::each(Valkey::all(), |valkey| {
        let bed = Testbed::builder(valkey)
            .pods(4)
            .binary(env!("CARGO_BIN_EXE_valkeeper"))
            .in_memory(true)
            .config("repl-diskless-sync-delay", "0")
            .supervised(true)
            .build()
            .unwrap();
        bed.form(2, 1).unwrap();
        let primaries = bed.primaries().unwrap();
        let replica = (0..4).find(|pod| !primaries.contains(pod)).unwrap();
        bed.pod(replica).lose_disk().unwrap();
        bed.pod(replica).start().unwrap();
        bed.wait_for("the new node to have a place and the old one to be forgotten", LIMIT, || {
            let known = ids(&bed)?;
            for pod in 0..4 {
                let view = view(&bed, pod)?;
                anyhow::ensure!(view.entries().len() == known.len(), "valkey-{pod} knows {:?}", view.entries());
            }
            let place = view(&bed, replica)?.myself().role;
            anyhow::ensure!(!place.is_primary(), "{place}");
            Ok(Some(()))
        })
        .unwrap();
        bed.wait_in_sync(LIMIT).unwrap();
        assert_eq!(bed.primaries().unwrap(), primaries, "{}", valkey.version);
    });
}
