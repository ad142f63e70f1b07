//! How fast a run may be, and what it says meanwhile.

use std::time::{Duration, Instant};

use testbed::{Ended, Valkey};

use super::tools::{LIMIT, alone, assert_settled, builder, cluster, write};

const KEYS: usize = 2_000;
const RATE: u32 = 60;

#[test]
fn a_run_keeps_to_its_pace_whichever_way_it_moves_slots_and_says_how_far_it_is() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let bed = cluster(builder(valkey, 4), 3);
        write(&bed, "still", KEYS, 100);
        let started = Instant::now();
        let ended = Ended::of(&mut bed.valkeeper(&["rebalance", "--max-rate", &RATE.to_string()]), LIMIT).unwrap();
        let took = started.elapsed();
        ended.expect(0, &[]);
        assert_settled(&bed);
        // The last ones that are let in go at once.
        let moved = bed.keys(3).unwrap();
        let least = Duration::from_secs_f64(0.75 * moved as f64 / f64::from(RATE));
        assert!(took >= least, "{}: {moved} keys in {took:.1?}", valkey.version);
        let line = ended.stderr.lines().find(|line| line.contains(" keys/s, ")).unwrap_or_default();
        assert!(line.contains(" slots, ") && line.ends_with(" s left"), "{}: {}", valkey.version, ended.stderr);
    });
}
