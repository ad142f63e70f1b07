//! Two networks of a test's own, joined by a cable that it can cut. What is on the one side and what is on the other can
//! then neither reach each other nor tell why: packets are lost without a word, as in a real partition.
//!
//! Addresses stay loopback ones, and a machine takes those for its own. So the rules of both networks name the addresses
//! of the other side before all others.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process::run;

const DEADLINE: Duration = Duration::from_secs(10);
/// Of each network: the address of its end of the cable, its hardware address, and the address of whoever binds none; a
/// server in protected mode takes loopback addresses only.
const ENDS: [&str; 2] = ["169.254.0.1", "169.254.0.2"];
const PLUGS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
const SOURCES: [&str; 2] = ["127.0.200.1", "127.0.200.2"];
/// A hardware address without an end.
const NOBODY: &str = "02:00:00:00:00:03";

/// The network that a test lives in, and the other one.
#[derive(Debug)]
pub struct Networks {
    there: File,
}

impl Networks {
    /// Does that in a thread of its own with two networks of its own: in the first, where all that the thread starts
    /// lives as well. Takes root and `ip`, and fails where either is missing.
    pub fn with<T: Send>(act: impl FnOnce(&Self) -> Result<T> + Send) -> Result<T> {
        apart(|| act(&Self::join()?))
    }

    /// Does that in the other network.
    pub fn there<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        apart(|| {
            setns(&self.there, CloneFlags::CLONE_NEWNET)?;
            act()
        })
    }

    /// Says which addresses are here and which are there, before anybody listens at them.
    pub fn share(&self, here: &[Ipv4Addr], there: &[Ipv4Addr]) -> Result<()> {
        let lead_over = |addresses: &[Ipv4Addr]| {
            addresses.iter().try_for_each(|address| ip(&format!("rule add pref 10 to {address} lookup 100")))
        };
        lead_over(there)?;
        self.there(|| lead_over(here))
    }

    /// From now on everything that is sent to the other side is lost, in both directions.
    pub fn cut(&self) -> Result<()> {
        self.plug([NOBODY, NOBODY])
    }

    /// Ends the cut.
    pub fn mend(&self) -> Result<()> {
        self.plug(PLUGS)
    }

    fn join() -> Result<Self> {
        enter_new()?;
        let there = apart(|| {
            enter_new()?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        })?;
        let networks = Self { there };
        let other = format!("/proc/{}/fd/{}", process::id(), networks.there.as_raw_fd());
        let [here, there] = PLUGS;
        ip(&format!("link add cable address {here} type veth peer name cable address {there} netns {other}"))?;
        lay(0)?;
        networks.there(|| lay(1))?;
        networks.mend()?;
        Ok(networks)
    }

    fn plug(&self, [here, there]: [&str; 2]) -> Result<()> {
        let neighbour =
            |end: &str, plug: &str| ip(&format!("neigh replace {end} lladdr {plug} dev cable nud permanent"));
        neighbour(ENDS[1], there)?;
        self.there(|| neighbour(ENDS[0], here))
    }
}

fn enter_new() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace, which takes root")?;
    ip("link set lo up")
}

/// One end of the cable, and the way to the other.
fn lay(end: usize) -> Result<()> {
    let other = 1 - end;
    ip(&format!("address add {}/30 dev cable", ENDS[end]))?;
    ip("link set cable up")?;
    // Else what comes over a cable with a loopback address is thrown away.
    fs::write("/proc/sys/net/ipv4/conf/cable/route_localnet", "1").context("let loopback addresses over the cable")?;
    ip(&format!("route add default via {} dev cable src {} table 100", ENDS[other], SOURCES[end]))?;
    ip(&format!("rule add pref 10 to {} lookup 100", SOURCES[other]))?;
    ip("rule add pref 1000 lookup local")?;
    ip("rule del pref 0")
}

fn ip(words: &str) -> Result<()> {
    let output = run(Command::new("ip").args(words.split(' ')), DEADLINE)
        .context("run `ip`, which the Debian package iproute2 brings: make a network with it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip {words}`: {said}");
    Ok(())
}

/// In a thread of its own, which can go to another network without taking anybody along.
fn apart<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(act).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
