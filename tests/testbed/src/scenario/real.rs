//! The world of real servers, a real DNS server and the real program.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use redis::{Connection, RedisResult, Value, cmd};
use valkeeper::topology::{SlotRange, StageKind};

use super::{Outcome, Place, Scenario, World};
use crate::dns::Answer;
use crate::ended::Ended;
use crate::process::spawn;
use crate::server::{Server, ServerOptions};
use crate::testbed::Testbed;
use crate::versions::Valkey;

const PORT: u16 = 6379;
const WAIT: Duration = Duration::from_secs(60);

/// Real servers.
pub struct Real {
    bed: Testbed,
    shape: (u16, u16),
    shown: Vec<usize>,
    /// Pods whose name leads to somebody else.
    misled: BTreeMap<usize, Ipv4Addr>,
    strangers: Vec<Server>,
    keys: u64,
}

impl Real {
    /// Pods of this version, none of which runs yet, and the program at this path.
    pub fn new(scenario: &Scenario, valkey: &Valkey, binary: &Path) -> Result<Self> {
        let pods = u8::try_from(scenario.pods).context("that many pods")?;
        let bed = Testbed::builder(valkey).pods(pods).start_servers(false).binary(binary).build()?;
        bed.dns().auto(false);
        let mut world = Self {
            bed,
            shape: scenario.shape,
            shown: Vec::new(),
            misled: BTreeMap::new(),
            strangers: Vec::new(),
            keys: 0,
        };
        world.show(&[])?;
        Ok(world)
    }

    /// What is to be told of a story that failed: every server's log and view.
    pub fn diagnosis(&self) -> String {
        self.bed.pods().iter().fold(String::new(), |text, pod| {
            let nodes = self.bed.cluster_nodes(pod.ordinal()).unwrap_or_else(|error| format!("{error:#}"));
            text + &format!("--- {} {}\n{nodes}\n{}\n", pod.name(), pod.addr(), pod.log_tail())
        })
    }

    fn publish(&self) {
        let (dns, service) = (self.bed.dns(), self.bed.service());
        let addr = |pod: usize| self.misled.get(&pod).copied().unwrap_or_else(|| self.bed.pod(pod).addr());
        for pod in 0..self.bed.pods().len() {
            match self.shown.contains(&pod) {
                true => dns.set(&self.bed.host_name(pod), vec![Answer::A(addr(pod))]),
                false => dns.remove(&self.bed.host_name(pod)),
            }
        }
        let srv = format!("_valkey._tcp.{service}");
        dns.set(service, self.shown.iter().map(|pod| Answer::A(addr(*pod))).collect());
        dns.set(&srv, self.shown.iter().map(|pod| Answer::Srv(self.bed.host_name(*pod), PORT)).collect());
    }

    fn command(&self, shape: (u16, u16), deadline: Duration) -> Command {
        let mut command = self.bed.valkeeper(&["bootstrap", "--log-format", "json", "--log-level", "debug"]);
        command.args(["--shards", &shape.0.to_string(), "--replicas", &shape.1.to_string()]);
        command.args(["--timeout", &format!("{}ms", deadline.as_millis())]);
        command
    }

    fn connection(&self, pod: usize) -> Result<Connection> {
        self.bed.connection(pod)
    }

    fn run(&self, shape: (u16, u16), deadline: Duration) -> Result<Ended> {
        Ended::of(&mut self.command(shape, deadline), deadline + WAIT)
    }

    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        self.bed.pods().iter().filter(|pod| pod.pid().is_some()).map(|pod| pod.ordinal())
    }

    fn says_ok(&self, pod: usize) -> Result<bool> {
        Ok(self.bed.cluster_info(pod)?.get("cluster_state").is_some_and(|state| state == "ok"))
    }
}

impl World for Real {
    fn start(&mut self, pods: &[usize]) -> Result<()> {
        pods.iter().try_for_each(|pod| self.bed.pod(*pod).start())
    }

    fn stop(&mut self, pod: usize) -> Result<()> {
        self.save(pod)?;
        self.bed.pod(pod).stop().map(|_| ())
    }

    fn restart(&mut self, pod: usize, place: Place) -> Result<()> {
        if self.bed.pod(pod).pid().is_some() {
            self.stop(pod)?;
        }
        match place {
            Place::Same => self.bed.pod(pod).start()?,
            Place::Other => self.bed.pod(pod).restart_at(self.bed.spare_addr())?,
        }
        self.publish();
        Ok(())
    }

    fn lose_disk(&mut self, pod: usize) -> Result<()> {
        self.bed.pod(pod).kill()?;
        self.bed.pod(pod).lose_disk()?;
        self.bed.pod(pod).start()
    }

