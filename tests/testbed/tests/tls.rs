//! Test beds whose servers speak nothing but mutual TLS.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use testbed::redis::cmd;
use testbed::{Access, Testbed, Valkey};

fn bed(valkey: &Valkey) -> Testbed {
    Testbed::builder(valkey).pods(2).config("repl-diskless-sync-delay", "0").tls(true).build().unwrap()
}

#[test]
fn only_who_has_a_certificate_is_answered() {
    for valkey in Valkey::all() {
        let bed = bed(&valkey);
        let addr = SocketAddr::new(bed.pod(0).addr().into(), bed.pod(0).port());
        let answers =
            |access: &Access| -> anyhow::Result<String> { Ok(cmd("PING").query(&mut access.connect(addr)?)?) };
        assert_eq!(answers(bed.access()).unwrap(), "PONG", "{}", valkey.version);
        assert!(answers(&bed.access().without_tls()).is_err(), "{}", valkey.version);
        assert!(answers(&bed.access().without_certificate().unwrap()).is_err(), "{}", valkey.version);
        let address = addr.ip().to_string();
        assert!(bed.cli(&["-h", &address, "PING"]).unwrap().stdout.starts_with(b"PONG"), "{}", valkey.version);
    }
}

#[test]
fn nodes_meet_and_copy_over_tls() {
    Valkey::each(Valkey::all(), |valkey| {
        let bed = bed(valkey);
        let mut connection = bed.connection(0).unwrap();
        let (ip, port) = (bed.pod(1).addr().to_string(), bed.pod(1).port());
        cmd("CLUSTER").arg("MEET").arg(ip).arg(port).exec(&mut connection).unwrap();
        let deadline = Duration::from_secs(20);
        bed.wait_for("the nodes to know each other", deadline, || {
            Ok((bed.cluster_info(0)?["cluster_known_nodes"] == "2").then_some(()))
        })
        .unwrap();
        let id: String = cmd("CLUSTER").arg("MYID").query(&mut connection).unwrap();
        bed.wait_for("one to follow the other", deadline, || {
            cmd("CLUSTER").arg("REPLICATE").arg(&id).exec(&mut bed.connection(1)?)?;
            Ok(Some(()))
        })
        .unwrap();
        bed.wait_for("the copy to be whole", deadline, || {
            let info: String = cmd("INFO").arg("replication").query(&mut bed.connection(1)?)?;
            Ok(info.contains("master_link_status:up").then_some(()))
        })
        .unwrap();
    });
}

#[test]
fn a_mounted_secret_changes_in_one_moment_and_nobody_else_reads_it() {
    let bed = bed(&Valkey::newest());
    let (tls, mount) = (bed.tls(), bed.tls().mount(0));
    let files = [mount.certificate(), mount.key(), mount.authority()];
    let read = || files.clone().map(|file| fs::read_to_string(file).unwrap());
    let before = read();
    let issued = tls.authority().issue(&[&tls.name("valkey-0")]);
    mount.put(&issued, tls.authority().certificate()).unwrap();
    let after = read();
    assert_eq!(after, [issued.certificate, issued.key, before[2].clone()]);
    assert_ne!(after[..2], before[..2]);
    for file in &files {
        assert!(fs::symlink_metadata(file).unwrap().is_symlink());
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
