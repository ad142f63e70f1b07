//! Questions to the pods' servers.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::Connection;

use super::Testbed;
use crate::process::{die_with_parent, run};
use crate::tls::mount_of_client;

const CLI_DEADLINE: Duration = Duration::from_secs(60);

impl Testbed {
    /// A connection to the pod's server, authenticated where a password is configured. Connecting
    /// takes 2 s at most and each answer 5 s.
    pub fn connection(&self, ordinal: usize) -> Result<Connection> {
        let pod = self.pod(ordinal);
        let addr = SocketAddr::new(pod.addr().into(), pod.port());
        self.access().connect(addr).with_context(|| pod.name().to_owned())
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

    /// Runs this version's valkey-cli to its end, 60 s at most.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        run(&mut self.cli_command(args), CLI_DEADLINE)
    }

    /// This version's valkey-cli. It gets the password by environment.
    pub fn cli_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.valkey().cli);
        command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
        if let Some(username) = self.username() {
            command.args(["--user", username]);
        }
        if let Some(password) = self.password() {
            // 8.0 knows only the first.
            command.env("REDISCLI_AUTH", password).env("VALKEYCLI_AUTH", password);
        }
        if let Some(dir) = &self.program.certificates {
            let mount = mount_of_client(dir);
            command.arg("--tls");
            command.arg("--cacert").arg(mount.authority());
            command.arg("--cert").arg(mount.certificate()).arg("--key").arg(mount.key());
        }
        command.args(args);
        die_with_parent(&mut command);
        command
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
