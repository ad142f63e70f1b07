//! What servers ask of clients, and what we ask of servers: by which name, and how long yet.

use std::time::{Duration, SystemTime};

use testbed::{Ended, Testbed, Valkey};

use super::tools::{LIMIT, builder, name, setting, valkeeper, wait_shown};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// As somebody who has no certificate.
fn as_nobody(bed: &Testbed, args: &[&str]) -> Ended {
    let mut command = bed.valkeeper(args);
    command.env_remove("VALKEEPER_TLS_CERT").env_remove("VALKEEPER_TLS_KEY");
    Ended::of(&mut command, LIMIT).unwrap()
}

/// What it prints and logs has all of these.
#[track_caller]
fn assert_says(ended: &Ended, code: i32, texts: &[&str]) {
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(ended.code == Some(code) && texts.iter().all(|text| said.contains(text)), "{code}, {texts:?}: {ended}");
}

#[test]
fn servers_that_want_no_certificate_of_clients_or_any_form_serve_and_take_new_ones_of_their_own() {
    Valkey::each(Valkey::all(), |valkey| {
        for asked in ["yes", "optional", "no"] {
            let who = format!("{}, tls-auth-clients {asked}", valkey.version);
            let bed = builder(valkey, 3).config("tls-auth-clients", asked).supervised(true).build().unwrap();
            bed.form(3, 0).unwrap();
            assert_eq!(setting::<String>(&bed, 0, "tls-auth-clients"), asked);
            assert_says(&valkeeper(&bed, &["status"]), 0, &[]);
            let (code, why) = match asked {
                "yes" => (69, "it asks for a certificate of ours; we have none"),
                _ => (0, "16384 of 16384 slots served"),
            };
            assert_says(&as_nobody(&bed, &["status"]), code, &[why]);
            let renewed = bed.tls().authority().issue(&[&name(&bed, 0)]);
            bed.tls().mount(0).put(&renewed, bed.tls().authority().certificate()).unwrap();
            wait_shown(&bed, 0, &renewed);
            assert!(!bed.pod(0).run_log().contains("WARN"), "{who}: {}", bed.pod(0).run_log());
        }
    });
}

#[test]
fn a_server_is_believed_by_the_name_that_is_asked_for_and_told_of_before_it_no_longer_is() {
    Valkey::each(Valkey::all(), |valkey| {
        const SHARED: &str = "valkey.example.test";
        let bed = builder(valkey, 3).supervised(true).build().unwrap();
        bed.form(3, 0).unwrap();
        let (tls, addresses) = (bed.tls(), [0, 1, 2].map(|pod| bed.pod(pod).addr().to_string()));
        let now = SystemTime::now();
        for (pod, address) in addresses.iter().enumerate() {
            let ends = now + if pod == 0 { 5 * DAY + DAY / 2 } else { 90 * DAY };
            // Nobody can ask the first one for its address.
            let own = name(&bed, pod);
            let names = [&own, SHARED, address];
            let names = if pod == 0 { &names[..2] } else { &names[..] };
            let issued = tls.authority().issue_for(names, now - DAY, ends);
            tls.mount(pod).put(&issued, tls.authority().certificate()).unwrap();
            wait_shown(&bed, pod, &issued);
        }
        let shown = valkeeper(&bed, &["status"]);
        assert_says(&shown, 0, &["certificates are valid for 5 days", "the certificate of valkey-0 expires in 5 days"]);
        assert!(!shown.to_string().contains("the certificate of valkey-1"), "{shown}");
        assert_says(&valkeeper(&bed, &["status", "-o", "json"]), 0, &["\"certificate\""]);

        assert_says(&valkeeper(&bed, &["status", "--tls-server-name", SHARED]), 0, &[]);
        let wrong = valkeeper(&bed, &["status", "--tls-server-name", "valkey.elsewhere.test"]);
        let why = format!("its certificate is not for valkey.elsewhere.test but for {}", name(&bed, 0));
        assert_says(&wrong, 69, &["valkey-0", &why]);

        let first = format!("its certificate is not for {}", addresses[0]);
        let by_address = |pod: usize| valkeeper(&bed, &["status", "--service", &addresses[pod]]);
        assert_says(&by_address(0), 69, &[&first]);
        assert_says(&by_address(1), 1, &["valkey-2", "5462 slots without a primary that answers"]);

        for args in [
            &["status"][..],
            &["doctor"],
            &["bootstrap", "--shards", "3", "--replicas", "0"],
            &["rebalance"],
            &["drain"],
            &["probe", "readiness"],
        ] {
            let mut command = match args[0] {
                "drain" | "probe" => bed.valkeeper_in(2, args),
                _ => bed.valkeeper(args),
            };
            command.env("VALKEEPER_TLS_INSECURE", "true").env("VALKEEPER_LOG_LEVEL", "error");
            let ended = Ended::of(&mut command, LIMIT).unwrap();
            assert!(ended.stderr.contains("--tls-insecure"), "{args:?}: {ended}");
        }
    });
}
