//! Servers and leases end with their owner, whatever ends it.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testbed::{Server, ServerOptions, Subnet, Valkey, die_with_parent, wait_for};

const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn leases_are_disjoint() {
    let lease = || thread::spawn(|| (0..20).map(|_| Subnet::lease()).collect::<Vec<_>>());
    let threads: Vec<_> = (0..4).map(|_| lease()).collect();
    let leases: Vec<_> = threads.into_iter().flat_map(|one| one.join().unwrap()).collect();
    let networks: HashSet<_> = leases.iter().map(|lease| lease.host(1)).collect();
    assert_eq!(networks.len(), 80);
    assert!(networks.iter().all(|host| (64..=127).contains(&host.octets()[1])));
}

#[test]
fn a_server_of_each_version_starts_and_ends_with_its_owner() -> Result<()> {
    for valkey in Valkey::all() {
        let dir = tempfile::tempdir()?;
        let (mut owner, addr) = start_owner(&valkey, dir.path())?;
        TcpStream::connect(addr).context("the server outlives the thread that started it")?;
        owner.kill()?;
        owner.wait()?;
        wait_for("the server to be gone", DEADLINE, || match TcpStream::connect(addr) {
            Ok(_) => bail!("{addr} still accepts"),
            Err(_) => Ok(Some(())),
        })?;
    }
    Ok(())
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let subnet = Subnet::lease();
    let dir = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        valkey: Valkey::newest(),
        addr: IpAddr::V4(subnet.host(1)),
        port: 6379,
        dir: dir.path().join("data"),
        config: vec![("no-such-directive".to_owned(), "1".to_owned())],
    };
    let mut server = Server::start(options).unwrap();
    let error = format!("{:#}", server.wait_ready(DEADLINE).unwrap_err());
    assert!(error.contains("the server ended"), "{error}");
    assert!(error.contains("no-such-directive"), "{error}");
}

fn start_owner(valkey: &Valkey, dir: &Path) -> Result<(Child, SocketAddr)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_own_server"));
    command.arg(&valkey.version).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    die_with_parent(&mut command);
    let mut owner = command.spawn()?;
    let output = BufReader::new(owner.stdout.take().context("its output")?);
    if let Some(addr) = output.lines().next() {
        return Ok((owner, addr?.parse()?));
    }
    bail!("the owner of a {} server ended early: {}", valkey.version, owner.wait()?)
}
