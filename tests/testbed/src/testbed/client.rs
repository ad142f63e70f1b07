//! Questions to the pods' servers.

use std::collections::BTreeMap;
use std::env;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::{Connection, IntoConnectionInfo, RedisConnectionInfo};

use super::Testbed;
use crate::process::{die_with_parent, run};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const CLI_DEADLINE: Duration = Duration::from_secs(60);

impl Testbed {
    /// A connection to the pod's server, authenticated where a password is configured. Connecting
    /// takes 2 s at most and each answer 5 s.
    pub fn connection(&self, ordinal: usize) -> Result<Connection> {
        let pod = self.pod(ordinal);
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(password) = self.password() {
            settings = settings.set_password(password);
        }
        if let Some(username) = self.username() {
            settings = settings.set_username(username);
        }
        let info = (pod.addr().to_string(), pod.port()).into_connection_info()?.set_redis_settings(settings);
        let connection = redis::Client::open(info)?
            .get_connection_with_timeout(CONNECT_TIMEOUT)
            .with_context(|| format!("connect to {} at {}", pod.name(), pod.addr()))?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(connection)
    }

    /// CLUSTER NODES as the pod answers it.
    pub fn cluster_nodes(&self, ordinal: usize) -> Result<String> {
        self.cluster(ordinal, "NODES")
    }

    /// CLUSTER INFO as the pod answers it, by field.
    pub fn cluster_info(&self, ordinal: usize) -> Result<BTreeMap<String, String>> {
        let text = self.cluster(ordinal, "INFO")?;
        let fields = text.lines().filter_map(|line| line.trim().split_once(':'));
        Ok(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Runs this version's valkey-cli to its end, 60 s at most. It gets the password by environment.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.valkey().cli);
        command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
        if let Some(username) = self.username() {
            command.args(["--user", username]);
        }
        if let Some(password) = self.password() {
            // 8.0 knows only the first.
            command.env("REDISCLI_AUTH", password).env("VALKEYCLI_AUTH", password);
        }
        command.args(args);
        die_with_parent(&mut command);
        run(&mut command, CLI_DEADLINE)
    }

    /// `valkey-cli --cluster check` against the pod. Fails with its output where it finds fault.
    pub fn cli_check(&self, ordinal: usize) -> Result<()> {
        let pod = self.pod(ordinal);
        let node = format!("{}:{}", pod.addr(), pod.port());
        let output = self.cli(&["--cluster", "check", &node])?;
        if !output.status.success() {
            let printed = String::from_utf8_lossy(&output.stdout);
            let complained = String::from_utf8_lossy(&output.stderr);
            bail!("cluster check of {node}: {}\n{printed}{complained}", output.status);
        }
        Ok(())
    }

    fn cluster(&self, ordinal: usize, question: &str) -> Result<String> {
        let mut connection = self.connection(ordinal)?;
        redis::cmd("CLUSTER")
            .arg(question)
            .query(&mut connection)
            .with_context(|| format!("CLUSTER {question} of {}", self.pod(ordinal).name()))
    }
}
