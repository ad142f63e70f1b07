//! Who is connected, and who goes when there are too many.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, JoinSet};

/// How many there may be at once.
const MOST: usize = 64;

/// The connections, each a task of its own, so that a fault in one is contained.
#[derive(Debug, Default)]
pub(super) struct Guests {
    tasks: JoinSet<()>,
    /// The eldest first.
    places: VecDeque<(Place, AbortHandle)>,
}

/// One connection's place.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    has_asked: Arc<AtomicBool>,
}

impl Guests {
    /// A place for one more. Where there is none, whoever has been here longest without asking anything loses its own;
    /// there is none left when all are being answered.
    pub(super) fn place(&mut self) -> Option<Place> {
        self.places.retain(|(_, task)| !task.is_finished());
        if self.places.len() >= MOST {
            let idle = self.places.iter().position(|(place, _)| !place.has_asked.load(Ordering::Relaxed))?;
            let (_, task) = self.places.remove(idle)?;
            task.abort();
        }
        Some(Place::default())
    }

    /// Takes a connection in, at a place that was just given.
    pub(super) fn admit(&mut self, place: Place, visit: impl Future<Output = ()> + Send + 'static) {
        self.places.push_back((place, self.tasks.spawn(visit)));
    }

    /// Waits until one goes.
    pub(super) async fn leave(&mut self) {
        match self.tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!("answering a request failed; this is a bug, please report it: {error}");
            }
            Some(_) => {}
            None => pending().await,
        }
    }
}

impl Place {
    /// Its request has come in whole.
    pub(super) fn mark_asked(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }
}
