//! Stories that are told on the simulator and on real servers alike: the simulator is trusted only where both agree.
//!
//! A story knows pods by their ordinal, starting at 0, and a world that runs servers, DNS and the bootstrap for it. At the
//! beginning no server runs and DNS shows nobody. Every story ends with [`World::check`], or with a refusal.

mod real;
mod refusals;
mod simulated;
mod stories;

use std::time::Duration;

use anyhow::{Result, ensure};
use valkeeper::topology::StageKind;

pub use real::Real;
pub use simulated::Simulated;

/// A story.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it is about, as a name for a test.
    pub name: &'static str,
    /// The shape that bootstrap is asked for unless a step says otherwise: shards, and replicas of each.
    pub shape: (u16, u16),
    /// How many pods the world has.
    pub pods: usize,
    /// What happens.
    pub story: fn(&mut dyn World) -> Result<()>,
}

/// How a bootstrap ended, by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: the cluster stands.
    Converged,
    /// 69: the deadline came, and somebody is missing.
    Missing,
    /// 75: the deadline came, everybody is here, and a rerun continues.
    Waiting,
    /// 76: it is unsafe to go on.
    Refused,
}

/// Where a pod comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the address it had: a container that was restarted.
    Same,
    /// At an address nobody had before: a pod that was scheduled anew.
    Other,
}

/// Long enough for a cluster of a dozen nodes to form, with the patience of a refusal to spare.
pub const LONG: Duration = Duration::from_secs(60);

/// A deadline for a bootstrap that has nothing to hope for.
pub const SHORT: Duration = Duration::from_secs(3);

/// Servers in pods, a DNS server and a bootstrap. An error of any method is the world's own trouble and fails the story.
pub trait World {
    /// Starts the servers of these pods, in this order, and waits until they answer. DNS does not change.
    fn start(&mut self, pods: &[usize]) -> Result<()>;

    /// Stops the server of a pod as SIGTERM does; what is on disk stays.
    fn stop(&mut self, pod: usize) -> Result<()>;

    /// Stops the server of a pod, if it runs, and starts it on the same disk; where DNS shows the pod, it follows.
    fn restart(&mut self, pod: usize, place: Place) -> Result<()>;

    /// Kills the server of a pod, empties its disk, and starts it where it was.
    fn lose_disk(&mut self, pod: usize) -> Result<()>;

    /// Stops the server of a pod, removes its nodes.conf, and starts it over the data that is left.
    fn lose_nodes_conf(&mut self, pod: usize) -> Result<()>;

    /// DNS names these pods where they are, and no others.
    fn show(&mut self, pods: &[usize]) -> Result<()>;

    /// DNS leads the name of this pod to a member of somebody else's cluster, which stands, has slots, carries no mark
    /// and has another member that DNS does not lead to.
    fn show_stranger(&mut self, pod: usize) -> Result<()>;

    /// Runs a bootstrap to its end: for the world's shape or another one, until the deadline.
    fn bootstrap(&mut self, shape: Option<(u16, u16)>, deadline: Duration) -> Result<Outcome>;

    /// Runs a bootstrap and kills it as soon as actions of this stage are done; false where nothing of the stage was left
    /// to do, and the bootstrap came to its end.
    fn bootstrap_until(&mut self, stage: StageKind) -> Result<bool>;

    /// Starts two bootstraps at the same time and waits for both.
    fn bootstrap_twice(&mut self) -> Result<[Outcome; 2]>;

    /// Has a pod that knows nobody claim shard `index` of `shards` shards of the key space for itself, as a person would.
    fn claim(&mut self, pod: usize, index: u16, shards: u16) -> Result<()>;

    /// Puts so many keys on a pod that serves slots; on one that does not, keys without slots.
    fn put_keys(&mut self, pod: usize, keys: u64) -> Result<()>;

    /// The state of every running server that a bootstrap could change: ids, roles, slots, epochs, keys, names, settings.
    fn snapshot(&mut self) -> Result<String>;

    /// Asks every server that DNS shows: one cluster, every slot owned exactly once, the world's shape, everybody ok,
    /// settings as configured, plain marks, and all keys that were put.
    fn check(&mut self) -> Result<()>;
}

/// Every story.
pub fn all() -> Vec<Scenario> {
    stories::all().into_iter().chain(refusals::all()).collect()
}

/// A bootstrap that has to end like this.
fn expect(world: &mut dyn World, wanted: Outcome) -> Result<()> {
    let deadline = if matches!(wanted, Outcome::Missing | Outcome::Waiting) { SHORT } else { LONG };
    let outcome = world.bootstrap(None, deadline)?;
    ensure!(outcome == wanted, "bootstrap ended with {outcome:?}, not with {wanted:?}");
    Ok(())
}

/// A bootstrap that has to stand at its end, twice: the second changes nothing.
fn converge(world: &mut dyn World) -> Result<()> {
    expect(world, Outcome::Converged)?;
    world.check()
}

/// The pods from 0 on.
fn pods(count: usize) -> Vec<usize> {
    (0..count).collect()
}
