//! Pods with a password file each, as a mounted secret has them, and what their servers accept.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::redis::{Client, Connection, IntoConnectionInfo as _, RedisConnectionInfo, cmd};
use testbed::{Builder, Testbed, Valkey};
use valkeeper::config::Secret;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Pods whose password is in files.
pub(crate) struct Pods {
    pub(crate) bed: Testbed,
    /// How often a file was changed.
    changes: usize,
}

pub(crate) fn builder(valkey: &Valkey, pods: u8) -> Builder {
    Testbed::builder(valkey)
        .pods(pods)
        .binary(env!("CARGO_BIN_EXE_valkeeper"))
        .supervised(true)
        .in_memory(true)
        .start_servers(false)
        .config("repl-diskless-sync-delay", "0")
        .config("cluster-node-timeout", "5000")
}

impl Pods {
    /// Starts them with this password in all files, and these arguments.
    pub(crate) fn start(builder: Builder, password: &str, args: &[&str]) -> Self {
        let mut pods = Self { bed: builder.build().unwrap(), changes: 0 };
        pods.bed.set_password(password);
        for pod in 0..pods.bed.pods().len() {
            pods.change(pod, password);
            let file = pods.file(pod).display().to_string();
            pods.bed.pod(pod).set_run_args(&[&["--password-file", &file], args].concat());
        }
        pods.bed.pods().iter().for_each(|pod| pod.spawn().unwrap());
        pods.bed.pods().iter().for_each(|pod| pod.wait_ready().unwrap());
        pods
    }

    /// The same, as a cluster.
    pub(crate) fn form(valkey: &Valkey, shards: u8, password: &str, args: &[&str]) -> Self {
        let pods = Self::start(builder(valkey, shards * 2), password, args);
        pods.bed.form(shards.into(), 1).unwrap();
        pods
    }

    pub(crate) fn file(&self, pod: usize) -> PathBuf {
        self.bed.dir().join(format!("secret-{pod}/..data/password"))
    }

    /// Changes what a pod's file says, as the kubelet does: a link to a folder is replaced.
    pub(crate) fn change(&mut self, pod: usize, password: &str) {
        self.changes += 1;
        let secret = self.bed.dir().join(format!("secret-{pod}"));
        let data = secret.join(format!("..{}", self.changes));
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("password"), format!("{password}\n")).unwrap();
        symlink(&data, secret.join("..tmp")).unwrap();
        fs::rename(secret.join("..tmp"), secret.join("..data")).unwrap();
    }

    pub(crate) fn count(&self) -> usize {
        self.bed.pods().len()
    }

    /// A new connection, logged in with this password.
    pub(crate) fn log_in(&self, pod: usize, password: &str) -> Result<Connection> {
        self.log_in_as(pod, None, password)
    }

    pub(crate) fn log_in_as(&self, pod: usize, user: Option<&str>, password: &str) -> Result<Connection> {
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name().set_password(password);
        if let Some(user) = user {
            settings = settings.set_username(user);
        }
        let info = (self.bed.pod(pod).addr().to_string(), self.bed.pod(pod).port()).into_connection_info()?;
        let client = Client::open(info.set_redis_settings(settings))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        cmd("PING").exec(&mut connection)?;
        Ok(connection)
    }

    /// Waits until every server accepts this password, whatever else.
    pub(crate) fn wait_accepted(&self, admins: &mut [Connection], password: &str) {
        self.bed
            .wait_for("every server to accept the new password", LIMIT, || {
                for (pod, admin) in admins.iter_mut().enumerate() {
                    let accepted = accepted(admin, "default")?;
                    ensure!(accepted.contains(&hash(password)), "pod {pod} accepts {} others", accepted.len());
                }
                Ok(Some(()))
            })
            .unwrap();
    }

    /// Waits until every server accepts this password alone and logs in with it.
    pub(crate) fn wait_settled(&self, admins: &mut [Connection], password: &str) {
        self.bed
            .wait_for("every server to accept the new password alone", LIMIT, || {
                for (pod, admin) in admins.iter_mut().enumerate() {
                    // A server that is held back throws everybody out.
                    if cmd("PING").exec(admin).is_err_and(|error| error.is_io_error()) {
                        *admin = self.log_in(pod, password)?;
                    }
                    let accepted = accepted(admin, "default")?;
                    ensure!(accepted == [hash(password)], "pod {pod} accepts {} passwords", accepted.len());
                    ensure!(setting(admin, "masterauth")? == password, "pod {pod} follows with another one");
                }
                Ok(Some(()))
            })
            .unwrap_or_else(|error| panic!("{error:#}"));
    }
}

pub(crate) fn hash(password: &str) -> String {
    Secret::new(password).hash().as_str().to_owned()
}

/// The hashes of the passwords that a user has.
pub(crate) fn accepted(admin: &mut Connection, user: &str) -> Result<Vec<String>> {
    let rule: Vec<String> = cmd("ACL").arg("LIST").query(admin)?;
    let begin = format!("user {user} ");
    let rule = rule.into_iter().find(|rule| rule.starts_with(&begin)).unwrap_or_default();
    Ok(rule.split(' ').filter_map(|word| word.strip_prefix('#')).map(str::to_owned).collect())
}

pub(crate) fn setting(admin: &mut Connection, name: &str) -> Result<String> {
    let [_, value]: [String; 2] = cmd("CONFIG").arg("GET").arg(name).query(admin)?;
    Ok(value)
}

/// A field of INFO as a number.
pub(crate) fn count(admin: &mut Connection, field: &str) -> u64 {
    let text: String = cmd("INFO").arg("stats").query(admin).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}
