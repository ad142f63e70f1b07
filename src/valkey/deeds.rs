//! Doing what was decided, on one server.

use redis::{Cmd, Pipeline};

use super::Outcome;
use super::connection::Connection;
use super::error::outcome;
use super::report::{MAX_LAG, MIN_REPLICAS, NAME, NODE_TIMEOUT, SYNC_DELAY};
use crate::topology::decision::{Action, Deed};
use crate::topology::identity::{Mark, Settings};
use crate::topology::parse::ClusterInfo;

pub(super) async fn execute<'s>(connection: &mut Connection, actions: Vec<&'s Action>) -> Vec<(&'s Action, Outcome)> {
    let mut allowed = Ok(());
    for action in &actions {
        allowed = match &action.deed {
            Deed::Lower(..) => is_still_empty(connection).await,
            Deed::Announce(_) => is_not_lowered(connection).await,
            _ => continue,
        };
    }
    if let Err(why) = allowed {
        return actions.into_iter().map(|action| (action, why.clone())).collect();
    }
    let mut commands = Pipeline::with_capacity(actions.len());
    for action in &actions {
        commands.add_command(command(&action.deed));
    }
    match connection.send(commands).await {
        Ok(answers) => actions
            .into_iter()
            .zip(answers)
            .map(|(action, answer)| (action, answer.map_or_else(|error| outcome(&error), |_| Outcome::Done)))
            .collect(),
        Err(error) => actions.into_iter().map(|action| (action, outcome(&error))).collect(),
    }
}

/// Settings are lowered only on a node that knows of no slot and no key at this very moment: the observation may be
/// old, and another run may have finished the cluster meanwhile.
async fn is_still_empty(connection: &mut Connection) -> Result<(), Outcome> {
    let mut commands = redis::pipe();
    commands.cmd("CLUSTER").arg("INFO");
    commands.cmd("DBSIZE");
    let mut answers = connection.send(commands).await.map_err(|error| outcome(&error))?.into_iter();
    let mut next = || answers.next().transpose().map_err(|error| outcome(&error)).map(Option::unwrap_or_default);
    let cluster = redis::from_redis_value::<String>(next()?).unwrap_or_default();
    let keys = redis::from_redis_value::<u64>(next()?).unwrap_or(u64::MAX);
    match ClusterInfo::parse(&cluster) {
        Ok(info) if info.slots_assigned == 0 && keys == 0 => Ok(()),
        _ => Err(Outcome::Moot("the node is not empty any more".to_owned())),
    }
}

/// A bare mark must not take the place of one that another run has just set together with lowered settings.
async fn is_not_lowered(connection: &mut Connection) -> Result<(), Outcome> {
    let mut commands = redis::pipe();
    commands.cmd("CONFIG").arg("GET").arg(NAME);
    let mut answers = connection.send(commands).await.map_err(|error| outcome(&error))?.into_iter();
    let answer = answers.next().transpose().map_err(|error| outcome(&error))?.unwrap_or_default();
    let name = redis::from_redis_value::<(String, String)>(answer).map(|(_, name)| name).unwrap_or_default();
    match Mark::parse(&name).and_then(|mark| mark.forming) {
        None => Ok(()),
        Some(_) => Err(Outcome::Moot("another run has lowered its settings".to_owned())),
    }
}

fn command(deed: &Deed) -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    match deed {
        Deed::Announce(mark) => return config_set(mark, None),
        Deed::Lower(mark, settings) | Deed::Restore(mark, settings) => return config_set(mark, Some(settings)),
        Deed::SetEpoch(epoch) => command.arg("SET-CONFIG-EPOCH").arg(*epoch),
        Deed::Meet(_, endpoint) => {
            command.arg("MEET").arg(endpoint.ip.to_string()).arg(endpoint.port).arg(endpoint.bus_port)
        }
        Deed::AddSlots(ranges) => {
            command.arg("ADDSLOTSRANGE");
            for range in ranges {
                command.arg(range.first().number()).arg(range.last().number());
            }
            &mut command
        }
        Deed::Replicate(primary) => command.arg("REPLICATE").arg(primary.as_str()),
    };
    command
}

/// The server sets all of them or none.
fn config_set(mark: &Mark, settings: Option<&Settings>) -> Cmd {
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg(NAME).arg(mark.to_string());
    if let Some(settings) = settings {
        command.arg(NODE_TIMEOUT).arg(u64::try_from(settings.node_timeout.as_millis()).unwrap_or(u64::MAX));
        command.arg(MIN_REPLICAS).arg(settings.min_replicas_to_write);
        command.arg(MAX_LAG).arg(settings.replicas_max_lag.as_secs());
        command.arg(SYNC_DELAY).arg(settings.sync_delay.as_secs());
    }
    command
}
