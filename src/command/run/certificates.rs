//! Certificates that change: looked at, and then used by the server and by us, without a restart. A mounted secret
//! changes by a link that leads elsewhere, so the files are looked at, not watched for events.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::metrics::Tally;
use super::settings::Settings;
use crate::tls::{self, Files, Stamps, Tls, Use};
use crate::topology::health::RENEWAL_IS_DUE;
use crate::valkey::{CertificateSettings, Outcome};

const OFTEN: Duration = Duration::from_secs(1);
/// Files that change one after the other do so within this time.
const SETTLED: Duration = Duration::from_millis(500);
/// Before files are looked at again that could not be used: a certificate may not be valid yet.
const AGAIN: Duration = Duration::from_secs(60);
/// The server may be busy for so long before it is worth a line that it has not heard of new files.
const LONG: Duration = Duration::from_secs(10);
/// How often a certificate that nobody renews is worth a line in the log.
const REMINDER: Duration = Duration::from_secs(24 * 3600);

/// Beside one server.
pub(super) struct Certificates<'p> {
    settings: &'p Settings,
    /// How everybody else is reached.
    tls: &'p Tls,
    tally: &'p Tally,
    /// Every set of files that the server or we use, and what they were when they were read last.
    used: Vec<(Files, Stamps)>,
    /// What the server says that it reads.
    server: Option<CertificateSettings>,
    refused: Option<Refused>,
    /// Since when the server has not answered.
    unanswered: Option<Instant>,
    /// When it was last said that nobody has renewed ours, and whether it had expired by then.
    reminded: Option<(Instant, bool)>,
}

/// Files that cannot be used.
struct Refused {
    found: Vec<Stamps>,
    why: String,
    /// When that was seen last.
    at: Instant,
}

/// Why new certificates are not in use.
enum Obstacle {
    /// They must not be: somebody has to put it right.
    Unusable(String),
    /// The server has not answered; it is to be told again.
    Unanswered(String),
}

