//! A primary that leaves is followed by a replica that stays.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::peers::Peers;
use super::Tools;
use crate::topology::node::NodeId;
use crate::topology::order::Order;
use crate::topology::rebalance::{Evacuation, Ground, Heir, Primary, heir};
use crate::valkey::{Outcome, Server};

/// The server gives an attempt up after five seconds; to ask again before then would begin it anew.
const ATTEMPT: Duration = Duration::from_secs(6);
const OFTEN: Duration = Duration::from_millis(20);

/// One attempt for each primary that is to hand over, one after the other.
pub(super) async fn hand_over(
    tools: &Tools<'_>,
    ground: &Ground,
    evacuation: &Evacuation,
    done: &mut Vec<(String, String)>,
) -> Result<(), String> {
    for primary in evacuation.handovers.iter().filter_map(|id| ground.get(*id)) {
        if tools.halt.is_set() {
            return Ok(());
        }
        done.push((primary.label.to_string(), attempt(tools, primary, &evacuation.staying).await?));
    }
    Ok(())
}

/// Who has taken over.
async fn attempt(tools: &Tools<'_>, primary: &Primary, staying: &[NodeId]) -> Result<String, String> {
    let mut server = Server::at(primary.address, tools.credentials.clone(), true);
    let own = server.report().await.map_err(|silence| format!("{} {silence}", primary.label))?;
    let mut peers = Peers::new(tools.credentials.clone());
    let asked = peers.ask(own.voters().chain(own.replicas()), None).await;
    let chosen = match heir(&own, &asked, staying) {
        Heir::Ready(id) => asked.iter().find(|peer| peer.id == id),
        Heir::Later(why) => return Err(format!("{} cannot hand over yet: {why}", primary.label)),
    };
    let Some(chosen) = chosen else { return Err(format!("{} has no heir", primary.label)) };
    let address: SocketAddr = chosen.label.address;
    match peers.order(chosen, Order::TakeOver).await {
        Outcome::Done | Outcome::Moot(_) | Outcome::Unanswered(_) => {}
        Outcome::Failed(why) | Outcome::Forbidden(why) => {
            return Err(format!("{} does not take over: {why}", chosen.label));
        }
    }
    tools.meter.say(&format!("{} takes over from {}", chosen.label, primary.label));
    let until = Instant::now() + ATTEMPT;
    let mut heir = Server::at(address, tools.credentials.clone(), true);
    while Instant::now() < until {
        if heir.report().await.is_ok_and(|report| report.owns_slots()) {
            return Ok(chosen.label.to_string());
        }
        sleep(OFTEN).await;
    }
    Err(format!("{} has not taken over from {} in time", chosen.label, primary.label))
}
