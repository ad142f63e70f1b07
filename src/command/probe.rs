//! `valkeeper probe`: one question to the server in this pod, one line, one exit code.

mod latch;
mod own;
mod prober;

use tokio::time::timeout;

use super::render;
use crate::cli::{Mode, ProbeArgs};
use crate::config::{Credentials, own_address};
use crate::exit::{Exit, Failure};
use crate::topology::probe::{Probe, Verdict};
use crate::valkey::Server;

pub use latch::Latch;
pub use own::{OwnHealth, Told};
pub use prober::Prober;

/// Runs the command. A probe that fails says why on standard output, which the kubelet shows.
pub async fn run(args: &ProbeArgs) -> Result<(), Failure> {
    let probe = Probe::from(args.kind);
    let credentials = match probe {
        // It asks nothing that needs to be let in, and a password or a certificate that is not there kills nobody.
        Probe::Liveness => Credentials::of_nobody(&args.own)?,
        Probe::Startup | Probe::Readiness => Credentials::of_pod(&args.own)?,
    };
    let address = own_address(args.own.pod_ip, args.own.port);
    let in_cluster = args.own.mode == Mode::Cluster;
    let server = Server::at(address, credentials, in_cluster).with_patience(args.timeout);
    let mut prober = Prober::new(server, in_cluster, args.data_dir.clone());
    let late = |_| Verdict::fail(format!("the server at {address} has not answered within {:?}", args.timeout));
    let verdict = timeout(args.timeout, prober.ask(probe)).await.unwrap_or_else(late);
    render::print(&format!("{verdict}\n"))?;
    match verdict.pass {
        true => Ok(()),
        false => Err(Exit::Negative.saying(verdict).told()),
    }
}
