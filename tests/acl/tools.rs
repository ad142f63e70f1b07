//! Servers whose default user is off, and what they were asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use testbed::redis::{Value, cmd};
use testbed::{Builder, Ended, Testbed, Valkey};
use valkeeper::topology::acl::Scope;
use valkeeper::topology::version::Version;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Who the program is, and who only looks.
pub(crate) const KEEPER: &str = "keeper";
pub(crate) const WATCHER: &str = "watcher";
pub(crate) const PASSWORD: &str = "the-keepers";
/// Who the tests are, and the client that writes.
const TESTS: (&str, &str) = ("app", "the-apps");

/// What all servers were asked while they ran, and whether anything was denied.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    used: BTreeSet<String>,
}

pub(crate) fn builder(valkey: &Valkey, pods: u8) -> Builder {
    Testbed::builder(valkey)
        .pods(pods)
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .in_memory(true)
        .start_servers(false)
        .users(TESTS, (KEEPER, PASSWORD))
        .config("repl-diskless-sync-delay", "0")
        .config("cluster-node-timeout", "5000")
}

/// What the program is to be granted on such servers.
pub(crate) fn scope(valkey: &Valkey) -> Scope {
    let mut parts = valkey.version.split('.').map(|part| part.parse().unwrap());
    let version = Version::new(parts.next().unwrap(), parts.next().unwrap(), 0);
    Scope { acts: true, version: (version >= Version::ATOMIC_MIGRATION).then_some(version), changes_password: true }
}

/// What `valkeeper acl` prints, with the program's password.
pub(crate) fn rule(args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_valkeeper"));
    command.env_clear().env("VALKEY_PASSWORD", PASSWORD).arg("acl").args(args);
    Ended::of(&mut command, LIMIT).unwrap()
}

/// The lines of all users as an ACL file has them: the default user is off, and may do nothing.
pub(crate) fn users(valkey: &Valkey) -> Vec<String> {
    let (name, password) = TESTS;
    let version = scope(valkey).version.map(|_| ["--for", &*valkey.version]);
    let keeper = [&["--username", KEEPER][..], version.as_ref().map_or(&[], |version| &version[..])].concat();
    let ours = [&keeper[..], &["--username", WATCHER, "--role", "watch"]].map(|args| {
        let ended = rule(args);
        ended.expect(0, &[]);
        assert!(!ended.to_string().contains(PASSWORD), "{ended}");
        ended.stdout.trim_end().to_owned()
    });
    let others = ["user default reset".to_owned(), format!("user {name} on >{password} ~* &* +@all")];
    others.into_iter().chain(ours).collect()
}

/// Gives the pod an ACL file on its disk, named `users.acl`.
pub(crate) fn write_users(bed: &Testbed, pod: usize) {
    fs::create_dir_all(bed.pod(pod).dir()).unwrap();
    fs::write(bed.pod(pod).dir().join("users.acl"), users(bed.valkey()).join("\n") + "\n").unwrap();
}

/// Runs the program to its end and expects success.
#[track_caller]
pub(crate) fn valkeeper(bed: &Testbed, args: &[&str]) {
    Ended::of(&mut bed.valkeeper(args), LIMIT).unwrap().expect(0, &[]);
}

/// The same in a pod.
#[track_caller]
pub(crate) fn valkeeper_in(bed: &Testbed, pod: usize, args: &[&str]) {
    Ended::of(&mut bed.valkeeper_in(pod, args), LIMIT).unwrap().expect(0, &[]);
}

impl Witness {
    /// Asks all servers: what they know goes with them.
    pub(crate) fn look(&mut self, bed: &Testbed) {
        for pod in bed.pods() {
            let mut connection = bed.connection(pod.ordinal()).unwrap();
            let mut denied: Vec<BTreeMap<String, Value>> = cmd("ACL").arg("LOG").query(&mut connection).unwrap();
            // A new password that a server does not take yet is no right that is missing.
            denied.retain(|entry| entry["reason"] != Value::BulkString(b"auth".to_vec()));
            assert!(denied.is_empty(), "{}: {} denied {denied:?}", bed.valkey().version, pod.name());
            let stats: String = cmd("INFO").arg("commandstats").query(&mut connection).unwrap();
            let used = stats.lines().filter(|line| !line.contains(":calls=0,"));
            self.used
                .extend(used.filter_map(|line| Some(line.strip_prefix("cmdstat_")?.split_once(':')?.0.to_owned())));
            let log = fs::read_to_string(pod.dir().with_extension("run.log")).unwrap_or_default();
            assert!(!log.contains("NOPERM"), "{}: {} was denied:\n{log}", bed.valkey().version, pod.name());
        }
    }

    /// Which of these were asked of no server.
    pub(crate) fn unused(&self, scope: Scope) -> Vec<&'static str> {
        scope.grants().map(|grant| grant.command).filter(|command| !self.used.contains(*command)).collect()
    }
}
