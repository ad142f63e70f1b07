//! A cluster as its clients see it, whatever its servers run in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use redis::{Connection, FromRedisValue, Value, cmd, from_redis_value};

use crate::access::Access;
use crate::wait::wait_for;

/// Where the nodes are, and how they are reached; the rest is asked of them.
pub trait Cluster {
    /// What each node is called, and where it answers.
    fn nodes(&self) -> Vec<(String, SocketAddr)>;
    /// How they let clients in.
    fn access(&self) -> &Access;
    /// What the servers wrote last: it goes into the error of whoever has waited in vain.
    fn logs(&self) -> String;
}

/// Slots and the primary that serves them.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) slots: RangeInclusive<u16>,
    pub(crate) primary: SocketAddr,
}

impl dyn Cluster + '_ {
    /// The addresses of the nodes that serve slots, by the view of the first that has one; sorted.
    pub fn serving(&self) -> Result<Vec<SocketAddr>> {
        let mut serving: Vec<_> = self.owned()?.into_iter().map(|one| one.primary).collect();
        serving.sort();
        serving.dedup();
        Ok(serving)
    }

    /// Waits until every server says ok, all agree who serves what, and every replica has its data and
    /// follows. Fails with what was missing last.
    pub fn wait_in_sync(&self, deadline: Duration) -> Result<()> {
        self.wait_for("every node to say ok and to be in sync", deadline, || self.in_sync().map(Some))
    }

    /// [`wait_for`], whose error also holds the tail of every server's log.
    pub fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait_for(what, deadline, condition).map_err(|error| anyhow!("{error:#}{}", self.logs()))
    }

    pub(crate) fn any_connection(&self) -> Result<Connection> {
        let answers = |(_, node): &(_, SocketAddr)| self.access().connect(*node).ok();
        self.nodes().iter().find_map(answers).context("no node answers")
    }

    /// Who serves which slots, by the first node that answers.
    pub(crate) fn owned(&self) -> Result<Vec<Owned>> {
        let mut last = None;
        for (name, node) in self.nodes() {
            match self.owned_by_view_of(node) {
                Ok(owned) => return Ok(owned),
                Err(error) => last = Some(error.context(name)),
            }
        }
        Err(last.context("no nodes")?)
    }

    fn owned_by_view_of(&self, node: SocketAddr) -> Result<Vec<Owned>> {
        let ranges: Vec<Vec<Value>> = cmd("CLUSTER").arg("SLOTS").query(&mut self.access().connect(node)?)?;
        let mut owned = Vec::new();
        for range in ranges {
            let [first, last, primary, ..] = &*range else { anyhow::bail!("CLUSTER SLOTS answered {range:?}") };
            let primary: Vec<Value> = value(primary)?;
            let [host, port, ..] = &*primary else { anyhow::bail!("CLUSTER SLOTS answered {range:?}") };
            let host: String = value(host)?;
            // A node that never met another does not know its own address.
            let ip = match &*host {
                "" => node.ip(),
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
        for (name, node) in self.nodes() {
            let mut connection = self.access().connect(node).with_context(|| name.clone())?;
            let text: String = cmd("CLUSTER").arg("INFO").query(&mut connection).with_context(|| name.clone())?;
            let info: BTreeMap<_, _> = text.lines().filter_map(|line| line.trim().split_once(':')).collect();
            ensure!(info.get("cluster_state") == Some(&"ok"), "{name}: {info:?}");
            let owned = self.owned_by_view_of(node).with_context(|| name.clone())?;
            let serves = owned.iter().any(|one| one.primary.ip() == node.ip());
            views.push(owned.iter().map(|one| (one.slots.clone(), one.primary)).collect::<Vec<_>>());
            ensure!(views.first() == views.last(), "{name} sees {:?}, others {:?}", views.last(), views.first());
            // ROLE tells a replica by the text in second place, its primary's address.
            let role: Vec<Value> = cmd("ROLE").query(&mut connection)?;
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
