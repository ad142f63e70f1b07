//! Certificates that must not be used, and those that end.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use testbed::{Authority, Issued, Testbed, Valkey, http_get, wait_for};

use super::tools::{LIMIT, builder, is_shown, name, valkeeper, wait_shown};

const HTTP: &str = ":9121";

/// One pod under `run`, which has not been started.
fn pod(valkey: &Valkey) -> Testbed {
    let bed = builder(valkey, 1).supervised(true).start_servers(false).build().unwrap();
    bed.pod(0).set_run_args(&["--listen", &format!("{}{HTTP}", bed.pod(0).addr())]);
    bed
}

/// Waits until `run` says so in its log, once, and the metric is that.
fn wait_told(bed: &Testbed, why: &str, refused: u8) {
    let address = format!("{}{HTTP}", bed.pod(0).addr()).parse().unwrap();
    let metric = format!("\nvalkeeper_certificate_refused {refused}\n");
    let told = wait_for(why, LIMIT, || {
        let (_, metrics) = http_get(address, "/metrics")?;
        let log = bed.pod(0).run_log();
        ensure!(log.contains(why) && metrics.contains(&metric), "{log}\n{metrics}");
        Ok(Some(log))
    });
    let log = told.unwrap_or_else(|error| panic!("{}: {error:#}", bed.valkey().version));
    assert_eq!(log.matches(why).count(), 1, "{}: {log}", bed.valkey().version);
}

/// One whose text is damaged.
fn damaged(issued: Issued) -> Issued {
    Issued { certificate: issued.certificate.replacen("-----\n", "-----\n*", 1), ..issued }
}

#[test]
fn what_cannot_be_used_is_refused_and_told_and_the_old_certificate_stays() {
    Valkey::each(Valkey::all(), |valkey| {
        let bed = pod(valkey);
        bed.pod(0).start().unwrap();
        let (ours, name) = (bed.tls().authority(), name(&bed, 0));
        let mount = bed.tls().mount(0);
        let mut admin = bed.connection(0).unwrap();
        let used = ours.issue(&[&name]);
        mount.put(&used, ours.certificate()).unwrap();
        wait_shown(&bed, 0, &used);

        let good = || ours.issue(&[&name]);
        let stories: [(&str, Issued); 8] = [
            ("do not belong together", Issued { key: good().key, ..good() }),
            ("cannot read certificates from", damaged(good())),
            ("there is no certificate in", Issued { certificate: String::new(), ..good() }),
            ("cannot read a private key from", Issued { key: String::new(), ..good() }),
            ("authority", Authority::new("another authority").issue(&[&name])),
            ("is not for valkey-0", ours.issue(&["valkey-0.elsewhere"])),
            ("its extended key usage lacks clientAuth", ours.issue_for_server(&[&name])),
            ("expired", ours.issue_expired(&[&name])),
        ];
        for (why, broken) in stories {
            mount.put(&broken, ours.certificate()).unwrap();
            wait_told(&bed, why, 1);
            assert!(is_shown(&bed, 0, &used).unwrap(), "{}: {why}", valkey.version);
            testbed::redis::cmd("PING").exec(&mut admin).unwrap();
            bed.connection(0).unwrap();
        }
        let at_last = good();
        mount.put(&at_last, ours.certificate()).unwrap();
        wait_shown(&bed, 0, &at_last);
        wait_told(&bed, "expired", 0);
        let log = bed.pod(0).run_log();
        assert!(!log.contains("PRIVATE KEY") && !log.contains("BEGIN"), "{log}");
    });
}

#[test]
fn a_certificate_that_is_written_before_its_key_is_used_once_both_are_there() {
    let bed = pod(&Valkey::newest());
    bed.pod(0).start().unwrap();
    let (ours, mount) = (bed.tls().authority(), bed.tls().mount(0));
    let new = ours.issue(&[&name(&bed, 0)]);
    fs::write(mount.certificate(), &new.certificate).unwrap();
    wait_told(&bed, "do not belong together", 1);
    fs::write(mount.key(), &new.key).unwrap();
    wait_shown(&bed, 0, &new);
    wait_told(&bed, "the server and we use the new ones", 0);
}

