//! Which version a server's program is, before it is run as a server.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::child::{Child, OnOurDeath};
use crate::config::PASSWORD_VARIABLES;
use crate::topology::version::Version;

/// A program that prints nothing by then is no server that we know.
const DEADLINE: Duration = Duration::from_secs(5);

/// What `PROGRAM --version` says, waited for 5 s at most; none where it is no Valkey server.
pub async fn server_version(program: impl AsRef<OsStr>) -> Option<Version> {
    let mut command = Command::new(program);
    for secret in PASSWORD_VARIABLES {
        command.env_remove(secret);
    }
    command.arg("--version").stdout(Stdio::piped()).stderr(Stdio::null());
    // One of ours like any other: whoever clears orphans away must not take its end for that of one.
    let (mut child, _) = Child::spawn(command, OnOurDeath::Kill, &[]).ok()?;
    let mut printed = Vec::new();
    let mut stdout = child.stdout()?;
    let answer = async {
        stdout.read_to_end(&mut printed).await.ok()?;
        child.wait().await.ok()
    };
    timeout(DEADLINE, answer).await.ok()??;
    Version::announced(&String::from_utf8_lossy(&printed))
}
