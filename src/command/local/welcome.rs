//! What is said when the cluster stands: how it looks, and how to reach it.

use std::path::Path;

use super::{Place, SERVICE, STATEFULSET};
use crate::cli::{LocalArgs, Output};
use crate::command::bootstrap::Formed;
use crate::command::status;
use crate::exit::Failure;
use crate::topology::desired::DesiredTopology;
use crate::topology::health;

/// The status table, and commands to copy.
pub(super) fn text(
    formed: &Formed,
    desired: &DesiredTopology,
    args: &LocalArgs,
    place: Place<'_>,
) -> Result<String, Failure> {
    let Place { network, dns, home, tls } = place;
    let report = health::assess(&formed.observation, &desired.cluster, Some(desired.shape));
    let (ip, port, resolver) = (network.nodes().next().unwrap_or(network.dns()), network.port(), dns.address());
    let authority = tls.and_then(|files| files.ca.as_ref());
    let fate = if home.is_kept() { "kept" } else { "removed at the end" };
    Ok(format!(
        "{status}
{shape}, formed in {took:.2} s.

  connect   {cli} -c -h {ip} -p {port}{cli_tls}
  look      {myself} status --service {SERVICE}. --dns-server {resolver}{our_tls}
  ask DNS   dig @{dns} -p {dns_port} _valkey._tcp.{SERVICE}. SRV
  data      {home}/{STATEFULSET}-N, {fate}
  logs      {home}/{STATEFULSET}-N/server.log

Ctrl-C stops it.
",
        status = status::render(&report, Output::Table)?,
        shape = desired.shape,
        took = formed.took.as_secs_f64(),
        cli = client(&args.server),
        myself = std::env::args().next().unwrap_or_else(|| "valkeeper".to_owned()),
        cli_tls = authority.map(|ca| format!(" --tls --cacert {}", ca.display())).unwrap_or_default(),
        our_tls = authority.map(|ca| format!(" --tls --tls-ca {}", ca.display())).unwrap_or_default(),
        dns = resolver.ip(),
        dns_port = resolver.port(),
        home = home.path().display(),
    ))
}

/// The client beside the server, where that was named by its path.
fn client(server: &Path) -> String {
    let beside = server.with_file_name("valkey-cli");
    match beside.is_file() {
        true => beside.display().to_string(),
        false => "valkey-cli".to_owned(),
    }
}
