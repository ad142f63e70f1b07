//! `valkeeper bootstrap` on real servers.

use std::time::{Duration, Instant};

use testbed::{Testbed, Valkey, run};

#[test]
fn six_nodes_become_a_cluster() {
    for valkey in Valkey::all() {
        let bed = Testbed::builder(&valkey).pods(6).binary(env!("CARGO_BIN_EXE_valkeeper")).build().unwrap();
        std::thread::sleep(Duration::from_secs(3));
        let t = Instant::now();
        let output = run(
            &mut bed.valkeeper(&["bootstrap", "--timeout", "20s", "--log-level", "debug"]),
            Duration::from_secs(30),
        )
        .unwrap();
        println!(
            "{} {:?}\n{}{}",
            valkey.version,
            t.elapsed(),
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        assert!(output.status.success());
        bed.cli_check(0).unwrap();
        println!("LOG3\n{}\nLOG0\n{}", bed.pod(3).log_tail(), bed.pod(0).log_tail());
        let t = Instant::now();
        let output = run(
            &mut bed.valkeeper(&["bootstrap", "--timeout", "20s", "--log-level", "debug"]),
            Duration::from_secs(30),
        )
        .unwrap();
        println!(
            "{} {:?}\n{}{}",
            valkey.version,
            t.elapsed(),
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
}
