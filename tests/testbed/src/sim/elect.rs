//! Automatic failover: the replica of a failed primary is elected by a majority of the primaries with slots.
//!
//! Mirrors `clusterHandleReplicaFailover`, `clusterSendFailoverAuthIfNeeded` and `clusterFailoverReplaceYourPrimary` in the
//! server's `cluster_legacy.c`. Ranks by offset are left out: copies are equal or of no use here.

use std::time::Duration;

use super::Sim;
use super::message::{Content, Message};
use super::node::{Id, Part};

/// `repl-ping-replica-period`.
const PING_PERIOD: Duration = Duration::from_secs(10);
/// `cluster-replica-validity-factor`.
const VALIDITY: u32 = 10;

/// A replica's attempt to be elected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Campaign {
    /// When it asks.
    at: Duration,
    /// The epoch it has asked in.
    epoch: Option<u64>,
    votes: usize,
}

impl Sim {
    /// What a replica does about the failure of its primary, at each tick.
    pub(super) fn stand_for_election(&mut self, at: usize) {
        let now = self.now;
        let server = &self.hosts[at].server;
        let Some(primary) = server.follows else { return };
        let has_failed = server.get(primary).is_some_and(|known| known.failed.is_some());
        if !has_failed || server.slots_of(primary) == 0 {
            return;
        }
        let timeout = server.settings.node_timeout;
        let Some(age) = server.linked.map(|linked| (now - linked).saturating_sub(timeout)) else { return };
        if age > PING_PERIOD + timeout * VALIDITY {
            return;
        }
        let patience = (timeout * 2).max(Duration::from_secs(2));
        match server.campaign {
            Some(campaign) if now.saturating_sub(campaign.at) <= patience * 2 => {
                if now < campaign.at || now - campaign.at > patience {
                    return;
                }
                match campaign.epoch {
                    None => self.ask_for_votes(at, campaign),
                    Some(epoch) => self.take_office(at, epoch, campaign.votes),
                }
            }
            _ => {
                let delay = Duration::from_millis(500 + self.random.u64(..500));
                self.hosts[at].server.campaign = Some(Campaign { at: now + delay, epoch: None, votes: 0 });
            }
        }
    }

    fn ask_for_votes(&mut self, at: usize, campaign: Campaign) {
        let server = &mut self.hosts[at].server;
        server.current_epoch += 1;
        server.campaign = Some(Campaign { epoch: Some(server.current_epoch), ..campaign });
        server.touch();
        self.broadcast(at, Content::Ask);
    }

    fn take_office(&mut self, at: usize, epoch: u64, votes: usize) {
        let server = &mut self.hosts[at].server;
        let (size, _) = server.voters();
        if votes > size / 2 {
            server.config_epoch = server.config_epoch.max(epoch);
            self.promote(at);
        }
    }

    /// A replica takes the place of its primary.
    pub(super) fn promote(&mut self, at: usize) {
        let server = &mut self.hosts[at].server;
        let Some(primary) = server.follows.take() else { return };
        let (id, set) = (server.id, server.slots_of(primary));
        (0..server.keys.len()).filter(|piece| set & 1 << piece != 0).for_each(|piece| server.give(piece, Some(id)));
        (server.synced, server.sync_began, server.campaign) = (None, None, None);
        server.touch();
        self.update_state(at);
        self.broadcast(at, Content::News);
    }

    /// Votes are asked for: one an epoch, for a replica of a failed primary whose slots nobody has taken since.
    pub(super) fn vote(&mut self, message: &Message) {
        let now = self.now;
        let (at, said) = (message.to, &message.header);
        let server = &self.hosts[at].server;
        let Some(primary) = said.follows else { return };
        let Some(known) = server.get(primary) else { return };
        let is_late = said.current_epoch < server.current_epoch || server.voted == server.current_epoch;
        let is_bound = known.vote_given.is_some_and(|until| now < until);
        let is_outdated = (0..server.keys.len())
            .filter(|piece| said.slots & 1 << piece != 0)
            .filter_map(|piece| server.owner(piece))
            .any(|owner| server.epoch_of(owner) > said.config_epoch);
        if !server.is_voter() || is_late || known.failed.is_none() || is_bound || is_outdated {
            return;
        }
        let server = &mut self.hosts[at].server;
        let (epoch, until) = (server.current_epoch, now + server.settings.node_timeout * 2);
        server.voted = epoch;
        server.known.get_mut(primary).into_iter().for_each(|known| known.vote_given = Some(until));
        self.post(at, message.from, Content::Vote(epoch), None);
    }

    pub(super) fn count_vote(&mut self, at: usize, of: Id, epoch: u64) {
        let server = &mut self.hosts[at].server;
        let votes = server.get(of).is_some_and(|known| known.role == Part::Primary) && server.slots_of(of) != 0;
        if let Some(campaign) = server.campaign.as_mut().filter(|campaign| votes && campaign.epoch == Some(epoch)) {
            campaign.votes += 1;
        }
    }
}
