//! The program under test and the environment that leads it to a test bed.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

/// The service, the StatefulSet and the port of every test bed.
pub(crate) const SERVICE: &str = "valkey-headless.test.svc.cluster.local.";
pub(crate) const STATEFULSET: &str = "valkey";
pub(crate) const PORT: u16 = 6379;

/// The program, the DNS server it is to ask and what lets it in.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) binary: Option<PathBuf>,
    pub(crate) dns: SocketAddr,
    pub(crate) login: Login,
}

/// What lets somebody in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl Login {
    pub(crate) fn named((username, password): (String, String)) -> Self {
        Self { username: Some(username), password: Some(password) }
    }
}

impl Program {
    /// An environment of nothing but PATH and what leads to the test bed. Panics where no binary was named.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let binary = self.binary.as_ref();
        let mut command = Command::new(binary.expect("Builder::binary names the program under test"));
        command
            .args(args)
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .env("VALKEEPER_SERVICE", SERVICE)
            .env("VALKEEPER_STATEFULSET", STATEFULSET)
            .env("VALKEEPER_DNS_SERVER", self.dns.to_string())
            .env("VALKEEPER_PORT", PORT.to_string())
            .envs(self.login.username.as_ref().map(|username| ("VALKEEPER_USERNAME", username)))
            .envs(self.login.password.as_ref().map(|password| ("VALKEY_PASSWORD", password)));
        command
    }

    /// The same as it runs inside a pod.
    pub(crate) fn command_in(&self, pod: &str, addr: Ipv4Addr, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.env("POD_NAME", pod).env("POD_IP", addr.to_string());
        command
    }
}
