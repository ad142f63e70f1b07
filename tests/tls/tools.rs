//! Clusters that speak TLS, and what holds of any of them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::redis::{FromRedisValue, cmd};
use testbed::{Builder, Ended, Issued, Report, Testbed, Valkey, Writer, fill};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Longer than a busy machine keeps anybody waiting: errors are judged, and not pauses.
const PATIENCE: Duration = Duration::from_secs(3);

/// One at a time of those whose clients must not wait: all versions at once are enough for any machine.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn builder(valkey: &Valkey, pods: u8) -> Builder {
    Testbed::builder(valkey)
        .pods(pods)
        .tls(true)
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .in_memory(true)
        .config("repl-diskless-sync-delay", "0")
}

/// Three shards with one replica each, and keys in all of them.
pub(crate) fn cluster(builder: Builder) -> Testbed {
    let bed = builder.build().unwrap();
    bed.form(3, 1).unwrap();
    for primary in bed.primaries().unwrap() {
        fill(&bed, primary, 2_000, 100).unwrap();
    }
    bed.wait_in_sync(LIMIT).unwrap();
    bed
}

pub(crate) fn writer(bed: &Testbed) -> Writer {
    Writer::start_patient(bed, PATIENCE).unwrap()
}

/// No write failed and none was lost.
#[track_caller]
pub(crate) fn assert_clean(bed: &Testbed, report: &Report) {
    let version = &bed.valkey().version;
    assert_eq!(report.error_count(), 0, "{version}: {report}");
    assert_eq!(report.verify(bed).unwrap().keys, 0, "{version}: {report}");
    assert!(report.acknowledged() > 500, "{version}: {report}");
}

/// How many keys the primaries hold.
pub(crate) fn keys(bed: &Testbed) -> u64 {
    bed.primaries().unwrap().into_iter().map(|primary| bed.keys(primary).unwrap()).sum()
}

pub(crate) fn valkeeper(bed: &Testbed, args: &[&str]) -> Ended {
    Ended::of(&mut bed.valkeeper(args), LIMIT).unwrap()
}

pub(crate) fn setting<T: FromRedisValue>(bed: &Testbed, pod: usize, name: &str) -> T {
    let (_, value): (String, T) = cmd("CONFIG").arg("GET").arg(name).query(&mut bed.connection(pod).unwrap()).unwrap();
    value
}

/// Nobody is let in without TLS or without a certificate, and the bus and replication are no exception.
pub(crate) fn assert_nothing_is_plain(bed: &Testbed) {
    let (plain, nobody) = (bed.access().without_tls(), bed.access().without_certificate().unwrap());
    for pod in bed.pods() {
        let address = (pod.addr(), pod.port()).into();
        for stranger in [&plain, &nobody] {
            let answer = stranger.connect(address).and_then(|mut open| Ok(cmd("PING").query::<String>(&mut open)?));
            assert!(answer.is_err(), "{}: {} says {answer:?}", bed.valkey().version, pod.name());
        }
        for (name, value) in [
            ("port", "0"),
            ("tls-port", "6379"),
            ("tls-cluster", "yes"),
            ("tls-replication", "yes"),
            ("tls-auth-clients", "yes"),
        ] {
            assert_eq!(setting::<String>(bed, pod.ordinal(), name), value, "{name} of {}", pod.name());
        }
    }
}

/// Every pod is a member that all know, and three shards have a replica each in sync.
pub(crate) fn wait_whole(bed: &Testbed) {
    bed.wait_for("the cluster to be whole", LIMIT, || {
        for pod in bed.pods() {
            let nodes = bed.cluster_nodes(pod.ordinal())?;
            let good = nodes.lines().filter(|line| line.contains(" connected") && !line.contains("fail")).count();
            ensure!(good == bed.pods().len() && nodes.lines().count() == good, "{} knows\n{nodes}", pod.name());
            ensure!(nodes.matches("slave").count() == 3, "{} knows\n{nodes}", pod.name());
        }
        Ok(Some(()))
    })
    .unwrap();
    bed.wait_in_sync(LIMIT).unwrap();
}

/// The name that a pod's certificate must have.
pub(crate) fn name(bed: &Testbed, pod: usize) -> String {
    bed.tls().name(bed.pod(pod).name())
}

/// Whether a pod's server shows this certificate.
pub(crate) fn is_shown(bed: &Testbed, pod: usize, issued: &Issued) -> Result<bool> {
    Ok(bed.access().certificate((bed.pod(pod).addr(), bed.pod(pod).port()).into())? == issued.der()?)
}

/// Waits until it does, and says how many connections that took.
pub(crate) fn wait_shown(bed: &Testbed, pod: usize, issued: &Issued) -> u64 {
    let mut asked = 0;
    bed.wait_for("the server to show its new certificate", LIMIT, || {
        asked += 1;
        ensure!(is_shown(bed, pod, issued)?, "{}", bed.pod(pod).run_log());
        Ok(Some(()))
    })
    .unwrap_or_else(|error| panic!("{} of {}: {error:#}", bed.pod(pod).name(), bed.valkey().version));
    asked
}
