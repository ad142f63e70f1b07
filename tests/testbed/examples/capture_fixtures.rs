//! Captures what real servers say, as fixtures for the parser: `make fixtures`.
//!
//! For each version: CLUSTER NODES, CLUSTER INFO, INFO and nodes.conf of a cluster with a host name, an IPv6 address, a
//! slot on its way, a node in handshake, a failed node and one that will not take over.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::redis::{self, Connection};
use testbed::{Testbed, Valkey};

const WAIT: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    for valkey in Valkey::all() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(&valkey.version);
        fs::create_dir_all(&dir)?;
        capture(&valkey, &dir).with_context(|| format!("Valkey {}", valkey.version))?;
    }
    Ok(())
}

fn capture(valkey: &Valkey, dir: &Path) -> Result<()> {
    let bed = Testbed::builder(valkey).pods(6).config("cluster-node-timeout", "1000").build()?;
    let mut first = bed.connection(0)?;
    save(dir, "fresh", &bed, &mut first)?;

    let mut create = vec!["--cluster".to_owned(), "create".to_owned()];
    create.extend(bed.pods().iter().map(|pod| format!("{}:{}", pod.addr(), pod.port())));
    create.extend(["--cluster-replicas", "1", "--cluster-yes"].map(str::to_owned));
    let output = bed.cli(&create.iter().map(String::as_str).collect::<Vec<_>>())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    bed.wait_for("the cluster to be ok", WAIT, || Ok((state(&mut first)? == "ok").then_some(())))?;
    set_key(&bed, &mut first)?;
    save(dir, "formed", &bed, &mut first)?;

    config(&bed, 1, "cluster-announce-hostname", "valkey-1.example.org")?;
    config(&bed, 2, "cluster-announce-ip", "fd00:10:244::3")?;
    config(&bed, 4, "cluster-replica-no-failover", "yes")?;
    let second = id(&bed, 1)?;
    cluster(&mut first, &["SETSLOT", "0", "MIGRATING", &second])?;
    cluster(&mut first, &["SETSLOT", "16000", "IMPORTING", &second])?;
    bed.pod(5).kill()?;
    bed.wait_for("the news to be everywhere", WAIT, || {
        let nodes = bed.cluster_nodes(0)?;
        let news = ["example.org", "fd00:10:244::3", "nofailover", "fail "];
        let missing: Vec<_> = news.iter().filter(|word| !nodes.contains(**word)).collect();
        ensure!(missing.is_empty(), "{missing:?} not in\n{nodes}");
        Ok(Some(()))
    })?;
    let nobody = bed.spare_addr().to_string();
    cluster(&mut first, &["MEET", &nobody, "6379"])?;
    save(dir, "troubled", &bed, &mut first)?;
    let mut replica = bed.connection(3)?;
    save(dir, "replica", &bed, &mut replica)
}

fn save(dir: &Path, name: &str, bed: &Testbed, connection: &mut Connection) -> Result<()> {
    let nodes: String = redis::cmd("CLUSTER").arg("NODES").query(connection)?;
    let cluster: String = redis::cmd("CLUSTER").arg("INFO").query(connection)?;
    let info: String =
        redis::cmd("INFO").arg(["server", "memory", "replication", "keyspace"].as_slice()).query(connection)?;
    fs::write(dir.join(format!("{name}.nodes")), nodes)?;
    fs::write(dir.join(format!("{name}.cluster-info")), cluster)?;
    fs::write(dir.join(format!("{name}.info")), info)?;
    fs::copy(bed.pod(0).nodes_conf(), dir.join(format!("{name}.nodes.conf")))?;
    Ok(())
}

fn set_key(bed: &Testbed, connection: &mut Connection) -> Result<()> {
    for number in 0..100 {
        let set: redis::RedisResult<()> = redis::cmd("SET").arg(format!("key:{number}")).arg("value").query(connection);
        if set.is_ok() {
            return Ok(());
        }
    }
    anyhow::bail!("{} takes no key", bed.pod(0).name())
}

fn config(bed: &Testbed, pod: usize, directive: &str, value: &str) -> Result<()> {
    Ok(redis::cmd("CONFIG").arg("SET").arg(directive).arg(value).query(&mut bed.connection(pod)?)?)
}

fn cluster(connection: &mut Connection, args: &[&str]) -> Result<()> {
    Ok(redis::cmd("CLUSTER").arg(args).query(connection)?)
}

fn id(bed: &Testbed, pod: usize) -> Result<String> {
    Ok(redis::cmd("CLUSTER").arg("MYID").query(&mut bed.connection(pod)?)?)
}

fn state(connection: &mut Connection) -> Result<String> {
    let info: String = redis::cmd("CLUSTER").arg("INFO").query(connection)?;
    let state = info.lines().find_map(|line| line.strip_prefix("cluster_state:"));
    Ok(state.unwrap_or_default().to_owned())
}