    fn lose_nodes_conf(&mut self, pod: usize) -> Result<()> {
        self.stop(pod)?;
        self.bed.pod(pod).wipe_nodes_conf()?;
        self.bed.pod(pod).start()
    }

    fn show(&mut self, pods: &[usize]) -> Result<()> {
        self.shown = pods.to_vec();
        self.misled.clear();
        self.publish();
        Ok(())
    }

    fn show_stranger(&mut self, pod: usize) -> Result<()> {
        let addrs = [self.bed.spare_addr(), self.bed.spare_addr()];
        let mut connections = Vec::new();
        for addr in addrs {
            let options = ServerOptions {
                valkey: self.bed.valkey().clone(),
                addr: addr.into(),
                port: PORT,
                dir: self.bed.dir().join(format!("stranger-{addr}")),
                config: Vec::new(),
            };
            let mut server = Server::start(options)?;
            server.wait_ready(WAIT)?;
            self.strangers.push(server);
            connections.push(redis::Client::open((addr.to_string(), PORT))?.get_connection()?);
        }
        let [one, other] = connections.as_mut_slice() else { bail!("two strangers") };
        cluster(one, &["ADDSLOTSRANGE", "0", "8191"])?;
        cluster(other, &["ADDSLOTSRANGE", "8192", "16383"])?;
        cluster(one, &["MEET", &addrs[1].to_string(), &PORT.to_string()])?;
        self.bed.wait_for("the strangers to be a cluster", WAIT, || {
            let info: String = cmd("CLUSTER").arg("INFO").query(one)?;
            Ok(info.contains("cluster_state:ok").then_some(()))
        })?;
        self.misled.insert(pod, addrs[0]);
        self.publish();
        Ok(())
    }

    fn bootstrap(&mut self, shape: Option<(u16, u16)>, deadline: Duration) -> Result<Outcome> {
        outcome(&self.run(shape.unwrap_or(self.shape), deadline)?)
    }

    fn bootstrap_until(&mut self, stage: StageKind) -> Result<bool> {
        let mut command = self.command(self.shape, WAIT);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn(command)?;
        let log = child.stderr.take().context("the log")?;
        let done = format!("\"stage\":\"{stage}\"");
        let mut seen = String::new();
        // The end of the program is the end of its log: this loop ends.
        let reached = BufReader::new(log).lines().map_while(|line| line.ok()).any(|line| {
            seen.push_str(&line);
            seen.push('\n');
            line.contains("\"DEBUG\"") && line.contains(&done)
        });
        if reached {
            child.kill()?;
        }
        let status = child.wait()?;
        ensure!(reached || status.success(), "the bootstrap ended before {stage}:\n{seen}");
        Ok(reached)
    }

    fn bootstrap_twice(&mut self) -> Result<[Outcome; 2]> {
        let world = &*self;
        let [one, other] = std::thread::scope(|scope| {
            let run = || scope.spawn(|| world.run(world.shape, WAIT));
            [run(), run()].map(|thread| thread.join().unwrap_or_else(|_| bail!("the thread panicked")))
        });
        Ok([outcome(&one?)?, outcome(&other?)?])
    }

    fn claim(&mut self, pod: usize, index: u16, shards: u16) -> Result<()> {
        let share = SlotRange::share(index, shards).context("no such share")?;
        let (first, last) = (share.first().to_string(), share.last().to_string());
        cluster(&mut self.connection(pod)?, &["ADDSLOTSRANGE", &first, &last])
    }

    fn put_keys(&mut self, pod: usize, keys: u64) -> Result<()> {
        let mut connection = self.connection(pod)?;
        let nodes = self.bed.cluster_nodes(pod)?;
        let serves = nodes.lines().any(|line| line.contains("myself") && line.split(' ').count() > 8);
        if !serves {
            cluster(&mut connection, &["ADDSLOTSRANGE", "0", "16383"])?;
        }
        self.bed.wait_for("the node to say ok", WAIT, || Ok(self.says_ok(pod)?.then_some(())))?;
        let mut put = 0;
        for number in 0.. {
            if put == keys {
                break;
            }
            // A key of another node's slot is answered with MOVED.
            let set: RedisResult<()> = cmd("SET").arg(format!("{pod}:{number}")).arg("value").query(&mut connection);
            put += u64::from(set.is_ok());
            ensure!(number < 100_000, "{} takes no keys: {set:?}", self.bed.pod(pod).name());
        }
        if !serves {
            cluster(&mut connection, &["DELSLOTSRANGE", "0", "16383"])?;
        }
        let own = nodes.lines().find(|line| line.contains("myself")).and_then(|line| line.split(' ').next());
        let follows = format!(" slave {} ", own.context("the pod's own id")?);
        let replicas = nodes.matches(&follows).count();
        let copied: usize = cmd("WAIT").arg(replicas).arg(WAIT.as_millis()).query(&mut connection)?;
        ensure!(copied >= replicas, "{copied} of {replicas} replicas have the keys");
        self.keys += keys;
        Ok(())
    }