impl<'p> Certificates<'p> {
    /// Beside the server of this pod, which has been started with the files as they are.
    pub(super) fn new(settings: &'p Settings, tls: &'p Tls, tally: &'p Tally) -> Self {
        let used = vec![(tls.files().clone(), tls.stamps())];
        Self { settings, tls, tally, used, server: None, refused: None, unanswered: None, reminded: None }
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            self.round().await;
            self.remind();
            sleep(OFTEN).await;
        }
    }

    /// The server may read other files than we do.
    async fn ask(&mut self) -> Result<(), Obstacle> {
        if self.server.is_none() {
            let asked = CertificateSettings::of(self.settings.address, &self.settings.to_own_server).await;
            let server = asked.map_err(|silence| Obstacle::Unanswered(silence.to_string()))?;
            for (files, _) in server.files() {
                if self.used.iter().all(|(used, _)| *used != files) {
                    let stamps = files.stamps();
                    self.used.push((files, stamps));
                }
            }
            self.server = Some(server);
        }
        Ok(())
    }

    async fn round(&mut self) {
        if let Err(Obstacle::Unanswered(why)) = self.ask().await {
            return self.go_on_without(&why);
        }
        let found = self.stamps();
        if self.used.iter().map(|(_, used)| used).eq(&found) {
            // What could not be used is gone.
            self.refused = None;
            self.unanswered = None;
            self.tally.certificates_refused(false);
            return;
        }
        if self.refused.as_ref().is_some_and(|refused| refused.found == found && refused.at.elapsed() < AGAIN) {
            return;
        }
        sleep(SETTLED).await;
        if self.stamps() != found {
            return;
        }
        match self.renew().await {
            Ok(()) => {
                self.used.iter_mut().zip(found).for_each(|((_, used), found)| *used = found);
                self.refused = None;
                self.unanswered = None;
                self.reminded = None;
                self.tally.certificates_renewed();
                tracing::info!("the certificates have changed: the server and we use the new ones{}", self.validity());
            }
            Err(Obstacle::Unusable(why)) => {
                if self.refused.as_ref().is_none_or(|refused| refused.found != found || refused.why != why) {
                    tracing::warn!("the certificates have changed and cannot be used, the old ones stay in use: {why}");
                }
                self.refused = Some(Refused { found, why, at: Instant::now() });
                self.unanswered = None;
                self.tally.certificates_refused(true);
            }
            Err(Obstacle::Unanswered(why)) => self.go_on_without(&why),
        }
    }

    /// Files that the server has not heard of are no reason for us to go to others with what is out of date.
    fn go_on_without(&mut self, why: &str) {
        let changed = self.tls.stamps() != self.tls.files().stamps();
        let since = *self.unanswered.get_or_insert_with(Instant::now);
        if !changed || since.elapsed() < LONG {
            return;
        }
        match self.tls.reload() {
            Ok(()) => tracing::warn!(
                "the certificates have changed, and the server cannot be told: it {why}; we use the new ones, and it goes on with \
                 the old ones until it can"
            ),
            Err(error) => tracing::debug!("the certificates have changed and cannot be used: {error:#}"),
        }
        self.tally.certificates_refused(true);
    }

    fn stamps(&self) -> Vec<Stamps> {
        self.used.iter().map(|(files, _)| files.stamps()).collect()
    }

    /// All are looked at before any is used.
    async fn renew(&self) -> Result<(), Obstacle> {
        let unusable = |error: anyhow::Error| Obstacle::Unusable(format!("{error:#}"));
        let unanswered = || Obstacle::Unanswered("has not said which files it reads".to_owned());
        let Settings { address, name, ip, to_own_server, .. } = self.settings;
        let (Some(server), Some(own)) = (&self.server, &to_own_server.tls) else { return Err(unanswered()) };
        let of_ours = if server.asks_clients() { &[Use::Client][..] } else { &[] };
        tls::check(self.tls.files(), of_ours).map_err(unusable)?;
        for (files, uses) in server.files() {
            tls::check(&files, &uses).map_err(unusable)?;
            if uses.contains(&Use::Server) {
                self.tls.check_server(&files, name.as_ref(), *ip).map_err(unusable)?;
            }
        }
        let mut outcome = server.load(*address, to_own_server).await;
        if let Outcome::Unanswered(_) = outcome {
            // It may find that our old certificate has expired.
            own.reload().map_err(unusable)?;
            outcome = server.load(*address, to_own_server).await;
        }
        match outcome {
            Outcome::Done => {}
            Outcome::Unanswered(why) => return Err(Obstacle::Unanswered(why)),
            Outcome::Moot(why) | Outcome::Failed(why) | Outcome::Forbidden(why) => {
                return Err(Obstacle::Unusable(format!("the server does not take them: {why}")));
            }
        }
        own.reload().and_then(|()| self.tls.reload()).map_err(unusable)
    }

    fn remind(&mut self) {
        let Some(left) = self.tls.expires().map(tls::left) else {
            return;
        };
        let has_expired = left.is_zero();
        let is_news = |(at, had_expired): (Instant, bool)| at.elapsed() >= REMINDER || had_expired != has_expired;
        if left < RENEWAL_IS_DUE && self.reminded.is_none_or(is_news) {
            self.reminded = Some((Instant::now(), has_expired));
            match has_expired {
                true => tracing::error!("our certificate has expired: nobody trusts this node any more; renew it"),
                false => tracing::warn!("our certificate is not valid for long{}: renew it", self.validity()),
            }
        }
    }

    /// `, for 89 days`.
    fn validity(&self) -> String {
        const DAY: u64 = 24 * 3600;
        let left = self.tls.expires().map(tls::left);
        left.map(|left| format!(", for {} days", left.as_secs() / DAY)).unwrap_or_default()
    }
}
