//! The password of this pod's server, changed over to what the password file says. What is done is decided by
//! [`decide`]; every pod acts on its own server alone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::record::Record;
use super::watch::LastReport;
use crate::config::{Credentials, Secret};
use crate::topology::changeover::{Other, PasswordHash, Scene, Standing, Step, decide};
use crate::topology::membership::Label;
use crate::topology::observation::Silence;
use crate::topology::server::{ClusterView, ServerReport};
use crate::valkey::{Access, AccessChange, Outcome};

/// How often everybody is asked while something is to be done.
const OFTEN: Duration = Duration::from_millis(500);
/// The same while nothing is: somebody else's file may have changed before ours.
const SELDOM: Duration = Duration::from_secs(10);
/// How often our own server alone is asked then: whom a password was given by hand puts its own behind it.
const OWN: Duration = Duration::from_secs(1);
/// How long a password has to be the last of a node's before it is taken for what its pod's file says; longer than it
/// takes that node to see that it is not.
const SEEN: Duration = Duration::from_secs(3);
/// How long another node may take to say how it stands to us.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before our own server is asked again that did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How long others are waited for before it is worth a line in the log, and before the next one.
const LONG: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(60);
/// After this long it is more than a secret that reaches one pod later than another.
const TOO_LONG: Duration = Duration::from_secs(300);

/// Beside one server.
pub(super) struct Changeover<'p> {
    credentials: &'p Credentials,
    own: Access,
    others: BTreeMap<SocketAddr, Access>,
    last: watch::Receiver<Option<ServerReport>>,
    settings: ChangeoverSettings,
    record: Record,
    /// The passwords that other nodes list last and our server does not accept, and since when.
    strange: BTreeMap<PasswordHash, Instant>,
    /// Since when everybody agrees.
    agreed: Option<Instant>,
    /// What is waited for, and since when.
    waits: Option<(Instant, Option<Instant>)>,
    /// What our server would not let us do; said once.
    refused: Option<String>,
    /// Whether the server's ACL file is behind the server.
    unsaved: bool,
}

/// What of the options it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChangeoverSettings {
    pub(super) in_cluster: bool,
    /// Whether the server keeps its users in a file.
    pub(super) has_acl_file: bool,
    pub(super) overlap: Duration,
}

