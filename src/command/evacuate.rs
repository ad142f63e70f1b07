//! `valkeeper evacuate`: empties pods before they are taken away.

use super::rebalance;
use crate::cli::EvacuateArgs;
use crate::exit::Failure;
use crate::topology::rebalance::Goal;

/// Runs the command until no named pod is needed any more, the deadline is reached or `stop` is over.
pub async fn run(args: &EvacuateArgs, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    let goal = Goal::Evacuate { pods: args.pods.clone(), shards: args.shards };
    rebalance::reach(&args.reach, goal, &args.moving, stop).await
}
