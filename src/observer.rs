//! One round of looking: ask DNS, ask everybody, and know who was there before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::Reach;
use crate::discovery::{Discovery, Found};
use crate::exit::Failure;
use crate::topology::decision::{Action, Stage};
use crate::topology::identity::{ClusterId, Mark, PodName};
use crate::topology::membership::Membership;
use crate::topology::node::NodeId;
use crate::topology::observation::{NodeReport, Observation, Peer};
use crate::valkey::{Candidate, Fleet, Outcome};

/// Looks at the cluster, round by round.
///
/// DNS may forget a pod for half a minute. So who was a member in the last round, and whom a member knows, is asked
/// again whether DNS names it or not; and while all members answer there is nothing that DNS could add.
pub struct Observer {
    discovery: Discovery,
    fleet: Fleet,
    cluster: Option<ClusterId>,
    members: usize,
    known: BTreeMap<SocketAddr, Known>,
    found: Found,
    /// Our own node: it is asked whether DNS names it or not.
    own: Option<Candidate>,
    /// The questions to DNS that are under way; one round of them at most.
    asking: JoinSet<Found>,
    complete: bool,
    /// Since when servers that know nobody and carry no mark have been seen.
    unmarked: BTreeMap<NodeId, Instant>,
}

/// For so long DNS may lead to a server that is not ours, and a little more.
const DNS_BEHIND: Duration = Duration::from_secs(32);

/// Who was found at an address before, or is said to be there by a member.
#[derive(Clone, Debug)]
struct Known {
    id: NodeId,
    pod: Option<PodName>,
}

impl Observer {
    /// Looks for `members` nodes; zero where their number is not known.
    pub fn new(reach: &Reach, members: usize) -> Result<Self, Failure> {
        Ok(Self {
            discovery: Discovery::new(reach, members)?,
            fleet: Fleet::new(reach.credentials.clone()),
            cluster: reach.cluster.clone(),
            members,
            known: BTreeMap::new(),
            found: Found::default(),
            own: None,
            asking: JoinSet::new(),
            complete: false,
            unmarked: BTreeMap::new(),
        })
    }

    /// The same beside a node of ours, of which DNS may not have heard yet.
    pub fn beside(self, own: Candidate) -> Self {
        Self { own: Some(own), ..self }
    }

    /// Asks everybody. Takes no longer than DNS and the slowest server are waited for, and not beyond the deadline.
    pub async fn round(&mut self, deadline: Instant) -> Observation {
        if !self.complete {
            self.ask_dns(deadline).await;
        }
        let known = std::mem::take(&mut self.known);
        let mut asked: BTreeMap<_, _> = known.iter().map(|(address, known)| (*address, known.pod.clone())).collect();
        for candidate in self.found.candidates.iter().chain(&self.own) {
            let pod = asked.entry(candidate.address).or_default();
            *pod = candidate.pod.clone().or_else(|| pod.take());
        }
        let candidates: Vec<_> = asked.into_iter().map(|(address, pod)| Candidate { pod, address }).collect();
        let mut peers = self.fleet.observe(&candidates).await;
        // What DNS does not name counts only as the very node that is known to be there.
        let named = self.found.candidates.iter().chain(&self.own).map(|candidate| candidate.address);
        let is_named = |peer: &Peer| named.clone().any(|address| address == peer.address);
        peers.retain(|peer| {
            let expected = known.get(&peer.address).map(|known| known.id);
            is_named(peer) || peer.answer.as_ref().is_ok_and(|report| Some(report.id()) == expected)
        });
        let newcomers = self.newcomers(&peers);
        let (unresolved, trouble) = (self.found.unresolved.clone(), self.found.trouble.clone());
        let certificates = self.fleet.certificates();
        let observation = Observation { peers, unresolved, trouble, newcomers, certificates };
        self.remember(&observation);
        observation
    }

    /// Whose nodes are ours: as configured, else as the first node that answered says.
    pub fn cluster(&self) -> ClusterId {
        self.cluster.clone().unwrap_or_else(ClusterId::unnamed)
    }

    /// Closes the connections, which are not needed for a while; the next round opens new ones.
    pub fn hang_up(&mut self) {
        self.fleet.hang_up();
    }

    /// Does what a stage says, on the very servers that the last round saw.
    pub async fn execute<'s>(&mut self, stage: &'s Stage) -> Vec<(&'s Action, Outcome)> {
        self.fleet.execute(stage).await
    }

    /// Takes what DNS has said by now. With a cluster in sight DNS can only help, and is not waited for long; what comes
    /// late counts in a later round.
    async fn ask_dns(&mut self, deadline: Instant) {
        const BRIEFLY: Duration = Duration::from_millis(500);
        if self.asking.is_empty() {
            let discovery = self.discovery.clone();
            self.asking.spawn(async move { discovery.round().await });
        }
        let limit = match self.known.is_empty() {
            true => deadline,
            false => deadline.min(Instant::now() + BRIEFLY),
        };
        match timeout_at(limit, self.asking.join_next()).await {
            Ok(Some(Ok(found))) => self.found = found,
            // What it said before says more.
            _ if self.found.trouble.is_empty() => self.found.trouble.push("DNS has not answered yet".to_owned()),
            _ => {}
        }
    }

    /// Who carries no mark, knows nobody and has not been seen for long. Our own node is ours from the first moment.
    fn newcomers(&mut self, peers: &[Peer]) -> BTreeSet<NodeId> {
        let own = self.own.as_ref().map(|own| own.address);
        let others = peers.iter().filter(|peer| Some(peer.address) != own);
        let reports = others.filter_map(|peer| peer.answer.as_deref().ok());
        let unmarked = reports.filter(|report| report.name.is_empty() && report.view.others().next().is_none());
        let unmarked: BTreeSet<NodeId> = unmarked.map(NodeReport::id).collect();
        self.unmarked.retain(|id, _| unmarked.contains(id));
        let now = Instant::now();
        let since = |id: &NodeId| *self.unmarked.entry(*id).or_insert(now);
        unmarked
            .iter()
            .map(since)
            .zip(&unmarked)
            .filter(|(since, _)| *since + DNS_BEHIND > now)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Keeps who is a member, and whom members know that did not answer elsewhere.
    fn remember(&mut self, observation: &Observation) {
        if self.cluster.is_none() {
            self.cluster =
                observation.reports().find_map(|(_, report)| Mark::parse(&report.name)).map(|mark| mark.cluster);
        }
        let membership = Membership::of(observation, &self.cluster());
        self.complete = self.members > 0
            && membership.members.len() == self.members
            && membership.silent.is_empty()
            && membership.strangers.is_empty();
        for member in &membership.members {
            for other in member.report.view.others().filter(|other| membership.get(other.id).is_none()) {
                if let Some(endpoint) = other.endpoint().filter(|_| !other.flags.without_address) {
                    let known = Known { id: other.id, pod: None };
                    self.known.insert(SocketAddr::new(endpoint.ip, endpoint.port), known);
                }
            }
        }
        for member in &membership.members {
            self.known.insert(member.address, Known { id: member.id(), pod: member.pod.clone() });
        }
    }
}
