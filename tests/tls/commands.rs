//! What people and probes run beside a cluster that speaks TLS.

use testbed::{Ended, Valkey};

use super::tools::{LIMIT, alone, builder, cluster, valkeeper};

#[test]
fn status_doctor_probes_and_drain_reach_servers_over_tls() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let version = &valkey.version;
        let bed = cluster(builder(valkey, 6));
        let status = valkeeper(&bed, &["status", "--shards", "3", "--replicas", "1"]);
        status.expect(0, &[]);
        assert!(status.stdout.contains("ok, 16384 of 16384 slots served"), "{version}: {status}");
        valkeeper(&bed, &["doctor", "--shards", "3", "--replicas", "1"]).expect(0, &[]);
        let in_pod = |pod, args: &[&str]| Ended::of(&mut bed.valkeeper_in(pod, args), LIMIT).unwrap();
        for probe in ["startup", "liveness", "readiness"] {
            in_pod(0, &["probe", probe]).expect(0, &[]);
        }
        let log = std::fs::read_to_string(bed.pod(0).options().log()).unwrap();
        assert!(!log.contains("Error accepting a client connection"), "{version}: {log}");
        let primary = bed.primaries().unwrap()[0];
        in_pod(primary, &["drain"]).expect(0, &[]);
        assert!(!bed.primaries().unwrap().contains(&primary), "{version}");
        bed.pod(primary).stop().unwrap();
        let dead = in_pod(primary, &["probe", "liveness"]);
        assert_eq!(dead.code, Some(1), "{version}: {dead}");
    });
}
