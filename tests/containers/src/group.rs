//! Containers behind one name, as the pods of a StatefulSet are behind a headless Service.

use std::time::Duration;

use anyhow::Result;
use testbed::{Access, Cluster};

use crate::pods::{Pod, Pods};
use crate::{docker, images, unique};

/// How many shards, and replicas of each.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Shards.
    pub shards: usize,
    /// Replicas of each.
    pub replicas: usize,
}

/// Containers on a network of their own, with a volume each.
pub struct Group {
    shape: Shape,
    pods: Pods,
    /// One a pod.
    volumes: Vec<String>,
}

impl Group {
    /// Starts the containers, as strictly held as a pod that is "restricted" is.
    pub fn start(shape: Shape) -> Result<Self> {
        let count = shape.shards * (shape.replicas + 1);
        let pods = Pods::named("valkey", count, &[], Access::default())?;
        let volumes = (0..count).map(|_| unique("data")).collect();
        let group = Self { shape, pods, volumes };
        (0..count).try_for_each(|ordinal| group.create(ordinal))?;
        Ok(group)
    }

    /// The pods.
    pub fn pods(&self) -> &[Pod] {
        self.pods.list()
    }

    /// This group, to a client.
    pub fn as_cluster(&self) -> &dyn Cluster {
        &self.pods
    }

    /// Makes a container for the pod, over its volume.
    pub fn create(&self, ordinal: usize) -> Result<()> {
        let Pod { name, container } = &self.pods.list()[ordinal];
        let (shards, replicas) = (self.shape.shards.to_string(), self.shape.replicas.to_string());
        let data = format!("{}:/data", self.volumes[ordinal]);
        let (own, pod_name) = (format!("{name}.valkey"), format!("POD_NAME={name}"));
        let held = [
            "--read-only",
            "--user",
            "999:999",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--memory",
            "128m",
            "--pids-limit",
            "100",
            "--stop-timeout",
            "60",
        ];
        let place = [
            "--name",
            container,
            "--hostname",
            name,
            "--network",
            self.pods.network(),
            "--network-alias",
            "valkey",
            "--network-alias",
            &own,
            "--volume",
            &data,
        ];
        let environment =
            ["--env", "VALKEEPER_SERVICE=valkey", "--env", "VALKEEPER_GRACE_PERIOD=55s", "--env", &pod_name];
        let command = [
            "run",
            "--shards",
            &shards,
            "--replicas",
            &replicas,
            "--",
            "valkey-server",
            "--cluster-enabled",
            "yes",
            "--dir",
            "/data",
            "--save",
            "3600 1",
            "--cluster-node-timeout",
            "5000",
            "--protected-mode",
            "no",
        ];
        let image = [&*images().valkey];
        docker(&[&["run", "--detach"][..], &held, &place, &environment, &image, &command].concat()).map(drop)
    }

    /// Runs `valkeeper` in a container of the bare image on the network, as a Job does.
    pub fn job(&self, args: &[&str]) -> Result<String> {
        let run = ["run", "--rm", "--network", self.pods.network(), "--env", "VALKEEPER_SERVICE=valkey"];
        let held = ["--read-only", "--cap-drop", "ALL", &*images().valkeeper];
        docker(&[&run[..], &held, args].concat())
    }

    /// Makes a cluster of them.
    pub fn form(&self, limit: Duration) -> Result<()> {
        let (shards, replicas) = (self.shape.shards.to_string(), self.shape.replicas.to_string());
        self.job(&["bootstrap", "--shards", &shards, "--replicas", &replicas])?;
        self.as_cluster().wait_in_sync(limit)
    }

    /// The ordinals of the pods that serve slots.
    pub fn primaries(&self) -> Result<Vec<usize>> {
        self.pods.primaries()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.pods.remove();
        for volume in &self.volumes {
            let _ = docker(&["volume", "rm", "--force", volume]);
        }
    }
}
