//! Who cannot prove who they are.

use testbed::{Authority, Ended, Issued, Testbed, Valkey};

use super::tools::{LIMIT, alone, builder, cluster, valkeeper, wait_whole};

/// A replica's pod at first.
const PEER: usize = 4;

/// What every node knows of the others, without times, links and whom it suspects.
fn views(bed: &Testbed) -> Vec<String> {
    let stable = |line: &str| {
        let words = line.split(' ').enumerate().filter(|(place, _)| !matches!(place, 4..=7));
        words.map(|(_, word)| word.replace(",fail?", "").replace(",fail", "")).collect::<Vec<_>>().join(" ")
    };
    let others = bed.pods().iter().map(|pod| pod.ordinal()).filter(|pod| *pod != PEER);
    others
        .map(|pod| {
            let mut lines: Vec<_> = bed.cluster_nodes(pod).unwrap().lines().map(stable).collect();
            lines.sort();
            lines.join("\n")
        })
        .collect()
}

/// The peer comes back with that certificate.
fn come_back_with(bed: &Testbed, issued: &Issued, authorities: &str) {
    bed.tls().mount(PEER).put(issued, authorities).unwrap();
    bed.pod(PEER).stop().unwrap();
    bed.pod(PEER).start().unwrap();
}

#[test]
fn a_peer_that_cannot_prove_who_it_is_is_named_with_what_is_wrong_and_nothing_is_done() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let version = &valkey.version;
        let bed = cluster(builder(valkey, 6));
        let tls = bed.tls();
        let (ours, name) = (tls.authority(), tls.name("valkey-4"));
        let another = Authority::new("another authority");
        let both = format!("{}{}", ours.certificate(), another.certificate());
        let stories = [
            (another.issue(&[&name]), "its certificate is of an authority that is not in".to_owned()),
            (
                ours.issue(&["valkey-4.elsewhere.test"]),
                format!("its certificate is not for {name} but for valkey-4.elsewhere.test"),
            ),
            (
                ours.issue(&[&tls.name("valkey-5")]),
                format!("its certificate is not for {name} but for {}", tls.name("valkey-5")),
            ),
            (ours.issue_expired(&[&name]), "its certificate has expired".to_owned()),
        ];
        let before = views(&bed);
        for (issued, why) in &stories {
            come_back_with(&bed, issued, &both);
            let who = format!("valkey-4 ({}:6379)", bed.pod(PEER).addr());
            for args in [&["status"][..], &["doctor"]] {
                let ended = valkeeper(&bed, args);
                let said = format!("{}{}", ended.stdout, ended.stderr);
                assert!(
                    ended.code == Some(1) && said.contains("valkey-4") && said.contains(why),
                    "{version}: {why}: {ended}"
                );
            }
            let ended = valkeeper(&bed, &["bootstrap", "--timeout", "2s"]);
            assert!(ended.stderr.contains(why) && ended.stderr.contains(&who), "{version}: {why}: {ended}");
            assert_ne!(ended.code, Some(0), "{version}: {why}: {ended}");
            assert_eq!(views(&bed), before, "{version}: {why}");
        }
        come_back_with(&bed, &ours.issue(&[&name]), ours.certificate());
        wait_whole(&bed);
    });
}

#[test]
fn a_peer_without_tls_is_named_and_left_alone() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let bed = cluster(builder(valkey, 6));
        bed.pod(PEER).stop().unwrap();
        let before = views(&bed);
        let mut options = bed.pod(PEER).options();
        options.dir = bed.dir().join("plain");
        options.config.retain(|(name, _)| !name.contains("tls") && name != "port");
        let mut server = testbed::Server::start(options).unwrap();
        server.wait_ready(LIMIT).unwrap();
        let ended = valkeeper(&bed, &["bootstrap", "--timeout", "6s"]);
        let who = format!("valkey-4 ({}:6379)", bed.pod(PEER).addr());
        assert!(ended.stderr.contains("speak TLS") && ended.stderr.contains(&who), "{ended}");
        assert_eq!(views(&bed), before, "{}", valkey.version);
    });
}

#[test]
fn when_servers_do_not_believe_us_every_command_says_why() {
    let _alone = alone();
    Valkey::each(Valkey::all(), |valkey| {
        let version = &valkey.version;
        let bed = cluster(builder(valkey, 6));
        let another = Authority::new("another authority");
        let strange = testbed::Mount::at(bed.dir().join("strange"));
        strange.put(&another.issue(&["client"]), another.certificate()).unwrap();
        let expired = testbed::Mount::at(bed.dir().join("expired"));
        expired.put(&bed.tls().authority().issue_expired(&["client"]), another.certificate()).unwrap();
        let before = views(&bed);
        let stories = [
            (None, "it asks for a certificate of ours; we have none: --tls-cert and --tls-key".to_owned()),
            (
                Some(&strange),
                format!(
                    "it does not know the authority of our certificate; ours is {}",
                    strange.certificate().display()
                ),
            ),
            (Some(&expired), format!("our certificate has expired; ours is {}", expired.certificate().display())),
        ];
        for (mount, why) in &stories {
            for args in [
                &["status"][..],
                &["doctor"],
                &["bootstrap", "--timeout", "2s"],
                &["rebalance", "--timeout", "2s"],
                &["drain"],
                &["probe", "readiness"],
            ] {
                let mut command = match args[0] {
                    "drain" | "probe" => bed.valkeeper_in(0, args),
                    _ => bed.valkeeper(args),
                };
                match mount {
                    None => command.env_remove("VALKEEPER_TLS_CERT").env_remove("VALKEEPER_TLS_KEY"),
                    Some(mount) => {
                        command.env("VALKEEPER_TLS_CERT", mount.certificate()).env("VALKEEPER_TLS_KEY", mount.key())
                    }
                };
                let ended = Ended::of(&mut command, LIMIT).unwrap();
                let said = format!("{}{}", ended.stdout, ended.stderr);
                assert!(said.contains(why), "{version}: {args:?}: {why}: {ended}");
                assert_ne!(ended.code, Some(0), "{version}: {args:?}: {ended}");
            }
        }
        assert_eq!(views(&bed), before, "{version}");
    });
}
