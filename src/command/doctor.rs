//! `valkeeper doctor`: what is wrong, why, and the command that mends it. Changes nothing.

use serde::Serialize;

use super::render;
use super::status::{FindingJson, finding, observer, report};
use crate::cli::{LookArgs, Output};
use crate::exit::{Exit, Failure};
use crate::topology::health::Health;

/// The JSON of `doctor -o json`. Fields are only ever added.
#[derive(Debug, Serialize)]
struct DoctorJson<'h> {
    /// Version of this schema.
    schema: u32,
    cluster: &'h str,
    /// `healthy` or `sick`.
    verdict: &'static str,
    findings: Vec<FindingJson<'h>>,
    /// What `bootstrap` would do next, in a sentence; null where the shape was not given.
    next: Option<String>,
}

/// Runs the command.
pub async fn run(args: &LookArgs) -> Result<(), Failure> {
    let mut observer = observer(args)?;
    let report = report(&mut observer, args).await;
    let next = report.next.as_ref().map(ToString::to_string);
    render::print(&match args.output {
        Output::Table => text(&report, next.as_deref()),
        Output::Json => render::json(&DoctorJson {
            schema: 1,
            cluster: report.cluster.as_str(),
            verdict: if report.is_degraded() { "sick" } else { "healthy" },
            findings: report.findings.iter().map(finding).collect(),
            next,
        })?,
    })?;
    match report.is_degraded() {
        true => Err(Exit::Negative.saying("something is wrong; see above")),
        false => Ok(()),
    }
}

fn text(report: &Health, next: Option<&str>) -> String {
    let mut text = match (report.findings.len(), report.is_degraded()) {
        (0, _) => format!("cluster {}: nothing is wrong\n", report.cluster),
        (_, false) => format!("cluster {}: nothing is wrong; worth knowing:\n", report.cluster),
        (_, true) => format!("cluster {}:\n", report.cluster),
    };
    for (place, finding) in (1..).zip(&report.findings) {
        text.push_str(&format!("\n{place}. {}\n   what to do: {}\n", finding.sentence, finding.remedy));
    }
    if let Some(next) = next {
        text.push_str(&format!("\nvalkeeper bootstrap would now say: {next}\n"));
    }
    text
}
