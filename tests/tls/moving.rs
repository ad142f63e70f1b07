//! Slots that move over TLS: whole ones where servers can, else key by key.

use testbed::Valkey;
use testbed::redis::cmd;

use super::tools::{LIMIT, alone, assert_clean, builder, keys, valkeeper, writer};

#[test]
fn slots_with_keys_move_out_and_back_under_a_client_that_writes() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let version = &valkey.version;
        let bed = builder(valkey, 4).start_servers(false).build().unwrap();
        for pod in &bed.pods()[..3] {
            pod.start().unwrap();
        }
        valkeeper(&bed, &["bootstrap", "--replicas", "0"]).expect(0, &[]);
        for primary in bed.primaries().unwrap() {
            // Every call fills a slot of its own.
            (0..20).for_each(|_| testbed::fill(&bed, primary, 50, 100).unwrap());
        }
        let before = keys(&bed);
        bed.pod(3).start().unwrap();
        let (newcomer, first) = (bed.connection(3), bed.pod(0));
        let mut meet = cmd("CLUSTER");
        meet.arg("MEET").arg(first.addr().to_string()).arg(first.port()).exec(&mut newcomer.unwrap()).unwrap();
        bed.wait_for("everybody to know everybody", LIMIT, || {
            let nodes = (0..4).map(|pod| bed.cluster_nodes(pod)).collect::<Result<String, _>>()?;
            Ok((nodes.matches(" connected").count() == 16 && !nodes.contains("handshake")).then_some(()))
        })
        .unwrap();
        let writer = writer(&bed);
        valkeeper(&bed, &["rebalance"]).expect(0, &[]);
        assert_eq!(bed.primaries().unwrap(), [0, 1, 2, 3], "{version}");
        valkeeper(&bed, &["evacuate", "valkey-3"]).expect(0, &[]);
        assert_eq!(bed.primaries().unwrap(), [0, 1, 2], "{version}");
        bed.wait_for("valkey-cli to find nothing wrong", LIMIT, || bed.cli_check(0).map(Some)).unwrap();
        let report = writer.stop();
        assert_clean(&bed, &report);
        assert_eq!(keys(&bed), before + report.acknowledged(), "{version}: {report}");
        println!("{version}: {report}");
    });
}
