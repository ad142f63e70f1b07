//! Putting lowered settings back: as soon as forming is over, has failed, or is given up.

use super::{Deed, Stage, StageKind};
use crate::topology::desired::DesiredTopology;
use crate::topology::identity::Mark;
use crate::topology::membership::Membership;
use crate::topology::observation::Observation;

/// What puts every lowered setting back, where any is lowered: the last thing to do for a run that gives up.
pub fn restore(observation: &Observation, desired: &DesiredTopology) -> Option<Stage> {
    stage(&Membership::of(observation, &desired.cluster))
}

pub(super) fn stage(membership: &Membership<'_>) -> Option<Stage> {
    let actions: Vec<_> = membership
        .members
        .iter()
        .filter_map(|member| {
            let mark = member.mark.clone()?;
            let settings = mark.forming?;
            Some(member.act(Deed::Restore(Mark { forming: None, ..mark }, settings)))
        })
        .collect();
    (!actions.is_empty()).then_some(Stage { kind: StageKind::Restore, actions })
}
