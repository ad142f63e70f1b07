//! `valkeeper local` with real servers: what it starts it also ends, whatever ends it.
#![cfg(feature = "local")]

#[path = "local/running.rs"]
mod running;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use anyhow::{Context, Result};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testbed::{Valkey, run, wait_for};

use running::{IN_TIME, Local, free_port, valkeeper, wait_none_runs};

/// What a DNS server says: records as text, or a response code.
fn ask(config: NameServerConfig, name: &str, kind: RecordType) -> Result<Vec<String>, ResponseCode> {
    let config = ResolverConfig::from_name_servers(vec![config]);
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = async { builder.build().unwrap().lookup(name, kind).await };
    match runtime.block_on(asked) {
        Ok(lookup) => {
            let mut records: Vec<_> = lookup.answers().iter().map(|record| record.data.to_string()).collect();
            records.sort();
            Ok(records)
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Err(none.response_code),
        Err(other) => panic!("{name} {kind}: {other}"),
    }
}

fn at(mut config: NameServerConfig, port: u16) -> NameServerConfig {
    for connection in &mut config.connections {
        connection.port = port;
    }
    config
}

#[test]
fn a_cluster_is_formed_found_by_its_names_and_gone_without_a_trace() -> Result<()> {
    let mut local = Local::stand(free_port(), &[])?;
    let servers = local.servers()?;
    assert_eq!((servers.len(), local.temporary().len()), (6, 1));
    assert_eq!(local.cli(&["SET", "a-key", "value"])?, "OK");

    let dns = local.told("--dns-server");
    let port = local.port;
    // Nobody names the port: its SRV record does.
    let mut status = valkeeper(&["status", "--service", "valkey.local.", "--dns-server", &dns]);
    let status = run(&mut status, IN_TIME)?;
    let table = String::from_utf8(status.stdout)?;
    assert!(status.status.success() && table.contains("valkey-5"), "{table}");

    let dns: SocketAddr = dns.parse()?;
    let node = local.first_node();
    for server in [NameServerConfig::udp(dns.ip()), NameServerConfig::tcp(dns.ip())] {
        let ask = |name, kind| ask(at(server.clone(), dns.port()), name, kind);
        assert_eq!(ask("valkey-0.valkey.local.", RecordType::A), Ok(vec![node.clone()]));
        assert_eq!(ask("valkey.local.", RecordType::A).map(|all| all.len()), Ok(6));
        let services = ask("_valkey._tcp.valkey.local.", RecordType::SRV).unwrap();
        assert_eq!((services.len(), &*services[0]), (6, &*format!("0 100 {port} valkey-0.valkey.local.")));
        assert_eq!(ask("valkey-6.valkey.local.", RecordType::A), Err(ResponseCode::NXDomain));
        assert_eq!(ask("valkey-0.valkey.local.", RecordType::AAAA), Err(ResponseCode::NoError));
    }

    local.stop()?;
    wait_none_runs(&servers)?;
    assert_eq!(local.temporary(), Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn with_an_authority_of_its_own_every_port_speaks_tls() -> Result<()> {
    let mut local = Local::stand(free_port(), &["--tls"])?;
    assert_eq!(local.cli(&["SET", "a-key", "value"])?, "OK");
    let (authority, dns) = (local.told("--cacert"), local.told("--dns-server"));
    let look = ["status", "--service", "valkey.local.", "--dns-server", &dns];
    let told = |more: &[&str]| -> Result<String> {
        let output = run(&mut valkeeper(&[&look[..], more].concat()), IN_TIME)?;
        Ok(String::from_utf8([output.stdout, output.stderr].concat())?)
    };
    let table = told(&["--tls", "--tls-ca", &authority])?;
    assert!(table.contains("valkey-5") && table.contains("certificates are valid for 36"), "{table}");
    let without = told(&["--port", &local.port.to_string()])?;
    assert!(without.contains("does it want TLS (--tls)"), "{without}");
    let insecure = told(&["--tls", "--tls-insecure", "--log-level", "error"])?;
    assert_eq!(insecure.matches("--tls-insecure").count(), 2, "in the log and in the table: {insecure}");
    let json = told(&["--tls", "--tls-ca", &authority, "-o", "json"])?;
    assert!(json.contains("\"certificate_valid_seconds\": 31"), "{json}");
    local.stop()
}

#[test]
fn no_server_outlives_a_killed_local() -> Result<()> {
    let mut local = Local::stand(free_port(), &["--shards", "1", "--replicas", "0"])?;
    let servers = local.servers()?;
    assert_eq!(servers.len(), 1);
    local.signal(Signal::KILL)?;
    local.ended("the end after SIGKILL", IN_TIME)?;
    wait_none_runs(&servers)
}

#[test]
fn a_closed_terminal_ends_it_in_good_order() -> Result<()> {
    let mut local = Local::stand(free_port(), &["--shards", "1", "--replicas", "0"])?;
    let servers = local.servers()?;
    local.signal(Signal::HUP)?;
    assert!(local.ended("the end after SIGHUP", IN_TIME)?.success());
    wait_none_runs(&servers)?;
    assert_eq!(local.temporary(), Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn a_second_signal_kills_what_does_not_end() -> Result<()> {
    let mut local = Local::stand(free_port(), &["--shards", "1", "--replicas", "0"])?;
    let servers = local.servers()?;
    let stuck = Pid::from_raw(servers[0].try_into()?).context("pid")?;
    kill_process(stuck, Signal::STOP)?;
    local.signal(Signal::INT)?;
    local.wait_said("stopping")?;
    // Less than it would wait by itself.
    let status = wait_for("the end after more signals", Duration::from_secs(9), || {
        local.signal(Signal::INT)?;
        Ok(local.child.try_wait()?)
    });
    let status = status.with_context(|| local.show("it goes on"))?;
    assert!(status.success(), "{}", local.show("failed"));
    wait_none_runs(&servers)
}

#[test]
fn a_server_that_dies_is_reported_and_the_others_go_on() -> Result<()> {
    let mut local = Local::stand(free_port(), &["--shards", "1", "--replicas", "1"])?;
    let servers = local.servers()?;
    let replica = Pid::from_raw((*servers.last().context("servers")?).try_into()?).context("pid")?;
    kill_process(replica, Signal::KILL)?;
    local.wait_said("valkey-1 has ended (signal: 9 (SIGKILL))")?;
    local.wait_said("the others go on")?;
    assert_eq!(local.cli(&["PING"])?, "PONG");
    local.stop()
}

#[test]
fn keys_outlive_a_restart_also_on_another_network() -> Result<()> {
    let (port, dir) = (free_port(), TempDir::new()?);
    let args = ["--replicas", "0", "--data-dir", dir.path().to_str().context("path")?];
    let mut first = Local::stand(port, &args)?;
    for key in ["one", "two", "three", "four"] {
        assert_eq!(first.cli(&["SET", key, key])?, "OK");
    }

    let server = Valkey::newest().server;
    let port_text = port.to_string();
    let mut second = valkeeper(&["local", "--port", &port_text, "--server", server.to_str().context("path")?]);
    let second = run(second.args(args), IN_TIME)?;
    let said = String::from_utf8(second.stderr)?;
    let holder = format!("process {}", first.child.id());
    assert!(second.status.code() == Some(76) && said.contains(&holder), "{:?}: {said}", second.status);

    // Networks from 127.200 are first come, first served; this one is nobody's.
    let former = first.first_node();
    let [.., high, low] = process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 230 + (high & 15), low, 1).to_string();
    first.stop()?;
    for node in 0..3 {
        let file = dir.path().join(format!("valkey-{node}/nodes.conf"));
        let text = fs::read_to_string(&file)?;
        fs::write(file, text.replace(former.trim_end_matches('1'), own.trim_end_matches('1')))?;
    }
    let mut again = Local::stand(port, &args)?;
    assert_eq!(again.first_node(), own, "nodes come back at the addresses they had");
    assert_eq!(again.cli(&["GET", "three"])?, "three");
    again.stop()?;

    // Another cluster takes the addresses: the two must not even know of each other.
    let copy = TempDir::new()?;
    let copied = run(Command::new("cp").arg("-r").args([dir.path(), copy.path()]), IN_TIME)?;
    assert!(copied.status.success());
    let copy = copy.path().join(dir.path().file_name().context("name")?);
    let other = Local::stand(port, &["--replicas", "0", "--data-dir", copy.to_str().context("path")?])?;
    assert_eq!(other.first_node(), own);
    let moved = Local::stand(port, &args)?;
    assert_ne!(moved.first_node(), own);
    for key in ["one", "two", "three", "four"] {
        assert_eq!(moved.cli(&["GET", key])?, key);
    }
    let others_nodes = other.cli(&["CLUSTER", "NODES"])?;
    let prefix = own.trim_end_matches('1');
    assert!(others_nodes.lines().count() == 3 && others_nodes.matches(prefix).count() == 3, "{others_nodes}");
    Ok(())
}

#[test]
fn without_a_server_the_remedy_is_named() -> Result<()> {
    for server in ["/no/such/valkey-server", "no-such-valkey-server", "/etc/passwd"] {
        let output = run(&mut valkeeper(&["local", "--server", server]), IN_TIME)?;
        let said = String::from_utf8(output.stderr)?;
        assert!(output.status.code() == Some(64) && said.contains("install Valkey"), "{:?}: {said}", output.status);
    }
    Ok(())
}

#[test]
fn a_server_that_does_not_start_ends_the_forming_with_its_last_words() -> Result<()> {
    let mut local =
        Local::start(free_port(), &["--server", script(b"#!/bin/sh\necho no such luck\nexit 3\n")?.to_str().unwrap()])?;
    let status = local.ended("the end of what cannot work", IN_TIME)?;
    let said = local.stderr();
    assert!(status.code() == Some(69) && said.contains("(exit status: 3)") && said.contains("no such luck"), "{said}");
    assert_eq!(local.temporary(), Vec::<PathBuf>::new());
    Ok(())
}

/// An executable file that stays.
fn script(text: &[u8]) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("not-a-server");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
