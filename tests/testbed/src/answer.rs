//! Whether a server answers.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use crate::access::Access;
use crate::wait::wait_for;

const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// What a server says to PING that has loaded its data.
pub(crate) const READY: &[&str] = &["+PONG", "-NOAUTH"];
/// What a server says to PING that is up, be it that it is still loading.
pub(crate) const UP: &[&str] = &["+PONG", "-NOAUTH", "-LOADING"];

/// Waits for one of the good answers, or for the process that is to give it to end.
pub(crate) fn wait_answer(
    addr: SocketAddr,
    access: &Access,
    deadline: Duration,
    good: &[&str],
    mut ended: impl FnMut() -> Result<Option<ExitStatus>>,
) -> Result<()> {
    let answer = wait_for(&format!("{addr} to answer PING"), deadline, || {
        if let Some(status) = ended()? {
            return Ok(Some(Err(anyhow!("the server ended: {status}"))));
        }
        let answer = ping(addr, access)?;
        if !good.iter().any(|good| answer.starts_with(good)) {
            bail!("answer {answer:?}");
        }
        Ok(Some(Ok(())))
    });
    answer.unwrap_or_else(Err)
}

fn ping(addr: SocketAddr, access: &Access) -> Result<String> {
    let mut stream = access.dial(addr, PING_TIMEOUT)?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}
