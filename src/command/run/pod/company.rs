//! What goes on beside a server. A bug in one part ends neither the others nor, for good, that part.

use std::convert::Infallible;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join, join5};
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;

use super::Pod;
use crate::command::password_file;
use crate::command::probe::{OwnHealth, Told};
use crate::command::rebalance;
use crate::command::run::certificates::Certificates;
use crate::command::run::changeover::{Changeover, ChangeoverSettings};
use crate::command::run::keep::{Keeper, Own};
use crate::command::run::metrics;
use crate::command::run::record::Record;
use crate::command::run::settings::Settings;
use crate::command::run::watch::Watch;
use crate::command::run::{aof, guard};
use crate::exit;
use crate::observer::Observer;
use crate::process::{memory, signals};
use crate::topology::identity::PodName;
use crate::topology::parse::ServerConfig;
use crate::topology::probe::{Life, Phase, Reconciliation};
use crate::topology::server::ServerReport;
use crate::topology::start::OnDisk;
use crate::topology::supervise::State;
use crate::valkey::{Access, Candidate};

/// What is waited before a part with a bug is begun again: it may be one that strikes at once.
const PAUSE: Duration = Duration::from_secs(1);

impl Pod {
    /// Goes on until it is dropped.
    pub(super) async fn company(&self, state: watch::Receiver<State>) {
        let beside = async {
            // A supervisor that is gone needs no company.
            if state.clone().wait_for(|state| *state == State::Running).await.is_ok() {
                join(
                    again("looking at the certificates", || self.renew_certificates()),
                    join5(
                        again("watching the server", || self.watch()),
                        again("changing the password over", || self.change_over(state.clone())),
                        again("paying what the start left to do", || self.pay_debts(state.clone())),
                        again("keeping the cluster in its shape", || self.keep(state.clone())),
                        again("keeping slots even", || self.keep_even(state.clone())),
                    ),
                )
                .await;
            }
            pending::<()>().await;
        };
        let live = again("telling how far the server is", || self.live(state.clone()));
        let probes = again("answering probes", || self.answer_probes());
        let file = again("watching the password file", || self.watch_password_file());
        let memory = again("giving memory back", stay_small);
        join5(live, probes, file, memory, beside).await;
    }

    async fn watch(&self) -> Infallible {
        let nodes_conf = self.debts.borrow().nodes_conf.clone();
        let watch = Watch {
            server: self.settings.server().kept_even(self.settings.auto_rebalance),
            credentials: &self.settings.credentials,
            takes_over: self.settings.takes_over,
            last: &self.last,
            tally: &self.tally,
            nodes_conf: nodes_conf.as_deref(),
        };
        watch.run().await
    }

    async fn watch_password_file(&self) {
        if let Some(file) = &self.settings.password_file {
            password_file::watch(file, &self.settings.credentials.keyring).await;
        }
    }

    /// Until the node leaves, or its server has ended.
    async fn change_over(&self, mut state: watch::Receiver<State>) {
        let Settings { config, address, credentials, to_own_server, policy, password_overlap, .. } = &self.settings;
        let dir = self.data_dir();
        let settings = ChangeoverSettings {
            in_cluster: policy.cluster,
            has_acl_file: config.as_ref().is_some_and(|config| config.is_given("aclfile")),
            overlap: *password_overlap,
        };
        let own = Access::at(*address, to_own_server.clone());
        let changeover = Changeover::new(own, credentials, &self.last, settings, Record::read(dir.as_deref()));
        tokio::select! {
            never = changeover.run() => match never {},
            _ = state.wait_for(|state| *state != State::Running) => {}
        }
    }

    async fn renew_certificates(&self) {
        if let Some(tls) = &self.settings.credentials.tls {
            match Certificates::new(&self.settings, tls, &self.tally).run().await {}
        }
    }

    async fn pay_debts(&self, state: watch::Receiver<State>) {
        let debts = self.debts.borrow().clone();
        if let Some((config, disk)) = debts.held_back {
            if !self.let_go(&config, &disk, state).await {
                return;
            }
            self.debts.send_modify(|debts| debts.held_back = None);
        }
        if debts.append_only {
            aof::switch_on(&mut self.settings.server()).await;
        }
    }

    /// A server that was started held back is let go when it may be; false where the node leaves before.
    async fn let_go(&self, config: &ServerConfig, disk: &OnDisk, mut state: watch::Receiver<State>) -> bool {
        const OFTEN: Duration = Duration::from_millis(100);
        let (guard, mut server) = (self.around(), self.settings.server());
        let mut leaves = pin!(state.wait_for(|state| *state != State::Running));
        // Also while it loads; what is begun after that is seen through.
        let up = async {
            while server.report().await.is_err() {
                sleep(OFTEN).await;
            }
        };
        tokio::select! {
            () = up => {}
            _ = &mut leaves => return false,
        }
        // A bug in what follows must not lose what alone can open it.
        let door = Mutex::new(guard::shut(self.settings.address, &guard, disk).await);
        let server = Mutex::new(server);
        let release =
            || async { guard::release(&mut *door.lock().await, &mut *server.lock().await, &guard, disk, config).await };
        let released = tokio::select! {
            released = again("letting go of the server", release) => Some(released),
            _ = &mut leaves => None,
        };
        match released {
            Some(Ok(())) => return true,
            Some(Err(lost)) => {
                tracing::error!(
                    "the server, which is held back, lets in nobody and not even us: it is restarted ({lost})"
                );
                if let Err(error) = signals::stop_ourselves() {
                    tracing::error!("it is not: {error}");
                }
            }
            // It has taken no writes, and everybody but this process is shut out: there is nothing to drain.
            None => {
                if let Some(door) = door.into_inner() {
                    door.end().await;
                }
            }
        }
        false
    }

