//! Starts a server of the given version in the given folder, prints its address, and owns it until its own standard
//! input ends: what a test kills to see that no server outlives its owner.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use testbed::{Server, ServerOptions, Subnet, Valkey};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let version = args.next().context("which version?")?;
    let dir = PathBuf::from(args.next().context("in which folder?")?);
    let subnet = Subnet::lease();
    let options = ServerOptions {
        valkey: Valkey::get(&version),
        addr: IpAddr::V4(subnet.host(1)),
        port: 6379,
        dir: dir.join("data"),
        config: Vec::new(),
    };
    let address = format!("{}:{}", options.addr, options.port);
    // The thread that starts a server may end before it.
    let started = thread::spawn(|| -> Result<Server> {
        let mut server = Server::start(options)?;
        server.wait_ready(Duration::from_secs(20))?;
        Ok(server)
    });
    let server = started.join().map_err(|_| anyhow!("the thread panicked"))??;
    println!("{address}");
    io::stdin().read_line(&mut String::new())?;
    drop(server);
    Ok(())
}
