//! The real server, as the program's users run it.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use testbed::{ServerOptions, Subnet, Valkey, run, wait_for};

use crate::running::{IN_TIME, Place, Running};

/// A server with save points under `valkeeper run`, which has one key that nothing has saved yet.
struct Served {
    run: Running,
    options: ServerOptions,
    _subnet: Subnet,
    dir: TempDir,
}

impl Served {
    fn start(valkey: Valkey) -> Result<Self> {
        let (dir, subnet) = (TempDir::new()?, Subnet::lease());
        let options = ServerOptions {
            valkey,
            addr: IpAddr::V4(subnet.host(1)),
            port: 6379,
            dir: dir.path().join("data"),
            config: [("cluster-enabled", "no"), ("save", "3600 1")]
                .map(|(key, value)| (key.into(), value.into()))
                .into(),
        };
        fs::create_dir(&options.dir)?;
        let config = dir.path().join("valkey.conf");
        fs::write(&config, options.config_text())?;
        let mut command = Place::Here.run();
        command.arg("--").arg(&options.valkey.server).arg(&config);
        let run = Running::start(command)?;
        let address = SocketAddr::new(options.addr, options.port);
        wait_for("the server to listen", IN_TIME, || Ok(Some(TcpStream::connect(address)?)))
            .with_context(|| run.show())?;
        let served = Self { run, options, _subnet: subnet, dir };
        ensure!(served.cli(&["SET", "key", "value"])? == "OK", served.run.show());
        Ok(served)
    }

    fn cli(&self, args: &[&str]) -> Result<String> {
        let mut command = std::process::Command::new(&self.options.valkey.cli);
        let output = run(command.args(["-h", &self.options.addr.to_string()]).args(args), IN_TIME)?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn saved(&self) -> bool {
        Path::exists(&self.dir.path().join("data/dump.rdb"))
    }
}

#[test]
fn a_stopped_server_saves_and_its_code_is_ours() -> Result<()> {
    for valkey in Valkey::all() {
        let mut served = Served::start(valkey)?;
        ensure!(!served.saved(), "saved too early");
        served.run.signal(Signal::TERM)?;
        served.run.ends(0)?;
        ensure!(served.saved(), served.options.log_tail());
    }
    Ok(())
}

#[test]
fn a_server_whose_supervisor_is_killed_saves_and_ends() -> Result<()> {
    for valkey in Valkey::all() {
        let mut served = Served::start(valkey)?;
        served.run.child.kill()?;
        served.run.child.wait()?;
        let address = SocketAddr::new(served.options.addr, served.options.port);
        wait_for("the server to end", IN_TIME, || Ok(TcpStream::connect(address).is_err().then_some(())))?;
        wait_for("the file to be there", IN_TIME, || Ok(served.saved().then_some(())))
            .with_context(|| served.options.log_tail())?;
    }
    Ok(())
}