    /// Until the node leaves, or its server has ended.
    async fn keep(&self, mut state: watch::Receiver<State>) {
        let (Some(reach), Some(wanted)) = (&self.settings.reach, &self.settings.wanted) else {
            return;
        };
        let own = Candidate { pod: self.settings.name.clone(), address: self.settings.address };
        let ordinal = own.pod.as_ref().and_then(PodName::ordinal);
        let observer = match Observer::new(reach, wanted.members()) {
            Ok(observer) => observer.beside(own),
            Err(failure) => {
                tracing::error!("nothing keeps the cluster in its shape from here: {failure}");
                return;
            }
        };
        let own = Own { address: self.settings.address, ordinal, site: self.settings.site.clone() };
        let keeper = Keeper::new(wanted, observer, own, &self.last, &self.progress, &self.tally)
            .forming(self.settings.forms.clone());
        let keep = async {
            let held_back = Reconciliation::paused("a replica holds better data, and has to take over first");
            self.progress.send_replace(Some(held_back));
            // Without a sender there is no pod.
            let _ = self.debts.subscribe().wait_for(|debts| debts.held_back.is_none()).await;
            keeper.run().await
        };
        tokio::select! {
            never = keep => match never {},
            _ = state.wait_for(|state| *state != State::Running) => {
                self.progress.send_replace(Some(Reconciliation::paused("this node is leaving")));
            }
        }
    }

    /// With `--auto-rebalance`: slots of this node go to who owns too few, whenever the cluster is as it is to be; and what
    /// is half-way here is finished where all others wait for that.
    async fn keep_even(&self, state: watch::Receiver<State>) {
        const EVERY: Duration = Duration::from_secs(30);
        let Some(reach) = self.settings.reach.as_ref().filter(|_| self.settings.auto_rebalance) else {
            return;
        };
        let mut told = String::new();
        loop {
            let is_open = |report: &ServerReport| report.myself().is_some_and(|myself| !myself.moving.is_empty());
            let stands = |progress: &Option<Reconciliation>| {
                progress.as_ref().is_some_and(|progress| match progress.state {
                    Phase::Converged => true,
                    _ => progress.awaits_slots && self.last.borrow().as_ref().is_some_and(is_open),
                })
            };
            // Without a sender there is no pod.
            let _ = self.progress.subscribe().wait_for(stands).await;
            let takes_part = |report: &&ServerReport| report.owns_slots() || is_open(report);
            let owner = self.last.borrow().as_ref().filter(takes_part).and_then(ServerReport::id);
            if let Some(owner) = owner {
                let mut running = state.clone();
                let stop = async { drop(running.wait_for(|state| *state != State::Running).await) };
                match rebalance::give_away(owner, reach, stop).await {
                    Ok(0) => told.clear(),
                    Ok(slots) => tracing::info!("{slots} slots of this node have gone to primaries that owned too few"),
                    Err(failure) if failure.to_string() != told => {
                        told = failure.to_string();
                        tracing::warn!("slots are not even: {told}");
                    }
                    Err(_) => {}
                }
            }
            if *state.borrow() != State::Running {
                return;
            }
            sleep(EVERY).await;
        }
    }

    async fn answer_probes(&self) {
        if let Some(admin) = &self.admin {
            let (server, dir) = (self.settings.server(), self.settings.data_dir.clone());
            let told = Told { life: self.life.subscribe(), reconciliation: self.progress.subscribe() };
            let told = metrics::Told {
                health: OwnHealth::new(told, server, self.settings.policy.cluster, dir),
                life: self.life.subscribe(),
                last: self.last.subscribe(),
                progress: self.progress.subscribe(),
                tls: self.settings.credentials.tls.clone(),
                tally: Arc::clone(&self.tally),
            };
            admin.serve(told).await;
        }
    }

    async fn live(&self, mut state: watch::Receiver<State>) {
        loop {
            let now = lived(*state.borrow_and_update());
            self.life.send_if_modified(|life| now.is_some_and(|now| std::mem::replace(life, now.clone()) != now));
            if state.changed().await.is_err() {
                return;
            }
        }
    }
}

async fn stay_small() -> Infallible {
    const EVERY: Duration = Duration::from_secs(5);
    loop {
        sleep(EVERY).await;
        memory::give_back();
    }
}

/// Does a part of it to its end, beginning anew where it has a bug.
async fn again<F: Future>(what: &str, mut part: impl FnMut() -> F) -> F::Output {
    loop {
        match AssertUnwindSafe(part()).catch_unwind().await {
            Ok(ended) => return ended,
            Err(panic) => tracing::error!("{what}: {}", exit::bug(&*panic)),
        }
        sleep(PAUSE).await;
    }
}

/// What probes are told of a state; none where it changes nothing for them.
fn lived(state: State) -> Option<Life> {
    match state {
        State::Idle | State::Guarding | State::Starting => None,
        State::Running => Some(Life::Running),
        State::Draining | State::Stopping | State::Killing => Some(Life::Draining),
        State::Concluding | State::HandingOver | State::Exited => Some(Life::Ended),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_part_with_a_bug_is_begun_again_until_it_is_done() {
        let begun = Cell::new(0);
        let done = again("counting", || async {
            begun.set(begun.get() + 1);
            tokio::task::yield_now().await;
            match begun.get() {
                1 => panic!("a bug"),
                times => times,
            }
        });
        assert_eq!(done.await, 2);
    }
}
