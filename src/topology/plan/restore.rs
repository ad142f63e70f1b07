//! Putting lowered settings back: as soon as forming is over, has failed, or is given up.

use super::{Action, Deed, Stage, StageKind};
use crate::topology::desired::DesiredTopology;
use crate::topology::identity::{Mark, Settings};
use crate::topology::membership::{Member, Membership};
use crate::topology::observation::Observation;

/// What puts every lowered setting back, where any is lowered: the last thing to do for a run that gives up.
pub fn restore(observation: &Observation, desired: &DesiredTopology) -> Option<Stage> {
    stage(&Membership::of(observation, &desired.cluster))
}

/// First the timeouts, everywhere; only then may clients write, anywhere.
pub(super) fn stage(membership: &Membership<'_>) -> Option<Stage> {
    let mut actions = timeouts(membership);
    if actions.is_empty() {
        let rest = lowered(membership).map(|(member, settings)| {
            let (cluster, pod, site) = (membership.cluster.clone(), member.pod.clone(), member.site());
            let mark = Mark { cluster, pod, forming: None, site };
            member.act(Deed::Restore(mark, settings))
        });
        actions.extend(rest);
    }
    (!actions.is_empty()).then_some(Stage { kind: StageKind::Restore, actions })
}

/// What puts the timeouts back, and nothing else.
pub(super) fn timeouts(membership: &Membership<'_>) -> Vec<Action> {
    lowered(membership)
        .filter(|(member, settings)| member.report.settings.node_timeout != settings.node_timeout)
        .map(|(member, settings)| member.act(Deed::RestoreTimeout(settings.node_timeout)))
        .collect()
}

fn lowered<'m, 'a>(membership: &'m Membership<'a>) -> impl Iterator<Item = (&'m Member<'a>, Settings)> {
    membership.members.iter().filter_map(|member| Some((member, originals(member, membership)?)))
}

/// The settings that a lowered node is to have again: as its mark says. Two runs that cross may leave a node lowered
/// without such a mark; pods of one set are configured alike, so then another member's count, and else the defaults.
pub(super) fn originals(member: &Member<'_>, membership: &Membership<'_>) -> Option<Settings> {
    let marked = |member: &Member<'_>| member.mark.as_ref().and_then(|mark| mark.forming);
    let of_others = || {
        let unlowered = |other: &Member<'_>| (!other.report.is_lowered()).then_some(other.report.settings);
        membership.members.iter().find_map(|other| marked(other).or_else(|| unlowered(other)))
    };
    member.report.is_lowered().then(|| marked(member).or_else(of_others).unwrap_or(Settings::DEFAULT))
}