impl<'p> Changeover<'p> {
    /// Beside this server.
    pub(super) fn new(
        own: Access,
        credentials: &'p Credentials,
        last: &LastReport,
        settings: ChangeoverSettings,
        record: Record,
    ) -> Self {
        Self {
            credentials,
            own,
            others: BTreeMap::new(),
            last: last.subscribe(),
            settings,
            record,
            strange: BTreeMap::new(),
            agreed: None,
            waits: None,
            refused: None,
            unsaved: false,
        }
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            let Some(mine) = self.credentials.keyring.current() else {
                // Where no password is asked for there is none to change.
                return pending().await;
            };
            let view = self.last.borrow_and_update().as_ref().and_then(|report| report.cluster.clone());
            let step = self.round(&mine, view.as_ref()).await;
            let nodes = view.as_ref().map_or(1, |view| view.view.entries().len());
            let factor = u32::try_from(nodes.div_ceil(32)).unwrap_or(u32::MAX);
            let pause = match step {
                Some(Step::Accept(_) | Step::FollowWithMine | Step::Retire(_)) => OFTEN / 10,
                Some(Step::Wait(_) | Step::Overlap(_)) => OFTEN.saturating_mul(factor),
                None => PAUSE,
                Some(Step::Settled) if !self.strange.is_empty() => OFTEN.saturating_mul(factor),
                Some(Step::Settled) => {
                    self.others.values_mut().for_each(Access::hang_up);
                    SELDOM.saturating_mul(factor)
                }
            };
            self.pause(pause, &mine, view.as_ref()).await;
        }
    }

    /// Until it is time, the file says something else, or our server sees the cluster in another way.
    async fn pause(&mut self, time: Duration, mine: &Secret, seen: Option<&ClusterView>) {
        let is_news = |report: &Option<ServerReport>| {
            report.as_ref().is_some_and(|report| report.cluster.is_some() && report.cluster.as_ref() != seen)
        };
        let (keyring, last, own, hash) = (&self.credentials.keyring, &mut self.last, &mut self.own, mine.hash());
        let changed = async {
            if last.wait_for(is_news).await.is_err() {
                pending::<()>().await;
            }
            // A node that comes back takes a moment to be as it is to be.
            sleep(OFTEN).await;
        };
        let overtaken = async {
            loop {
                sleep(OWN).await;
                if own.look(None).await.is_ok_and(|standing| standing.wanted().is_some_and(|last| *last != hash)) {
                    break;
                }
            }
        };
        let news = async {
            tokio::select! {
                () = keyring.is_other_than(Some(mine)) => {}
                () = changed => {}
                () = overtaken => {}
            }
        };
        // Either way it is time.
        drop(timeout(time, news).await);
    }

    /// Looks, decides and acts. None where our own server does not say how it stands to us.
    async fn round(&mut self, mine: &Secret, view: Option<&ClusterView>) -> Option<Step> {
        let hash = mine.hash();
        let own = match self.own.look(None).await {
            Ok(own) => own,
            Err(silence) => {
                if let Silence::Denied(why) = &silence {
                    self.tell_refused(why);
                }
                return None;
            }
        };
        if self.settings.in_cluster && view.is_none() {
            return None;
        }
        let others = match view {
            Some(view) => Some(self.look_around(view).await),
            None => None,
        };
        self.note_strange(&own, others.as_deref().unwrap_or_default());
        // It is ours from the moment that the file says so.
        self.record.add([&hash]);
        let step = self.decide(&hash, &own, others.as_deref());
        self.agreed = match step {
            Step::Overlap(_) if self.agreed.is_none() => {
                tracing::info!("{step}");
                Some(Instant::now())
            }
            Step::Overlap(_) => self.agreed,
            Step::Retire(_) | Step::FollowWithMine => self.agreed,
            _ => None,
        };
        self.tell_wait(&step);
        self.act(&step, &hash, mine).await;
        self.save().await;
        Some(step)
    }

    fn note_strange(&mut self, own: &Standing, others: &[Other]) {
        let listed: Vec<_> = others.iter().filter_map(|other| other.standing.as_ref().ok()?.wanted()).collect();
        self.strange.retain(|hash, _| listed.contains(&hash) && !own.accepts(hash));
        for hash in listed.into_iter().filter(|hash| !own.accepts(hash)) {
            self.strange.entry(hash.clone()).or_insert_with(Instant::now);
        }
    }

    fn decide(&self, mine: &PasswordHash, own: &Standing, others: Option<&[Other]>) -> Step {
        let fresh = self.strange.iter().filter(|(_, since)| since.elapsed() < SEEN).map(|(hash, _)| hash.clone());
        decide(&Scene {
            mine,
            own,
            others,
            fresh: &fresh.collect(),
            recorded: self.record.hashes(),
            agreed: self.agreed.map_or(Duration::ZERO, |since| since.elapsed()),
            overlap: self.settings.overlap,
        })
    }

    /// Asks all whom our server knows, all at once.
    async fn look_around(&mut self, view: &ClusterView) -> Vec<Other> {
        let known: Vec<_> = view.view.others().filter(|entry| entry.is_known()).collect();
        let labels: Vec<_> = known.iter().map(|entry| (entry.id, Label::of(entry))).collect();
        self.others
            .retain(|address, _| labels.iter().flat_map(|(_, label)| label).any(|label| label.address == *address));
        for (_, label) in &labels {
            if let Some(label) = label {
                let access = || Access::at(label.address, self.credentials.clone());
                self.others.entry(label.address).or_insert_with(access);
            }
        }
        let asked = self.others.iter_mut().map(|(address, access)| {
            let node = labels.iter().find(|(_, label)| label.as_ref().is_some_and(|label| label.address == *address));
            let node = node.map(|(id, _)| *id);
            async move {
                let late = || Silence::Unreachable("no answer in time".to_owned());
                let standing = timeout(PATIENCE, access.look(node)).await.unwrap_or_else(|_| Err(late()));
                (*address, standing)
            }
        });
        let answers: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
        let others = labels.iter().map(|(id, label)| match label {
            Some(label) => {
                let silent = || Silence::Unreachable("it shares its address with another node".to_owned());
                let standing = answers.get(&label.address).cloned().unwrap_or_else(|| Err(silent()));
                Other { name: label.to_string(), standing }
            }
            None => {
                let silent = Silence::Unreachable("nobody knows its address".to_owned());
                Other { name: id.short(), standing: Err(silent) }
            }
        });
        others.collect()
    }

    async fn act(&mut self, step: &Step, hash: &PasswordHash, mine: &Secret) {
        let change = match step {
            Step::Accept(also) => {
                // Noted down first: who is let in once stays in over a restart.
                self.record.add(also);
                AccessChange::Accept(also.iter().chain([hash]).cloned().collect())
            }
            Step::FollowWithMine => AccessChange::EnterWith(mine.clone()),
            Step::Retire(former) => AccessChange::Refuse(former.clone()),
            Step::Settled => {
                self.credentials.keyring.forget_all_but(mine);
                return;
            }
            Step::Wait(_) | Step::Overlap(_) => return,
        };
        if let Some(why) = failure(self.own.tell(&change).await) {
            self.tell_refused(&why);
            return;
        }
        tracing::info!("{step}");
        self.refused = None;
        if let Step::Retire(former) = step {
            self.record.retire(former);
        }
        self.unsaved |= self.settings.has_acl_file && !matches!(step, Step::FollowWithMine);
    }

    /// Until it is done: a server that starts again knows what is in its file.
    async fn save(&mut self) {
        if !self.unsaved {
            return;
        }
        match failure(self.own.tell(&AccessChange::Save).await) {
            None => self.unsaved = false,
            Some(why) => self.tell_refused(&format!(
                "the server cannot keep its passwords in its ACL file: {why}; make that file and its folder writable to it, or \
                 write the hash of the new password there before it starts again"
            )),
        }
    }

    /// What others are waited for is worth a line when it takes long, and then seldom.
    fn tell_wait(&mut self, step: &Step) {
        if !matches!(step, Step::Wait(_)) {
            self.waits = None;
            return;
        }
        let (since, told) = self.waits.get_or_insert((Instant::now(), None));
        if told.map_or(since.elapsed() >= LONG, |at| at.elapsed() >= AGAIN) {
            *told = Some(Instant::now());
            match since.elapsed() >= TOO_LONG {
                true => tracing::warn!("{step}"),
                false => tracing::info!("{step}"),
            }
        }
    }

    fn tell_refused(&mut self, why: &str) {
        if self.refused.as_deref() != Some(why) {
            tracing::warn!("the password is not changed over as it should be: {why}");
            self.refused = Some(why.to_owned());
        }
    }
}

fn failure(outcome: Outcome) -> Option<String> {
    match outcome {
        Outcome::Done => None,
        Outcome::Moot(why) | Outcome::Failed(why) | Outcome::Unanswered(why) | Outcome::Forbidden(why) => Some(why),
    }
}
