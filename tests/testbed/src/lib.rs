//! What valkeeper's tests stand on: real valkey-servers on loopback addresses of their own, in pods
//! that lose addresses and disks, beside a real DNS server whose answers a test scripts.
//!
//! A test takes a version, builds a [`Testbed`], runs the program against it and waits for what it
//! promised. Everything ends with the value, and with the process should that be killed; a test that
//! panics prints every server's log and view of the cluster first. Nothing is shared between tests,
//! so they run in parallel. `make valkey` fetches the servers.
//!
//! Servers are started by the test bed itself or, where it is [`Builder::supervised`], by `valkeeper run`.
//! A [`Writer`] writes meanwhile, and knows what was acknowledged, when it was not, and what of it is lost.
//!
//! ```no_run
//! use std::time::Duration;
//! use testbed::{Fault, Testbed, Valkey, run};
//!
//! for valkey in Valkey::all() {
//!     let bed = Testbed::builder(&valkey).pods(6).config("requirepass", "x").binary("valkeeper").build().unwrap();
//!     bed.dns().fault(bed.service(), Fault::Silent);
//!     bed.pod(2).restart_at(bed.spare_addr()).unwrap();
//!     run(&mut bed.valkeeper(&["bootstrap"]), Duration::from_secs(60)).unwrap();
//!     bed.cli_check(0).unwrap();
//! }
//! ```

mod access;
mod answer;
mod cluster;
mod crowd;
mod disk;
mod dns;
mod ended;
mod fill;
mod http;
mod locked;
mod networks;
mod pod;
mod proc;
mod process;
mod program;
mod rolling;
pub mod scenario;
mod server;
pub mod sim;
mod subnet;
mod supervised;
mod testbed;
mod tls;
mod versions;
mod wait;
mod writer;

pub use access::Access;
pub use cluster::Cluster;
pub use crowd::Crowd;
pub use dns::{Answer, Dns, DnsServer, Fault, RecordType, Transport};
pub use ended::Ended;
pub use fill::fill;
pub use http::http_get;
pub use networks::Networks;
pub use pod::Pod;
pub use proc::{resident_memory, time_on_core};
pub use process::{die_with_parent, from_a_bad_parent, run};
pub use redis;
pub use rolling::{Leave, PodRestart, Ready, Rolling, restart_pod, rolling_restart};
pub use server::{Server, ServerOptions};
pub use subnet::Subnet;
pub use testbed::{Builder, Testbed};
pub use tls::{Authority, Issued, Mount, Tls};
pub use versions::Valkey;
pub use wait::wait_for;
pub use writer::{Gap, Lost, Mark, Report, ShardReport, Writer};
