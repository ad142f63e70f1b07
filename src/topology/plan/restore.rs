//! Putting lowered settings back: as soon as forming is over, has failed, or is given up.

use super::{Deed, Stage, StageKind};
use crate::topology::desired::DesiredTopology;
use crate::topology::identity::{Mark, Settings};
use crate::topology::membership::Membership;
use crate::topology::observation::Observation;

/// What puts every lowered setting back, where any is lowered: the last thing to do for a run that gives up.
pub fn restore(observation: &Observation, desired: &DesiredTopology) -> Option<Stage> {
    stage(&Membership::of(observation, &desired.cluster))
}

/// First the timeouts, everywhere; only then may clients write, anywhere.
pub(super) fn stage(membership: &Membership<'_>) -> Option<Stage> {
    let lowered = || {
        membership.members.iter().filter_map(|member| {
            let mark = member.mark.clone()?;
            let settings = mark.forming?;
            Some((member, mark, settings))
        })
    };
    let timeouts =
        lowered().filter(|(member, _, settings)| member.report.settings.node_timeout != settings.node_timeout);
    let mut actions: Vec<_> = timeouts
        .map(|(member, mark, settings)| {
            let first = Settings { node_timeout: settings.node_timeout, ..member.report.settings };
            member.act(Deed::Restore(mark, first))
        })
        .collect();
    if actions.is_empty() {
        let rest = lowered()
            .map(|(member, mark, settings)| member.act(Deed::Restore(Mark { forming: None, ..mark }, settings)));
        actions.extend(rest);
    }
    (!actions.is_empty()).then_some(Stage { kind: StageKind::Restore, actions })
}
