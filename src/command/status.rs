//! `valkeeper status`: the cluster at a glance.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, interval};

use super::render;
use crate::cli::{ExpectArgs, LookArgs, Output, StatusArgs};
use crate::config::Reach;
use crate::exit::{Exit, Failure};
use crate::observer::Observer;
use crate::topology::desired::Shape;
use crate::topology::health::{self, Finding, Grade, Health, NodeHealth};
use crate::topology::node::Role;
use crate::topology::observation::Observation;

/// The JSON of `status -o json` and `bootstrap -o json`. Fields are only ever added.
#[derive(Debug, Serialize)]
struct StatusJson<'h> {
    /// Version of this schema.
    schema: u32,
    cluster: &'h str,
    /// `ok` or `degraded`.
    state: &'static str,
    slots_served: usize,
    findings: Vec<FindingJson<'h>>,
    nodes: Vec<NodeJson>,
}

/// One finding.
#[derive(Debug, Serialize)]
pub(super) struct FindingJson<'h> {
    /// `degraded` or `note`.
    grade: &'static str,
    code: &'h str,
    sentence: &'h str,
    remedy: &'h str,
}

#[derive(Debug, Serialize)]
struct NodeJson {
    pod: Option<String>,
    id: String,
    address: String,
    shard: Option<usize>,
    /// `primary` or `replica`.
    role: String,
    /// The id of the primary that a replica follows.
    primary: Option<String>,
    /// Ranges, both ends included.
    slots: Vec<[u16; 2]>,
    keys: u64,
    memory_bytes: u64,
    lag_bytes: Option<u64>,
    /// `up`, `syncing` or `down`; null for a primary.
    link: Option<String>,
    /// Whether the node says `cluster_state:ok`.
    ok: bool,
    /// For how long its certificate is still valid; null without TLS.
    certificate_valid_seconds: Option<u64>,
}

const DAY: u64 = 24 * 3600;

/// Runs the command.
pub async fn run(args: &StatusArgs, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    let mut observer = observer(&args.look)?;
    if args.watch {
        return watch(&mut observer, &args.look, stop).await;
    }
    let report = report(&mut observer, &args.look).await;
    render::print(&render(&report, args.look.output)?)?;
    verdict(&report)
}

/// Looks for those that the options name.
pub(super) fn observer(args: &LookArgs) -> Result<Observer, Failure> {
    Observer::new(&Reach::new(&args.reach)?, expected_shape(&args.expect).map_or(0, Shape::members))
}

/// One look at the cluster. Where the service is one node's address, or DNS names only some, a second round asks those
/// that the first has told of.
async fn look(observer: &mut Observer, limit: Duration) -> Observation {
    let deadline = Instant::now() + limit;
    observer.round(deadline).await;
    observer.round(deadline).await
}

/// What is to be said of the cluster, and of how it was looked at.
pub(super) async fn report(observer: &mut Observer, args: &LookArgs) -> Health {
    let observation = look(observer, args.timeout).await;
    let mut report = health::assess(&observation, &observer.cluster(), expected_shape(&args.expect));
    if args.reach.credentials.tls.tls && args.reach.credentials.tls.tls_insecure {
        report.findings.push(Finding {
            grade: Grade::Note,
            code: "tls-insecure",
            sentence: "nobody's certificate is checked: --tls-insecure".to_owned(),
            remedy: "give --tls-ca, and no --tls-insecure: anybody in between can read and change everything"
                .to_owned(),
        });
    }
    report
}

/// Exit 1 where the cluster is degraded; the reasons have been printed.
fn verdict(report: &Health) -> Result<(), Failure> {
    match report.is_degraded() {
        false => Ok(()),
        true if report.nodes.is_empty() => Err(Exit::Unavailable.saying("no member of the cluster answers")),
        true => Err(Exit::Negative.saying("the cluster is degraded")),
    }
}

fn expected_shape(expect: &ExpectArgs) -> Option<Shape> {
    Some(Shape { shards: expect.shards?, replicas: expect.replicas? })
}

/// The report as it is printed.
pub(super) fn render(report: &Health, output: Output) -> Result<String, Failure> {
    match output {
        Output::Table => Ok(table(report)),
        Output::Json => render::json(&StatusJson {
            schema: 1,
            cluster: report.cluster.as_str(),
            state: if report.is_degraded() { "degraded" } else { "ok" },
            slots_served: report.slots_served,
            findings: report.findings.iter().map(finding).collect(),
            nodes: report.nodes.iter().map(node).collect(),
        }),
    }
}

pub(super) fn finding(finding: &Finding) -> FindingJson<'_> {
    FindingJson {
        grade: match finding.grade {
            Grade::Degraded => "degraded",
            Grade::Note => "note",
        },
        code: finding.code,
        sentence: &finding.sentence,
        remedy: &finding.remedy,
    }
}

fn node(node: &NodeHealth) -> NodeJson {
    NodeJson {
        pod: node.pod.as_ref().map(ToString::to_string),
        id: node.id.to_string(),
        address: node.address.to_string(),
        shard: node.shard,
        role: node.role.to_string(),
        primary: match node.role {
            Role::Replica(primary) => primary.map(|id| id.to_string()),
            Role::Primary => None,
        },
        slots: node.slots.ranges().iter().map(|range| [range.first().number(), range.last().number()]).collect(),
        keys: node.keys,
        memory_bytes: node.memory,
        lag_bytes: node.lag,
        link: node.link.map(|link| link.to_string()),
        ok: node.ok,
        certificate_valid_seconds: node.certificate.map(|left| left.as_secs()),
    }
}

/// The reasons first, then the nodes by shard.
fn table(report: &Health) -> String {
    let state = if report.is_degraded() { "DEGRADED" } else { "ok" };
    let mut text = format!("cluster {}: {state}, {} of 16384 slots served", report.cluster, report.slots_served);
    if let Some(left) = report.nodes.iter().filter_map(|node| node.certificate).min() {
        text.push_str(&format!(", certificates are valid for {} days", left.as_secs() / DAY));
    }
    text.push('\n');
    for finding in &report.findings {
        let mark = if finding.grade == Grade::Degraded { '!' } else { '-' };
        text.push_str(&format!("{mark} {}\n", finding.sentence));
    }
    if report.nodes.is_empty() {
        return text;
    }
    let dash = || "-".to_owned();
    let rows = report.nodes.iter().map(|node| {
        [
            node.shard.map_or_else(dash, |shard| shard.to_string()),
            node.pod.as_ref().map_or_else(|| node.id.short(), ToString::to_string),
            node.address.to_string(),
            node.role.to_string(),
            node.slots.to_string(),
            node.keys.to_string(),
            render::bytes(node.memory),
            node.lag.map_or_else(dash, render::bytes),
            node.link.map_or_else(dash, |link| link.to_string()),
            if node.ok { "ok".to_owned() } else { "fail".to_owned() },
        ]
    });
    text.push('\n');
    text + &render::table(["SHARD", "POD", "ADDRESS", "ROLE", "SLOTS", "KEYS", "MEMORY", "LAG", "LINK", "STATE"], rows)
}

async fn watch(observer: &mut Observer, args: &LookArgs, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    const CLEAR: &str = "\x1b[H\x1b[2J";
    let mut ticks = interval(Duration::from_secs(1));
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = ticks.tick() => {}
        }
        let report = report(observer, args).await;
        let text = render(&report, args.output)?;
        match args.output {
            Output::Table => render::print(&format!("{CLEAR}{text}"))?,
            Output::Json => render::print(&text)?,
        }
    }
}
