//! Flags and environment.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser as _;
use testbed::die_with_parent;
use valkeeper::cli::{Cli, FindArgs};
use valkeeper::config::{self, Credentials, Reach, Service};

use crate::engine::fuzz;
use crate::owned;

/// What is printed of an option's value is as long as the value, and some of it twice.
const PRINTED: usize = 32 << 10;

#[test]
fn flags() {
    let corpus = owned(&[
        "bootstrap\n--service\nvalkey.prod.svc.cluster.local.\n--shards\n3\n--replicas=1\n--timeout\n5m\n--dry-run\n-o\njson",
        "run\n--grace-period\n30s\n--listen\n0.0.0.0:8080\n--zone\neu-1a\n--pod-ip\nfd00::1\n--\nvalkey-server\n/etc/valkey.conf",
        "drain\n--mode\nstandalone\n--save\nalways\n--delay=500ms\n--port\n6379\n--username\napp",
        "status\n--service\n_tcp-valkey._tcp.valkey.ns\n--dns-server\n10.0.0.10:53,[::1]:53\n--shards\n3\n--replicas\n1\n--watch",
        "rebalance\n--service\n10.0.3.7\n--weight\nvalkey-3=2,valkey-4=0\n--max-rate\n1000\n--cluster-id\na.b",
        "evacuate\nvalkey-8\nvalkey-9\n--shards\n4\n--service\nx.\n--statefulset\nvalkey",
        "probe\nreadiness\n--timeout\n1s\n--data-dir\n/data\n--log-level\ntrace\n--log-format\njson",
        "local\n--shards\n3\n--server\nvalkey-server\n--tls",
        "acl\n--username\napp\n--role\nwatch\n--fixed-password\n--password-file\n/secrets/password",
        "install\n/shared",
        "status\n--tls\n--tls-ca\n/tls/ca.crt\n--tls-cert\n/tls/tls.crt\n--tls-key\n/tls/tls.key\n--tls-server-name\nvalkey\n--tls-insecure",
    ]);
    fuzz("flags", &corpus, |bytes| {
        let words = bytes.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
        match Cli::try_parse_from([OsString::from("valkeeper")].into_iter().chain(words)) {
            Ok(cli) => assert!(format!("{cli:?}").len() < 16 * bytes.len() + PRINTED),
            Err(error) => assert!(error.to_string().len() < 16 * bytes.len() + PRINTED),
        }
        for word in bytes.split(|byte| *byte == b'\n').take(8) {
            let text = String::from_utf8_lossy(word);
            let _ = config::weight(&text);
            if let Ok(duration) = config::duration(&text) {
                assert_eq!(config::duration(&humantime::format_duration(duration).to_string()), Ok(duration), "{text}");
            }
            for dns_server in [text.clone().into_owned(), "127.0.0.1".to_owned()] {
                let statefulset = Some(text.clone().into_owned());
                let args = FindArgs { statefulset, dns_server: vec![dns_server], cluster_id: None };
                if let Ok(service) = Service::new(&text, &args.dns_server) {
                    let _ = Reach::through(service, &args, 6379, Credentials::default());
                }
            }
        }
    });
}

/// One variable each, `NAME=VALUE`, for a run that ends as soon as it has read them all.
#[test]
fn environment() {
    let corpus = owned(&[
        "VALKEEPER_SERVICE=valkey.prod.svc.cluster.local.",
        "VALKEEPER_STATEFULSET=valkey",
        "VALKEEPER_PORT=6379",
        "VALKEEPER_DNS_SERVER=127.0.0.1:5353,[::1]:53",
        "VALKEEPER_CLUSTER_ID=valkey.prod",
        "VALKEEPER_SHARDS=3",
        "VALKEEPER_REPLICAS=1",
        "POD_NAME=valkey-0",
        "POD_IP=127.0.0.1",
        "VALKEEPER_GRACE_PERIOD=30s",
        "VALKEEPER_DELAY=1m 500ms",
        "VALKEEPER_SAVE=always",
        "VALKEEPER_HANDOVER_TIMEOUT=10s",
        "VALKEEPER_ON_PRIMARY_LOST=wait",
        "VALKEEPER_LISTEN=127.0.0.1:0",
        "VALKEEPER_AOF_FROM_RDB=true",
        "VALKEEPER_ZONE=eu-1a",
        "VALKEEPER_BOOTSTRAP=true",
        "VALKEEPER_LOG_FORMAT=json",
        "VALKEEPER_LOG_LEVEL=trace",
        "VALKEEPER_USERNAME=app",
        "VALKEEPER_PASSWORD_FILE=/no/such/file",
        "VALKEY_PASSWORD=secret",
        "VALKEEPER_PASSWORD_OVERLAP=2m",
        "VALKEEPER_DATA_DIR=/data",
        "VALKEEPER_TLS=true",
        "VALKEEPER_TLS_CA=/no/such/file",
        "VALKEEPER_TLS_INSECURE=true",
        "VALKEEPER_TLS_SERVER_NAME=valkey",
        "VALKEEPER_AUTO_REBALANCE=true",
    ]);
    fuzz("environment", &corpus, |bytes| {
        let text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).take(4_096).collect();
        let Some(place) = text.iter().position(|byte| *byte == b'=').filter(|place| *place > 0) else { return };
        let (name, value) =
            (OsString::from_vec(text[..place].to_vec()), OsString::from_vec(text[place + 1..].to_vec()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_valkeeper"));
        command.args(["run", "--mode", "standalone", "--", "/no/such/program"]).env_clear().env(name, value);
        die_with_parent(&mut command);
        let started = Instant::now();
        let mut run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = Vec::new();
        run.stderr.take().unwrap().read_to_end(&mut said).unwrap();
        let status = run.wait().unwrap();
        let text = String::from_utf8_lossy(&said);
        // Usage, an address that cannot be listened on, or the program that is not there.
        assert!(status.code().is_some_and(|code| [64, 71, 127].contains(&code)), "{status}: {text}");
        assert!(said.len() < PRINTED + 16 * bytes.len(), "{} bytes: {text}", said.len());
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    });
}