    fn snapshot(&mut self) -> Result<String> {
        let mut text = String::new();
        for pod in self.running() {
            let nodes = self.bed.cluster_nodes(pod)?;
            let mut lines: Vec<String> = nodes.lines().map(stable).collect();
            lines.sort();
            let mut connection = self.connection(pod)?;
            let keys: u64 = cmd("DBSIZE").query(&mut connection)?;
            let config = settings(&mut connection)?;
            text.push_str(&format!("{pod}: {keys} keys, {config:?}\n  {}\n", lines.join("\n  ")));
        }
        Ok(text)
    }

    fn check(&mut self) -> Result<()> {
        let (shards, replicas) = self.shape;
        let first = *self.shown.first().context("DNS shows nobody")?;
        self.bed.wait_for("valkey-cli to find nothing wrong", WAIT, || self.bed.cli_check(first).map(Some))?;
        let mut total = 0;
        for pod in &self.shown {
            ensure!(self.says_ok(*pod)?, "{} does not say ok", self.bed.pod(*pod).name());
            let nodes = self.bed.cluster_nodes(*pod)?;
            // A handshake that leads nowhere ends by itself.
            let gone = ["fail", "noaddr", "handshake"];
            let here = nodes.lines().filter(|line| !gone.iter().any(|flag| line.contains(flag)));
            let primaries = here.clone().filter(|line| line.contains("master")).count();
            ensure!(primaries == usize::from(shards), "{primaries} primaries in\n{nodes}");
            let members = primaries * (usize::from(replicas) + 1);
            ensure!(here.count() == members, "not {members} members in\n{nodes}");
            let mut connection = self.connection(*pod)?;
            let config = settings(&mut connection)?;
            let name = config.get("cluster-announce-human-nodename").map(String::as_str).unwrap_or_default();
            ensure!(name.ends_with(&format!("/{}", self.bed.pod(*pod).name())), "the mark is {name:?}");
            for (directive, value) in [
                ("cluster-node-timeout", "15000"),
                ("min-replicas-to-write", "0"),
                ("min-replicas-max-lag", "10"),
                ("repl-diskless-sync-delay", "5"),
            ] {
                ensure!(config.get(directive).is_some_and(|found| found == value), "{directive} in {config:?}");
            }
            let is_primary = nodes.lines().any(|line| line.contains("myself,master"));
            total += if is_primary { cmd("DBSIZE").query::<u64>(&mut connection)? } else { 0 };
        }
        ensure!(total == self.keys, "{total} of {} keys are left", self.keys);
        Ok(())
    }
}

impl Real {
    /// Servers here have no save points; what is to survive is saved by hand.
    fn save(&self, pod: usize) -> Result<()> {
        Ok(cmd("SAVE").query(&mut self.connection(pod)?)?)
    }
}

fn outcome(ended: &Ended) -> Result<Outcome> {
    match ended.code {
        Some(0) => Ok(Outcome::Converged),
        Some(69) => Ok(Outcome::Missing),
        Some(75) => Ok(Outcome::Waiting),
        Some(76) => Ok(Outcome::Refused),
        _ => bail!("bootstrap: {ended}"),
    }
}

fn cluster(connection: &mut Connection, args: &[&str]) -> Result<()> {
    cmd("CLUSTER").arg(args).query::<Value>(connection).with_context(|| format!("CLUSTER {args:?}"))?;
    Ok(())
}

fn settings(connection: &mut Connection) -> Result<BTreeMap<String, String>> {
    let directives = [
        "cluster-announce-human-nodename",
        "cluster-node-timeout",
        "min-replicas-to-write",
        "min-replicas-max-lag",
        "repl-diskless-sync-delay",
    ];
    Ok(cmd("CONFIG").arg("GET").arg(directives.as_slice()).query(connection)?)
}

/// A line of CLUSTER NODES without its times, and without the links and suspicions that come and go.
fn stable(line: &str) -> String {
    let fields = line.split(' ').enumerate().filter(|(place, _)| !matches!(place, 4 | 5 | 7));
    fields.map(|(_, field)| field.replace(",fail?", "").replace(",fail", "")).collect::<Vec<_>>().join(" ")
}
