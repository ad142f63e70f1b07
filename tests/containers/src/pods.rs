//! Containers that stand for pods, on a network of their own.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use testbed::{Access, Cluster};

use crate::{docker, unique};

/// The port of every server.
const PORT: u16 = 6379;

/// A pod; its container may be another one each time.
pub struct Pod {
    /// What the pod is called; its host name.
    pub name: String,
    /// The container.
    pub container: String,
}

/// All of them. They go when their owner says so, with their network.
pub(crate) struct Pods {
    network: String,
    list: Vec<Pod>,
    access: Access,
}

impl Pods {
    /// So many pods, `NAME-0`, `NAME-1` …, without a container yet, and a network that leads nowhere else.
    pub(crate) fn named(name: &str, count: usize, options: &[&str], access: Access) -> Result<Self> {
        let network = unique("net");
        docker(&[&["network", "create", "--internal"], options, &[&network]].concat())?;
        let pod = |ordinal| {
            let name = format!("{name}-{ordinal}");
            Pod { container: unique(&name), name }
        };
        Ok(Self { network, list: (0..count).map(pod).collect(), access })
    }

    pub(crate) fn network(&self) -> &str {
        &self.network
    }

    pub(crate) fn list(&self) -> &[Pod] {
        &self.list
    }

    /// Takes the last ones away, for good.
    pub(crate) fn shrink(&mut self, count: usize) -> Result<()> {
        for pod in self.list.drain(count..) {
            docker(&["rm", "--force", &pod.container])?;
        }
        Ok(())
    }

    /// The ordinals of the pods that serve slots.
    pub(crate) fn primaries(&self) -> Result<Vec<usize>> {
        let serving = (self as &dyn Cluster).serving()?;
        let addresses: Vec<_> = self.list.iter().map(|pod| pod.address().ok()).collect();
        let serves = |address: &Option<IpAddr>| serving.iter().any(|node| Some(node.ip()) == *address);
        Ok((0..self.list.len()).filter(|ordinal| serves(&addresses[*ordinal])).collect())
    }

    /// The end of all containers and of the network. What is left to say has been said.
    pub(crate) fn remove(&self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for Pod { container, .. } in &self.list {
            let _ = docker(&["rm", "--force", container]);
        }
        let _ = docker(&["network", "rm", &self.network]);
    }
}

impl Pod {
    /// Where it is now.
    pub fn address(&self) -> Result<IpAddr> {
        let address = self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")?;
        address.parse().with_context(|| format!("{} has no address", self.name))
    }

    /// What Docker knows of the container.
    pub fn inspect(&self, format: &str) -> Result<String> {
        docker(&["inspect", "--format", format, &self.container])
    }

    /// `docker DEED` of its container.
    pub fn ask_docker_to(&self, deed: &str) -> Result<()> {
        docker(&[deed, &self.container]).map(drop)
    }

    /// What a shell in its container prints.
    pub fn shell(&self, script: &str) -> Result<String> {
        docker(&["exec", &self.container, "sh", "-c", script])
    }

    /// Whether its container may write to nothing but its volumes, and how many bytes of memory it may take.
    pub fn is_held_to(&self, memory: u64) -> Result<()> {
        let root = self
            .shell("while read -r _ place _ options; do [ $place = / ] && echo $options; done </proc/mounts || true")?;
        ensure!(root.split(',').any(|option| option == "ro"), "its root can be written to: {root}");
        let dir = "/sys/fs/cgroup";
        let script =
            format!("read -r most <{dir}/memory.max || read -r most <{dir}/memory/memory.limit_in_bytes; echo $most");
        let limit = self.shell(&script)?;
        ensure!(limit == memory.to_string(), "it may take {limit} bytes of memory");
        Ok(())
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        let args = ["-c", "docker logs --tail 30 \"$0\" 2>&1", &self.container];
        crate::finished(std::process::Command::new("sh").args(args)).unwrap_or_else(|error| format!("{error:#}"))
    }
}

impl Cluster for Pods {
    fn nodes(&self) -> Vec<(String, SocketAddr)> {
        let node = |pod: &Pod| Some((pod.name.clone(), SocketAddr::new(pod.address().ok()?, PORT)));
        self.list.iter().filter_map(node).collect()
    }

    fn access(&self) -> &Access {
        &self.access
    }

    fn logs(&self) -> String {
        self.list.iter().map(|pod| format!("\n--- {}:\n{}", pod.name, pod.log())).collect()
    }
}
