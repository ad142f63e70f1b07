//! A run that is killed at any moment, and the one that comes after.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testbed::{Ended, Testbed, Valkey};

use super::clients::Counters;
use super::tools::{LIMIT, alone, assert_settled, builder, cluster, shares, spawn, valkeeper, write};

const STILL: usize = 8_000;

/// How many runs are killed, on all versions together; `VALKEEPER_KILLS` for another number.
fn kills() -> u32 {
    std::env::var("VALKEEPER_KILLS").map_or(50, |kills| kills.parse().unwrap())
}

/// Numbers that look random, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn seed() -> u64 {
        let given = std::env::var("VALKEEPER_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = given.unwrap_or(u64::from(now.subsec_nanos()));
        println!("VALKEEPER_KILL_SEED={seed}");
        seed | 1
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn a_run_killed_at_any_moment_is_finished_by_the_next_and_nothing_is_lost() {
    let _alone = alone();
    let seed = Chance::seed();
    let versions = Valkey::all();
    let kills = kills().div_ceil(versions.len().try_into().unwrap());
    Valkey::each(versions, |valkey| {
        let mut chance = Chance(seed);
        // To and fro between three primaries and four. An emptied primary stays one, and can be filled again.
        let alone = cluster(builder(valkey, 4).config("cluster-allow-replica-migration", "no"), 3);
        let ways: [Way; 2] = [(&["rebalance"], 3, 4096), (&["rebalance", "--weight", "valkey-3=0"], 3, 0)];
        assert_finished(&alone, &mut chance, kills - kills / 3, ways);
        // And with replicas, as servers are by themselves.
        let copied = builder(valkey, 6).config("repl-diskless-sync-delay", "0").build().unwrap();
        copied.form(3, 1).unwrap();
        let ways: [Way; 2] = [(&["rebalance", "--weight", "valkey-0=2"], 0, 8192), (&["rebalance"], 0, 5462)];
        assert_finished(&copied, &mut chance, kills / 3, ways);
    });
}

/// What a run is told, and how many slots that pod owns afterwards.
type Way = (&'static [&'static str], usize, usize);

/// Of so many runs, to and fro, each is killed at some moment and run again.
fn assert_finished(bed: &Testbed, chance: &mut Chance, kills: u32, ways: [Way; 2]) {
    let version = &bed.valkey().version;
    write(bed, "still", STILL, 100);
    let counters = Counters::start(bed, 1, "still", STILL);
    let mut halfway = 0;
    for kill in 0..kills {
        let (args, pod, wanted) = ways[kill as usize % 2];
        let mut run = spawn(bed, args);
        // A whole run takes a second or less.
        thread::sleep(Duration::from_micros(chance.below(1_000_000)));
        run.kill().unwrap();
        run.wait().unwrap();
        let report = valkeeper(bed, args);
        halfway += report["slots_resumed"].as_u64().unwrap();
        assert_eq!(shares(bed)[pod], wanted, "{version}, kill {kill}: {report}");
        assert_settled(bed);
    }
    counters.stop().assert_clean(version);
    let keys: u64 = bed.primaries().unwrap().into_iter().map(|pod| bed.keys(pod).unwrap()).sum();
    assert_eq!(keys, STILL as u64 + 500, "{version}");
    println!("{version}: {halfway} slots were left half-way");
}

#[test]
fn a_run_that_is_told_to_stop_leaves_the_rest_to_the_next() {
    let _alone = alone();
    let bed = cluster(builder(&Valkey::newest(), 4), 3);
    write(&bed, "still", STILL, 100);
    let run = ["rebalance", "--max-rate", "300"];
    let ended = Ended::of(&mut bed.valkeeper(&[&run[..], &["--timeout", "2s"]].concat()), LIMIT).unwrap();
    ended.expect(75, &["the deadline is reached", "run this again to go on"]);
    let between = shares(&bed)[3];
    assert!((1..4096).contains(&between), "{between}");
    assert_settled(&bed);
    valkeeper(&bed, &["rebalance"]);
    assert_eq!(shares(&bed), [4096; 4]);
    assert_settled(&bed);
}
