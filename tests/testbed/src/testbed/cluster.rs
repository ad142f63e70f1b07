//! The pods as a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::cmd;

use super::Testbed;
use crate::access::Access;
use crate::cluster::Cluster;
use crate::process::run;

const FORM_DEADLINE: Duration = Duration::from_secs(90);

impl Cluster for Testbed {
    fn nodes(&self) -> Vec<(String, SocketAddr)> {
        self.pods.iter().map(|pod| (pod.name().to_owned(), SocketAddr::new(pod.addr().into(), pod.port()))).collect()
    }

    fn access(&self) -> &Access {
        &self.access
    }

    fn logs(&self) -> String {
        self.pods.iter().map(|pod| format!("\n--- {}:\n{}", pod.name(), pod.log_tail())).collect()
    }
}

impl Testbed {
    /// Forms a cluster of all pods with `valkeeper bootstrap` and waits until it is in sync.
    pub fn form(&self, shards: u16, replicas: u16) -> Result<()> {
        let (shards, replicas) = (shards.to_string(), replicas.to_string());
        let mut command = self.valkeeper(&["bootstrap", "--shards", &shards, "--replicas", &replicas]);
        let output = run(&mut command, FORM_DEADLINE).context("valkeeper bootstrap")?;
        ensure!(output.status.success(), "valkeeper bootstrap: {}", String::from_utf8_lossy(&output.stderr));
        self.wait_in_sync(FORM_DEADLINE)
    }

    /// The ordinals of the pods that serve slots, by the first pod's view that has one; sorted.
    pub fn primaries(&self) -> Result<Vec<usize>> {
        let serving = self.as_cluster().serving()?;
        let pods = self.pods.iter().filter(|pod| serving.iter().any(|node| node.ip() == pod.addr()));
        Ok(pods.map(|pod| pod.ordinal()).collect())
    }

    /// Waits until every server says ok, all agree who serves what, and every replica has its data and
    /// follows. Fails with what was missing last.
    pub fn wait_in_sync(&self, deadline: Duration) -> Result<()> {
        self.as_cluster().wait_in_sync(deadline)
    }

    /// How many keys the pod's server holds.
    pub fn keys(&self, ordinal: usize) -> Result<u64> {
        Ok(cmd("DBSIZE").query(&mut self.connection(ordinal)?)?)
    }

    pub(crate) fn as_cluster(&self) -> &dyn Cluster {
        self
    }
}
