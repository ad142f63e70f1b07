//! From three shards to five and back.

use testbed::{Valkey, Writer};

use super::clients::Counters;
use super::tools::{LIMIT, alone, assert_settled, builder, cluster, shares, valkeeper, write};

const STILL: usize = 40_000;

#[test]
fn three_shards_become_five_and_three_again_under_clients_that_see_redirects_only() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let bed = cluster(builder(valkey, 5).config("requirepass", "secret"), 3);
        write(&bed, "still", STILL, 100);
        let counters = Counters::start(&bed, 2, "still", STILL);
        let writer = Writer::start_patient(&bed, LIMIT / 6).unwrap();

        let out = valkeeper(&bed, &["rebalance"]);
        let sizes = shares(&bed);
        assert!(sizes.iter().all(|size| (3276..=3277).contains(size)), "{sizes:?}");
        assert_settled(&bed);
        let again = valkeeper(&bed, &["rebalance"]);
        assert_eq!(again["slots_moved"], 0, "{again}");

        let back = valkeeper(&bed, &["evacuate", "valkey-3", "valkey-4"]);
        let sizes = shares(&bed);
        assert_eq!(sizes[3..], [0, 0]);
        assert!(sizes[..3].iter().all(|size| (5461..=5462).contains(size)), "{sizes:?}");
        assert_settled(&bed);
        assert_eq!(back["removable"], serde_json::json!(["valkey-3", "valkey-4"]));

        let version = &valkey.version;
        let tally = counters.stop();
        tally.assert_clean(version);
        let report = writer.stop();
        assert_eq!(report.error_count(), 0, "{version}: {report}");
        assert_eq!(report.verify(&bed).unwrap().keys, 0, "{version}: {report}");
        println!("{version}: out {out:#}\nback {back:#}\n{} answers, {} redirects", tally.answers, tally.redirects);
    });
}
