//! Which version a server's program is, before it is run as a server.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::topology::version::Version;

/// A program that prints nothing by then is no server that we know.
const DEADLINE: Duration = Duration::from_secs(5);

/// What `PROGRAM --version` says, waited for 5 s at most; none where it is no Valkey server.
pub async fn server_version(program: impl AsRef<OsStr>) -> Option<Version> {
    let mut command = Command::new(program);
    // A group of its own: it is killed at the deadline, and gets no signal that is meant for us.
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.ok()?.ok()?;
    Version::announced(&String::from_utf8_lossy(&output.stdout))
}
