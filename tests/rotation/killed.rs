//! Pods that die while the password changes.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use testbed::redis::Connection;
use testbed::{Valkey, fill};

use crate::tools::{LIMIT, Pods};

/// All of them on every version; without it each version takes its part.
const ALL: &str = "VALKEEPER_ROTATION_POINTS";
const POINTS: usize = 21;
/// A changeover takes some two seconds with an overlap of one.
const APART: Duration = Duration::from_millis(110);
/// From one pod's file to the next one's.
const BETWEEN: Duration = Duration::from_millis(180);

#[test]
fn pods_killed_at_any_point_come_back_and_end_up_with_the_new_password_alone() {
    let versions = Valkey::all();
    let number = if env::var_os(ALL).is_some() { 1 } else { versions.len() };
    Valkey::each(versions.clone(), |valkey| {
        let place = versions.iter().position(|other| other == valkey).unwrap() % number;
        let mut pods = Pods::form(valkey, 2, "password-0", &["--password-overlap", "1s"]);
        let keys: u64 = pods
            .bed
            .primaries()
            .unwrap()
            .into_iter()
            .map(|primary| {
                fill(&pods.bed, primary, 500, 100).unwrap();
                pods.bed.keys(primary).unwrap()
            })
            .sum();
        pods.bed.wait_in_sync(LIMIT).unwrap();
        for (turn, point) in (0..POINTS).filter(|point| point % number == place).enumerate() {
            let started = Instant::now();
            killed_at(&mut pods, turn, point);
            println!("{}: killed at point {point}: whole again after {:.1?}", valkey.version, started.elapsed());
        }
        let primaries = pods.bed.primaries().unwrap();
        let now: u64 = primaries.into_iter().map(|primary| pods.bed.keys(primary).unwrap()).sum();
        assert_eq!(now, keys, "{}", valkey.version);
    });
}

/// Changes the password, and kills a pod so long after the first file has changed.
fn killed_at(pods: &mut Pods, turn: usize, point: usize) {
    let new = format!("password-{}", turn + 1);
    let number = pods.count();
    let (at, victim) = (APART * u32::try_from(point).unwrap(), point % number);
    let started = Instant::now();
    let mut changed = 0;
    // The pods see it one after the other, also while one of them is away.
    let mut until = |pods: &mut Pods, time: Duration| loop {
        let now = started.elapsed();
        while changed < number && now >= BETWEEN * u32::try_from(changed).unwrap() {
            pods.change((changed + turn) % number, &new);
            changed += 1;
        }
        if now >= time {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    };
    until(pods, at);
    pods.bed.pod(victim).kill().unwrap();
    until(pods, at + Duration::from_millis(50));
    pods.bed.pod(victim).spawn().unwrap();
    until(pods, at.max(BETWEEN * u32::try_from(number).unwrap()));
    pods.bed.pod(victim).wait_ready().unwrap();
    let mut admins: Vec<Connection> = (0..number)
        .map(|pod| {
            pods.bed.wait_for("a login with the new password", LIMIT, || Ok(pods.log_in(pod, &new).ok())).unwrap()
        })
        .collect();
    pods.wait_settled(&mut admins, &new);
    pods.bed.set_password(&new);
    pods.bed.wait_in_sync(LIMIT).unwrap();
    for pod in 0..number {
        assert!(pods.log_in(pod, &format!("password-{turn}")).is_err(), "pod {pod} accepts the old password");
    }
}