#[test]
fn a_certificate_that_has_expired_in_use_is_replaced_without_a_restart() {
    const LEFT: Duration = Duration::from_secs(8);
    Valkey::each(Valkey::all(), |valkey| {
        let bed = pod(valkey);
        let (ours, name) = (bed.tls().authority(), name(&bed, 0));
        let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
        bed.tls().mount(0).put(&ours.issue_for(&[&name], now - day, now + LEFT), ours.certificate()).unwrap();
        bed.pod(0).start().unwrap();
        let server = bed.pod(0).server_pid();
        wait_told(&bed, "our certificate is not valid for long, for 0 days: renew it", 0);
        let end = (now + LEFT).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let metric = format!("\nvalkeeper_certificate_expiry_timestamp_seconds {end}\n");
        let (_, metrics) = http_get(format!("{}{HTTP}", bed.pod(0).addr()).parse().unwrap(), "/metrics").unwrap();
        assert!(metrics.contains(&metric), "{metric}{metrics}");
        bed.wait_for("the certificate to expire", LIMIT, || {
            let status = valkeeper(&bed, &["status"]);
            Ok(format!("{status}").contains("its certificate has expired").then_some(()))
        })
        .unwrap();
        wait_told(&bed, "our certificate has expired: nobody trusts this node any more; renew it", 0);
        let new = ours.issue(&[&name]);
        bed.tls().mount(0).put(&new, ours.certificate()).unwrap();
        wait_shown(&bed, 0, &new);
        let status = format!("{}", valkeeper(&bed, &["status"]));
        assert!(!status.contains("expired"), "{}: {status}", valkey.version);
        assert_eq!(bed.pod(0).server_pid(), server, "{}", valkey.version);
    });
}

#[test]
fn that_nobody_s_certificate_is_checked_is_said_whatever_else_is_left_out_of_the_log() {
    let bed = pod(&Valkey::newest());
    let listen = format!("{}{HTTP}", bed.pod(0).addr());
    bed.pod(0).set_run_args(&["--listen", &listen, "--tls-insecure", "--log-level", "error"]);
    bed.pod(0).start().unwrap();
    assert_eq!(bed.pod(0).run_log().matches("--tls-insecure").count(), 1, "{}", bed.pod(0).run_log());
    let (_, metrics) = http_get(listen.parse().unwrap(), "/metrics").unwrap();
    assert!(metrics.contains("\nvalkeeper_tls_insecure 1\n"), "{metrics}");
    for command in ["status", "doctor"] {
        let said = format!("{}", valkeeper(&bed, &[command, "--tls-insecure"]));
        assert!(said.contains("nobody's certificate is checked"), "{said}");
    }
}

/// Nobody trusts the node any more, and yet its data is its own.
#[test]
fn a_server_whose_certificate_has_expired_is_saved_all_the_same_before_it_stops() {
    const LEFT: Duration = Duration::from_secs(5);
    let bed = builder(&Valkey::newest(), 1).supervised(true).config("save", "").start_servers(false).build().unwrap();
    let (ours, name) = (bed.tls().authority(), name(&bed, 0));
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    bed.tls().mount(0).put(&ours.issue_for(&[&name], now - day, now + LEFT), ours.certificate()).unwrap();
    bed.pod(0).start().unwrap();
    bed.form(1, 0).unwrap();
    testbed::fill(&bed, 0, 1_000, 10).unwrap();
    bed.wait_for("the certificate to expire", LIMIT, || Ok((SystemTime::now() > now + LEFT).then_some(()))).unwrap();
    assert!(bed.pod(0).stop().unwrap().success(), "{}", bed.pod(0).run_log());
    assert!(bed.pod(0).run_log().contains("\"outcome\":\"clean\""), "{}", bed.pod(0).run_log());
    bed.tls().mount(0).put(&ours.issue(&[&name]), ours.certificate()).unwrap();
    bed.pod(0).start().unwrap();
    assert_eq!(bed.keys(0).unwrap(), 1_000);
}

/// The server's user of ours may not be told of certificates, say, or the server hangs.
#[test]
fn certificates_that_the_server_cannot_be_told_of_are_said_and_used_by_us() {
    let bed = pod(&Valkey::newest());
    bed.pod(0).start().unwrap();
    bed.pod(0).pause().unwrap();
    let (ours, name) = (bed.tls().authority(), name(&bed, 0));
    let new = ours.issue(&[&name]);
    bed.tls().mount(0).put(&new, ours.certificate()).unwrap();
    wait_told(&bed, "the server cannot be told", 1);
    bed.pod(0).resume().unwrap();
    wait_shown(&bed, 0, &new);
    wait_told(&bed, "the server and we use the new ones", 0);
}
