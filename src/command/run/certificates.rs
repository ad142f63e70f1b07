//! Certificates that change: looked at, and then used by the server and by us, without a restart. A mounted secret
//! changes by a link that leads elsewhere, so the files are looked at, not watched for events.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::metrics::Tally;
use crate::config::Credentials;
use crate::tls::{self, Files, Stamps, Tls};
use crate::topology::health::RENEWAL_IS_DUE;
use crate::valkey::{CertificateSettings, Outcome};

const OFTEN: Duration = Duration::from_secs(1);
/// Files that change one after the other do so within this time.
const SETTLED: Duration = Duration::from_millis(500);
/// Before files are looked at again that could not be used: a certificate may not be valid yet.
pub(super) const AGAIN: Duration = Duration::from_secs(60);
/// How often a certificate that nobody renews is worth a line in the log.
const REMINDER: Duration = Duration::from_secs(24 * 3600);

/// Beside one server.
pub(super) struct Certificates<'p> {
    server: SocketAddr,
    /// With them our own server is told, whatever certificate it has.
    own: Credentials,
    /// How everybody else is reached.
    tls: &'p Tls,
    tally: &'p Tally,
    /// Every set of files that the server or we use, and what they were when they were read last.
    used: Vec<(Files, Stamps)>,
    /// What the server says that it reads.
    settings: Option<CertificateSettings>,
    refused: Option<Refused>,
    reminded: Option<Instant>,
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
    Unanswered,
}

impl<'p> Certificates<'p> {
    /// Beside the server at this address, which has been started with the files as they are.
    pub(super) fn new(
        server: SocketAddr,
        credentials: &Credentials,
        tls: &'p Tls,
        tally: &'p Tally,
    ) -> anyhow::Result<Self> {
        let own = Credentials { tls: Some(tls.to_own_server()?), ..credentials.clone() };
        let used = vec![(tls.files().clone(), tls.stamps())];
        Ok(Self { server, own, tls, tally, used, settings: None, refused: None, reminded: None })
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            if self.settings.is_none() {
                self.ask().await;
            }
            self.round().await;
            self.remind();
            sleep(OFTEN).await;
        }
    }

    /// The server may read other files than we do.
    async fn ask(&mut self) {
        if let Ok(settings) = CertificateSettings::of(self.server, &self.own).await {
            for files in settings.files() {
                if self.used.iter().all(|(used, _)| *used != files) {
                    let stamps = files.stamps();
                    self.used.push((files, stamps));
                }
            }
            self.settings = Some(settings);
        }
    }

    async fn round(&mut self) {
        let found = self.stamps();
        if self.used.iter().map(|(_, used)| used).eq(&found) {
            // What could not be used is gone.
            self.refused = None;
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
                self.reminded = None;
                self.tally.certificates_renewed();
                tracing::info!("the certificates have changed: the server and we use the new ones{}", self.validity());
            }
            Err(Obstacle::Unusable(why)) => {
                if self.refused.as_ref().is_none_or(|refused| refused.found != found || refused.why != why) {
                    tracing::warn!("the certificates have changed and cannot be used, the old ones stay in use: {why}");
                }
                self.refused = Some(Refused { found, why, at: Instant::now() });
                self.tally.certificates_refused(true);
            }
            Err(Obstacle::Unanswered) => {}
        }
    }

    fn stamps(&self) -> Vec<Stamps> {
        self.used.iter().map(|(files, _)| files.stamps()).collect()
    }

    /// All are looked at before any is used.
    async fn renew(&self) -> Result<(), Obstacle> {
        let unusable = |error: anyhow::Error| Obstacle::Unusable(format!("{error:#}"));
        for (files, _) in &self.used {
            tls::check(files).map_err(unusable)?;
        }
        let (Some(settings), Some(own)) = (&self.settings, &self.own.tls) else {
            return Err(Obstacle::Unanswered);
        };
        let mut outcome = settings.load(self.server, &self.own).await;
        if let Outcome::Unanswered(_) = outcome {
            // It may find that our old certificate has expired.
            own.reload().map_err(unusable)?;
            outcome = settings.load(self.server, &self.own).await;
        }
        match outcome {
            Outcome::Done => {}
            Outcome::Unanswered(_) => return Err(Obstacle::Unanswered),
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
        if left < RENEWAL_IS_DUE && self.reminded.is_none_or(|at| at.elapsed() >= REMINDER) {
            self.reminded = Some(Instant::now());
            match left {
                Duration::ZERO => {
                    tracing::error!("our certificate has expired: nobody trusts this node any more; renew it")
                }
                _ => tracing::warn!("our certificate expires{}: renew it", self.validity()),
            }
        }
    }

    /// `, in 89 days`.
    fn validity(&self) -> String {
        const DAY: u64 = 24 * 3600;
        let left = self.tls.expires().map(tls::left);
        left.map(|left| format!(", for {} days", left.as_secs() / DAY)).unwrap_or_default()
    }
}
