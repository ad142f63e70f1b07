//! The next step from what is observed to what is desired.
//!
//! Nothing is remembered between rounds: whatever was begun is seen in the cluster itself. So a run that was killed at
//! any line, a second run beside it and a pod that was restarted meanwhile are all the same case: observe, plan, act.

mod agree;
mod announce;
mod epochs;
mod meet;
mod refuse;
mod replicate;
mod restore;
mod slots;

use super::decision::{Action, Blocker, Decision, Deed, Stage, StageKind};
use super::desired::{DesiredTopology, Policy};
use super::membership::{Member, Membership};
use super::observation::Observation;

pub use restore::restore;

/// What one stage has to say.
enum Step {
    /// Nothing: on to the next stage.
    Done,
    /// This comes next.
    Act(Vec<Action>),
    /// This must come about first.
    Wait(Vec<Blocker>),
}

type StagePlan = fn(&Membership<'_>, &DesiredTopology, &Policy) -> Step;

/// The stages in their order. Epochs come before MEET because the server takes them only from a node that knows
/// nobody; slots come after it because islands with slots cannot be told from two clusters.
const STAGES: [(StageKind, StagePlan); 5] = [
    (StageKind::Announce, announce::plan),
    (StageKind::Epochs, epochs::plan),
    (StageKind::Meet, meet::plan),
    (StageKind::Slots, slots::plan),
    (StageKind::Replicate, replicate::plan),
];

/// Decides what comes next. Pure and total; never acts on a node that did not answer in this observation.
///
/// Lowered settings go back when forming is over, and before anything else where clients could write beside them or
/// where nodes, too slow for a short timeout, lose sight of each other.
pub fn plan(observation: &Observation, desired: &DesiredTopology, policy: &Policy) -> Decision {
    let membership = Membership::of(observation, &desired.cluster);
    let decision = form(observation, &membership, desired, policy);
    let over = matches!(decision, Decision::Converged(_) | Decision::Refuse(_));
    match restore::stage(&membership) {
        Some(stage) if over || takes_writes(&membership) || flaps(&membership, &decision) => Decision::Act(stage),
        _ => decision,
    }
}

/// Whether there are keys, or a node whose settings are not lowered could take some.
fn takes_writes(membership: &Membership<'_>) -> bool {
    membership.members.iter().any(|member| {
        let is_open = !member.report.settings.are_lowered();
        member.report.keys > 0 || (is_open && slots::owns_slots(member) && member.report.cluster.ok)
    })
}

/// Whether all say ok, and yet somebody cannot reach somebody.
fn flaps(membership: &Membership<'_>, decision: &Decision) -> bool {
    let all_ok = membership.members.iter().all(|member| member.report.cluster.ok);
    let suspects = |blocker: &Blocker| matches!(blocker, Blocker::Suspects(..));
    all_ok && matches!(decision, Decision::Wait(blockers) if blockers.iter().any(suspects))
}

fn form(
    observation: &Observation,
    membership: &Membership<'_>,
    desired: &DesiredTopology,
    policy: &Policy,
) -> Decision {
    if let Some(refusal) = refuse::check(membership, desired) {
        return Decision::Refuse(refusal);
    }
    if membership.members.len() < desired.shape.members() {
        let rejoin = meet::rejoin(membership);
        return match rejoin.is_empty() {
            true => Decision::Wait(absences(observation, membership, desired)),
            false => Decision::Act(Stage { kind: StageKind::Meet, actions: rejoin }),
        };
    }
    for (kind, stage) in STAGES {
        match stage(membership, desired, policy) {
            Step::Done => {}
            Step::Act(actions) => return Decision::Act(Stage { kind, actions }),
            Step::Wait(blockers) => return Decision::Wait(blockers),
        }
    }
    match agree::blockers(membership) {
        blockers if blockers.is_empty() => Decision::Converged(desired.shape),
        blockers => Decision::Wait(blockers),
    }
}

/// Who is missing, by name where names are known; never empty while members are missing.
fn absences(observation: &Observation, membership: &Membership<'_>, desired: &DesiredTopology) -> Vec<Blocker> {
    let silent = membership.silent.iter().map(|(label, why)| Blocker::Silent(label.clone(), why.to_string()));
    let unresolved = observation
        .unresolved
        .iter()
        .filter(|pod| !membership.has(pod))
        .map(|pod| Blocker::Unresolved(pod.to_string()));
    let mut blockers: Vec<_> = silent.chain(unresolved).collect();
    let (present, wanted) = (membership.members.len(), desired.shape.members());
    if blockers.len() < wanted.saturating_sub(present) {
        blockers.push(Blocker::TooFew { present, wanted });
    }
    blockers.extend(membership.strangers.iter().cloned().map(Blocker::Foreign));
    blockers
}

impl Step {
    /// Acts where there is something to do.
    fn act(actions: Vec<Action>) -> Self {
        match actions.is_empty() {
            true => Self::Done,
            false => Self::Act(actions),
        }
    }
}

impl Member<'_> {
    /// A deed on this node.
    fn act(&self, deed: Deed) -> Action {
        Action { on: self.id(), label: self.label(), address: self.address, deed }
    }
}
