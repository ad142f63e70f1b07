//! The pods as a cluster.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::{FromRedisValue, Value, cmd, from_redis_value};

use super::Testbed;
use crate::process::run;

const FORM_DEADLINE: Duration = Duration::from_secs(90);

/// Slots and the primary that serves them.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) slots: RangeInclusive<u16>,
    pub(crate) primary: SocketAddr,
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
        let owned = self.owned()?;
        let pods = self.pods.iter().filter(|pod| owned.iter().any(|one| one.primary.ip() == pod.addr()));
        Ok(pods.map(|pod| pod.ordinal()).collect())
    }

    /// Waits until every server says ok, all agree who serves what, and every replica has its data and
    /// follows. Fails with what was missing last.
    pub fn wait_in_sync(&self, deadline: Duration) -> Result<()> {
        self.wait_for("every node to say ok and to be in sync", deadline, || self.in_sync().map(Some))
    }

    /// How many keys the pod's server holds.
    pub fn keys(&self, ordinal: usize) -> Result<u64> {
        Ok(cmd("DBSIZE").query(&mut self.connection(ordinal)?)?)
    }

    /// Who serves which slots, by the first pod that answers.
    pub(crate) fn owned(&self) -> Result<Vec<Owned>> {
        let mut last = None;
        for pod in &self.pods {
            match self.owned_by_view_of(pod.ordinal()) {
                Ok(owned) => return Ok(owned),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no pods")?)
    }

    fn owned_by_view_of(&self, ordinal: usize) -> Result<Vec<Owned>> {
        let ranges: Vec<Vec<Value>> = cmd("CLUSTER").arg("SLOTS").query(&mut self.connection(ordinal)?)?;
        let mut owned = Vec::new();
        for range in ranges {
            let [first, last, primary, ..] = &*range else { anyhow::bail!("CLUSTER SLOTS answered {range:?}") };
            let primary: Vec<Value> = value(primary)?;
            let [host, port, ..] = &*primary else { anyhow::bail!("CLUSTER SLOTS answered {range:?}") };
            let host: String = value(host)?;
            // A node that never met another does not know its own address.
            let ip = match &*host {
                "" => self.pod(ordinal).addr().into(),
                host => host.parse().with_context(|| format!("the host {host:?}"))?,
            };
            let primary = SocketAddr::new(ip, value(port)?);
            owned.push(Owned { slots: value(first)?..=value(last)?, primary });
        }
        // Servers list them in different orders.
        owned.sort_by_key(|one| *one.slots.start());
        Ok(owned)
    }

    fn in_sync(&self) -> Result<()> {
        let mut views = Vec::new();
        for pod in &self.pods {
            let (name, ordinal) = (pod.name(), pod.ordinal());
            let info = self.cluster_info(ordinal)?;
            ensure!(info.get("cluster_state").is_some_and(|state| state == "ok"), "{name}: {info:?}");
            let owned = self.owned_by_view_of(ordinal)?;
            let serves = owned.iter().any(|one| one.primary.ip() == pod.addr());
            views.push(owned.iter().map(|one| (one.slots.clone(), one.primary)).collect::<Vec<_>>());
            ensure!(views.first() == views.last(), "{name} sees {:?}, others {:?}", views.last(), views.first());
            // ROLE tells a replica by the text in second place, its primary's address.
            let role: Vec<Value> = cmd("ROLE").query(&mut self.connection(ordinal)?)?;
            let follows = !matches!(role.get(1), Some(Value::Int(_)));
            ensure!(serves != follows, "{name} is of two minds: {role:?} of {owned:?}");
            let link: Option<String> = role.get(3).filter(|_| follows).map(value).transpose()?;
            ensure!(!follows || link.as_deref() == Some("connected"), "{name}: {role:?}");
        }
        Ok(())
    }
}

fn value<T: FromRedisValue>(value: &Value) -> Result<T> {
    from_redis_value(value.clone()).context("an answer of another shape")
}
