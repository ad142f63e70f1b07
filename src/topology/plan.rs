//! The next step from what is observed to what is desired.
//!
//! Nothing is remembered between rounds: whatever was begun is seen in the cluster itself. So a run that was killed at
//! any line, a second run beside it and a pod that was restarted meanwhile are all the same case: observe, plan, act.

mod agree;
mod announce;
mod epochs;
mod forget;
mod hurry;
mod meet;
mod outrank;
mod refuse;
mod replicate;
mod restore;
mod slots;

use super::decision::{Action, Blocker, Decision, Deed, Stage, StageKind};
use super::desired::{DesiredTopology, Policy};
use super::membership::{Member, Membership};
use super::observation::Observation;

pub use restore::restore;
pub(super) use slots::receivers;

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
const STAGES: [(StageKind, StagePlan); 7] = [
    (StageKind::Announce, announce::plan),
    (StageKind::Epochs, epochs::plan),
    (StageKind::Meet, meet::plan),
    (StageKind::Forget, forget::plan),
    (StageKind::Slots, slots::plan),
    (StageKind::Replicate, replicate::plan),
    (StageKind::Hurry, hurry::plan),
];

/// What can be done while members are missing, in a cluster that serves without them.
const MEANWHILE: [(StageKind, StagePlan); 3] =
    [(StageKind::Announce, announce::plan), (StageKind::Meet, meet::plan), (StageKind::Replicate, replicate::plan)];

/// Decides what comes next. Pure and total; never acts on a node that did not answer in this observation.
///
/// Lowered settings go back when forming is over, and before anything else where clients could write beside them or
/// where nodes, too slow for a short timeout, lose sight of each other; the timeouts alone where that is so before all is
/// done.
pub fn plan(observation: &Observation, desired: &DesiredTopology, policy: &Policy) -> Decision {
    let membership = Membership::of(observation, &desired.cluster);
    let decision = form(observation, &membership, desired, policy);
    let over = matches!(decision, Decision::Converged(_) | Decision::Refuse(_));
    match restore::stage(&membership) {
        Some(stage) if over || takes_writes(&membership) || flaps(&membership, &decision) => Decision::Act(stage),
        _ => hurry::relief(&membership, desired).map_or(decision, Decision::Act),
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
    if let Some(refusal) = refuse::stray(membership) {
        return Decision::Refuse(refusal);
    }
    // Who knew each other before is one cluster already: that may be led together again whatever else is the matter.
    let rejoin = meet::rejoin(membership);
    if !rejoin.is_empty() {
        return Decision::Act(Stage { kind: StageKind::Meet, actions: rejoin });
    }
    if let Some(refusal) = refuse::unsafe_to_go_on(membership, desired) {
        return Decision::Refuse(refusal);
    }
    if membership.members.len() < desired.shape.members() {
        if let Some(stage) = meanwhile(membership, desired, policy) {
            return Decision::Act(stage);
        }
        return match refuse::strangers(membership, desired, policy) {
            Some(refusal) => Decision::Refuse(refusal),
            None => Decision::Wait(absences(observation, membership, desired)),
        };
    }
    if let Some(refusal) = refuse::incomplete(membership, policy).or_else(|| refuse::other_shape(membership, desired)) {
        return Decision::Refuse(refusal);
    }
    for (kind, stage) in STAGES {
        match stage(membership, desired, policy) {
            Step::Done => {}
            Step::Act(actions) => return Decision::Act(Stage { kind, actions }),
            Step::Wait(blockers) => return Decision::Wait(blockers),
        }
    }
    let differences = agree::differences(membership);
    if differences.iter().any(|(_, _, blocker)| matches!(blocker, Blocker::Outdated(..))) {
        let actions = outrank::plan(membership);
        if !actions.is_empty() {
            return Decision::Act(Stage { kind: StageKind::Outrank, actions });
        }
    }
    match agree::blockers(membership, differences) {
        blockers if blockers.is_empty() => Decision::Converged(desired.shape),
        blockers => Decision::Wait(blockers),
    }
}

/// Members are missing, and every slot is served all the same: new nodes may join, and fill the gaps of replicas. Nothing
/// is taken from anybody. Nor does a server count that knows nobody and carries no mark: it may be anybody's.
fn meanwhile(membership: &Membership<'_>, desired: &DesiredTopology, policy: &Policy) -> Option<Stage> {
    let membership = membership.of_proven();
    if !slots::are_served(&membership) {
        return None;
    }
    MEANWHILE.into_iter().find_map(|(kind, stage)| match stage(&membership, desired, policy) {
        Step::Act(actions) => Some(Stage { kind, actions }),
        Step::Done | Step::Wait(_) => None,
    })
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
