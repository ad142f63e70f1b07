//! Five passwords one after the other, under clients that write.

use std::thread;
use std::time::{Duration, Instant};

use testbed::redis::{Connection, cmd};
use testbed::{Valkey, Writer};

use crate::tools::{LIMIT, Pods, count};

const OVERLAP: Duration = Duration::from_secs(2);
const SHARDS: u8 = 3;

#[test]
fn five_passwords_change_under_load_and_nobody_notices() {
    Valkey::each(Valkey::all(), |valkey| {
        let mut pods = Pods::form(valkey, SHARDS, "password-0", &["--password-overlap", "2s"]);
        let mut admins: Vec<_> = (0..pods.count()).map(|pod| pods.log_in(pod, "password-0").unwrap()).collect();
        let writer = Writer::start_patient(&pods.bed, Duration::from_secs(3)).unwrap();
        let full_syncs = sum(&mut admins, "sync_full");
        let (mut most_connections, started) = (0, Instant::now());
        for turn in 1..=5 {
            let connected: Vec<_> = admins.iter_mut().map(|admin| count(admin, "total_connections_received")).collect();
            let tried = rotate(&mut pods, &mut admins, turn);
            let connected = admins
                .iter_mut()
                .zip(connected)
                .map(|(admin, before)| count(admin, "total_connections_received") - before - tried);
            most_connections = most_connections.max(connected.max().unwrap());
        }
        let took = started.elapsed();
        let full_syncs = sum(&mut admins, "sync_full") - full_syncs;
        pods.bed.set_password("password-5");
        pods.bed.wait_in_sync(LIMIT).unwrap();
        let report = writer.stop();
        let version = &valkey.version;
        println!(
            "{version}: five passwords in {took:.1?}, {most_connections} connections at most to a server in one turn, \
             {full_syncs} full syncs\n{report}"
        );
        assert_eq!((report.error_count(), report.reconnects()), (0, 0), "{version}: {report}");
        assert_eq!(report.verify(&pods.bed).unwrap().keys, 0, "{version}: {report}");
        assert!(report.acknowledged() > 1_000, "{version}: {report}");
        assert_eq!(full_syncs, 0, "{version}");
        assert!(most_connections <= 30, "{version}: {most_connections}");
        for pod in pods.bed.pods() {
            let log = pod.run_log();
            assert!(!log.contains("password-"), "{version}: the log shows a password:\n{log}");
            assert!(log.contains("the server refuses the former password from now on"), "{version}: {log}");
        }
    });
}

/// From one password to the next, each pod in its own time. Says how many connections to each server that took us.
fn rotate(pods: &mut Pods, admins: &mut [Connection], turn: usize) -> u64 {
    let [old, new] = [turn - 1, turn].map(|number| format!("password-{number}"));
    let number = pods.count();
    // Each time another pod is the first, and every other time they go the other way round.
    let order = (0..number).map(|place| if turn.is_multiple_of(2) { number - 1 - place } else { place });
    for (place, pod) in order.map(|place| (place + turn) % number).enumerate() {
        pods.change(pod, &new);
        thread::sleep(Duration::from_millis(if place == 0 { 700 } else { 150 }));
        pods.log_in(pod, &old).unwrap_or_else(|error| panic!("turn {turn}: pod {pod} refuses the old one: {error:#}"));
        // Between the first and the last, the links of replicas are cut.
        if turn == 3 && place == number / 2 {
            admins.iter_mut().for_each(|admin| cmd("CLIENT").arg(&["KILL", "TYPE", "replica"]).exec(admin).unwrap());
        }
    }
    let all_have_it = Instant::now();
    pods.wait_accepted(admins, &new);
    for pod in 0..number {
        let both = [&old, &new].map(|password| pods.log_in(pod, password).map(drop));
        assert!(both.iter().all(Result::is_ok) || all_have_it.elapsed() >= OVERLAP, "turn {turn}, pod {pod}: {both:?}");
    }
    pods.wait_settled(admins, &new);
    assert!(all_have_it.elapsed() >= OVERLAP, "turn {turn}: refused after {:?}", all_have_it.elapsed());
    for pod in 0..number {
        assert!(pods.log_in(pod, &old).is_err() && pods.log_in(pod, &new).is_ok(), "turn {turn}, pod {pod}");
    }
    // One after its file has changed, two while both are valid, two in the end.
    5
}

fn sum(admins: &mut [Connection], field: &str) -> u64 {
    admins.iter_mut().map(|admin| count(admin, field)).sum()
}
