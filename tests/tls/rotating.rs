//! Certificates that change under `run`, as a mounted secret does.

use std::thread;
use std::time::{Duration, Instant};

use testbed::redis::{Connection, cmd};
use testbed::{Authority, Issued, Testbed, Valkey};

use super::tools::{LIMIT, alone, assert_clean, builder, cluster, keys, name, wait_shown, writer};

const CHANGED: &str = "the certificates have changed: the server and we use the new ones";

/// All of them on every version; without it each version takes its part.
const ALL: &str = "VALKEEPER_ROTATION_POINTS";
const POINTS: usize = 20;
/// Files are looked at once a second, and used half a second after they have settled.
const APART: Duration = Duration::from_millis(110);

#[test]
fn five_certificates_change_under_load_and_nobody_notices() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let version = &valkey.version;
        let bed = cluster(builder(valkey, 6).supervised(true));
        // These stay open all the time.
        let mut admins: Vec<_> = (0..6).map(|pod| bed.connection(pod).unwrap()).collect();
        let writer = writer(&bed);
        let full_syncs = sum(&mut admins, "sync_full");
        let (ours, next) = (bed.tls().authority(), Authority::new("the next authority"));
        let both = format!("{}{}", ours.certificate(), next.certificate());
        let (mut most_connections, started) = (0, Instant::now());
        // Another authority comes as it must: first it is believed by all, then it signs.
        let turns =
            [(ours, ours.certificate()), (ours, ours.certificate()), (ours, &both), (&next, &both), (&next, &both)];
        for (turn, (authority, believed)) in turns.into_iter().enumerate() {
            let before: Vec<_> = admins.iter_mut().map(|admin| count(admin, "total_connections_received")).collect();
            let mut asked = vec![0; 6];
            let mut issued: Vec<(usize, Issued)> = Vec::new();
            for place in 0..6 {
                // Each time another pod is the first, and every other time they go the other way round.
                let pod = (if turn.is_multiple_of(2) { place } else { 5 - place } + turn) % 6;
                let new = authority.issue(&[&name(&bed, pod)]);
                bed.tls().mount(pod).put(&new, believed).unwrap();
                issued.push((pod, new));
                thread::sleep(Duration::from_millis(150));
            }
            for (pod, new) in &issued {
                asked[*pod] += wait_shown(&bed, *pod, new);
            }
            let connected = admins.iter_mut().zip(before).zip(asked);
            let connected =
                connected.map(|((admin, before), asked)| count(admin, "total_connections_received") - before - asked);
            most_connections = most_connections.max(connected.max().unwrap());
        }
        let took = started.elapsed();
        bed.wait_in_sync(LIMIT).unwrap();
        let full_syncs = sum(&mut admins, "sync_full") - full_syncs;
        let report = writer.stop();
        println!(
            "{version}: five certificates in {took:.1?}, {most_connections} connections at most to a server in one turn, \
             {full_syncs} full syncs\n{report}"
        );
        assert_clean(&bed, &report);
        assert_eq!((report.reconnects(), full_syncs), (0, 0), "{version}: {report}");
        assert!(most_connections <= 30, "{version}: {most_connections}");
        for pod in bed.pods() {
            let log = pod.run_log();
            assert_eq!(log.matches(CHANGED).count(), 5, "{version}: {log}");
            assert!(!log.contains("cannot be used"), "{version}: {log}");
        }
        // What is connected anew is believed, by us, by replicas and on the bus.
        let primary = bed.primaries().unwrap()[0];
        cmd("CLIENT").arg(&["KILL", "TYPE", "replica"]).exec(&mut admins[primary]).unwrap();
        bed.wait_in_sync(LIMIT).unwrap();
        bed.tls().clients().put(&next.issue(&["client"]), &both).unwrap();
        bed.form(3, 1).unwrap();
    });
}

#[test]
fn pods_killed_at_any_point_come_back_and_end_up_with_the_new_certificate() {
    let versions = Valkey::all();
    let number = if std::env::var_os(ALL).is_some() { 1 } else { versions.len() };
    Valkey::each(versions.clone(), |valkey| {
        let place = versions.iter().position(|other| other == valkey).unwrap() % number;
        let bed = builder(valkey, 4).supervised(true).run_args(&["--shards", "2"]).build().unwrap();
        bed.form(2, 1).unwrap();
        for primary in bed.primaries().unwrap() {
            testbed::fill(&bed, primary, 500, 100).unwrap();
        }
        bed.wait_in_sync(LIMIT).unwrap();
        let before = keys(&bed);
        for point in (0..POINTS).filter(|point| point % number == place) {
            let started = Instant::now();
            killed_at(&bed, point);
            println!("{}: killed at point {point}: whole again after {:.1?}", valkey.version, started.elapsed());
            assert_eq!(keys(&bed), before, "{}", valkey.version);
        }
    });
}

/// Changes all certificates, and kills a pod so long after.
fn killed_at(bed: &Testbed, point: usize) {
    let authority = bed.tls().authority();
    let issued: Vec<Issued> = (0..4).map(|pod| authority.issue(&[&name(bed, pod)])).collect();
    for (pod, issued) in issued.iter().enumerate() {
        bed.tls().mount(pod).put(issued, authority.certificate()).unwrap();
    }
    thread::sleep(APART * u32::try_from(point).unwrap());
    let victim = bed.pod(point % 4);
    victim.kill().unwrap();
    victim.start().unwrap();
    for (pod, issued) in issued.iter().enumerate() {
        wait_shown(bed, pod, issued);
    }
    bed.wait_in_sync(LIMIT).unwrap();
}

fn sum(admins: &mut [Connection], field: &str) -> u64 {
    admins.iter_mut().map(|admin| count(admin, field)).sum()
}

/// A field of INFO as a number.
fn count(admin: &mut Connection, field: &str) -> u64 {
    let text: String = cmd("INFO").arg("stats").query(admin).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}
