//! One round of looking: ask DNS, ask everybody, and know who was there before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::config::Reach;
use crate::discovery::{Discovery, Found};
use crate::exit::Failure;
use crate::topology::decision::{Action, Stage};
use crate::topology::identity::{ClusterId, Mark, PodName};
use crate::topology::membership::Membership;
use crate::topology::observation::Observation;
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
    /// Members of the last round, and addresses that members know others by.
    known: BTreeMap<SocketAddr, Option<PodName>>,
    found: Found,
    complete: bool,
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
            complete: false,
        })
    }

    /// Asks everybody. Takes no longer than DNS and the slowest server are waited for, and not beyond the deadline.
    pub async fn round(&mut self, deadline: Instant) -> Observation {
        if !self.complete {
            self.ask_dns(deadline).await;
        }
        let mut asked = self.known.clone();
        for candidate in &self.found.candidates {
            let pod = asked.entry(candidate.address).or_default();
            *pod = candidate.pod.clone().or_else(|| pod.take());
        }
        let candidates: Vec<_> = asked.into_iter().map(|(address, pod)| Candidate { pod, address }).collect();
        let mut observation = Observation {
            peers: self.fleet.observe(&candidates).await,
            unresolved: self.found.unresolved.clone(),
            trouble: self.found.trouble.clone(),
        };
        let hearsay = self.remember(&observation);
        observation.peers.retain(|peer| peer.answer.is_ok() || !hearsay.contains(&peer.address));
        observation
    }

    /// Whose nodes are ours: as configured, else as the first node that answered says.
    pub fn cluster(&self) -> ClusterId {
        self.cluster.clone().unwrap_or_else(ClusterId::unnamed)
    }

    /// Does what a stage says, on the very servers that the last round saw.
    pub async fn execute<'s>(&mut self, stage: &'s Stage) -> Vec<(&'s Action, Outcome)> {
        self.fleet.execute(stage).await
    }

    async fn ask_dns(&mut self, deadline: Instant) {
        /// With a cluster in sight DNS can only help, and is not waited for long.
        const BRIEFLY: Duration = Duration::from_millis(500);
        let round = timeout_at(deadline, self.discovery.round());
        let found = match self.known.is_empty() {
            true => round.await.ok(),
            false => timeout(BRIEFLY, round).await.ok().and_then(Result::ok),
        };
        self.found = found.unwrap_or_else(|| Found {
            trouble: vec!["DNS did not answer in time".to_owned()],
            ..std::mem::take(&mut self.found)
        });
    }

    /// Keeps who is a member and whom members know; returns the addresses that nobody but a former round speaks for.
    fn remember(&mut self, observation: &Observation) -> Vec<SocketAddr> {
        if self.cluster.is_none() {
            self.cluster =
                observation.reports().find_map(|(_, report)| Mark::parse(&report.name)).map(|mark| mark.cluster);
        }
        let membership = Membership::of(observation, &self.cluster());
        self.complete = self.members > 0
            && membership.members.len() == self.members
            && membership.silent.is_empty()
            && membership.strangers.is_empty();
        let from_dns: Vec<_> = self.found.candidates.iter().map(|candidate| candidate.address).collect();
        let hearsay = self.known.keys().filter(|address| !from_dns.contains(address)).copied().collect();
        self.known.clear();
        for member in &membership.members {
            let views = member.report.view.others().filter(|other| !other.flags.without_address);
            for endpoint in views.filter_map(|other| other.endpoint()) {
                self.known.entry(SocketAddr::new(endpoint.ip, endpoint.port)).or_default();
            }
        }
        for member in &membership.members {
            self.known.insert(member.address, member.pod.clone());
        }
        hearsay
    }
}
