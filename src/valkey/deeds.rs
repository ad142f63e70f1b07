//! Doing what was decided, on one server.

use std::time::Duration;

use redis::{Cmd, Pipeline};

use super::Outcome;
use super::connection::Connection;
use super::error::outcome;
use super::report::{self, MAX_LAG, MIN_REPLICAS, NAME, NODE_TIMEOUT, SYNC_DELAY};
use crate::topology::decision::{Action, Deed};
use crate::topology::identity::{Mark, Settings};

pub(super) async fn execute<'s>(connection: &mut Connection, actions: Vec<&'s Action>) -> Vec<(&'s Action, Outcome)> {
    if actions.iter().any(|action| action.deed.must_be_checked()) {
        let all = |outcome: Outcome| actions.iter().map(|action| (*action, outcome.clone())).collect();
        match report::ask(connection).await {
            Ok(now) if actions.iter().all(|action| action.deed.still_fits(&now)) => {}
            Ok(_) => return all(Outcome::Moot("the node has changed meanwhile".to_owned())),
            Err(silence) => return all(Outcome::Failed(silence.to_string())),
        }
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

fn command(deed: &Deed) -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    match deed {
        Deed::Announce(mark) => return config_set(mark, None),
        Deed::RestoreTimeout(timeout) => {
            let mut config = redis::cmd("CONFIG");
            config.arg("SET").arg(NODE_TIMEOUT).arg(milliseconds(*timeout));
            return config;
        }
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
        Deed::Replicate(primary) => command.arg("REPLICATE").arg(primary.to_string()),
        Deed::BumpEpoch => command.arg("BUMPEPOCH"),
        Deed::Forget(id) => command.arg("FORGET").arg(id.to_string()),
    };
    command
}

/// The server sets all of them or none.
fn config_set(mark: &Mark, settings: Option<&Settings>) -> Cmd {
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg(NAME).arg(mark.to_string());
    if let Some(settings) = settings {
        command.arg(NODE_TIMEOUT).arg(milliseconds(settings.node_timeout));
        command.arg(MIN_REPLICAS).arg(settings.min_replicas_to_write);
        command.arg(MAX_LAG).arg(settings.replicas_max_lag.as_secs());
        command.arg(SYNC_DELAY).arg(settings.sync_delay.as_secs());
    }
    command
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
