//! A server that keeps an append-only file and starts from an RDB all the same: because there is no append-only file
//! yet, or because an RDB knows where in the stream of its primary it ends, which an append-only file does not.

use std::time::Duration;

use tokio::time::sleep;

use crate::topology::drain::DrainReport;
use crate::topology::order::Order;
use crate::topology::parse::ServerConfig;
use crate::topology::start::OnDisk;
use crate::valkey::{Outcome, Server};

/// What is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// An append-only file is to be made from an RDB where there is none.
    pub(super) from_rdb: bool,
    /// A replica is to need only what it missed.
    pub(super) partial_resync: bool,
}

impl Wish {
    /// Whether the server starts from its RDB and without an append-only file.
    ///
    /// The append-only file holds more than the RDB of the drain: what came while the server stopped. So the RDB will do
    /// only where a primary is there to send the rest, `follows`; and `drained` is of use once only, since after it the
    /// RDB grows old.
    pub(super) fn starts_from_rdb(
        self,
        config: &ServerConfig,
        disk: &OnDisk,
        drained: Option<&DrainReport>,
        follows: bool,
    ) -> bool {
        let is_fresh = drained.is_some_and(|report| ["saved", "nothing new"].contains(&report.save.outcome.as_str()));
        let converts = self.from_rdb && disk.aof.is_none();
        let resyncs = self.partial_resync && follows && is_fresh;
        config.appendonly() && disk.rdb.is_some() && (converts || resyncs)
    }
}

/// Has the server make its append-only file, once what it holds is worth it.
pub(super) async fn switch_on(server: &mut Server) {
    const OFTEN: Duration = Duration::from_millis(100);
    const RETRY: Duration = Duration::from_secs(1);
    loop {
        let own = super::pod::answer(server).await;
        match own.persistence.aof {
            Some(aof) if !aof.incomplete => {
                tracing::info!("the append-only file is complete");
                return;
            }
            Some(_) => sleep(OFTEN).await,
            None if own.replication.link.is_some_and(|link| !link.up) => sleep(OFTEN).await,
            None => match server.order(Order::AppendOnly).await {
                Outcome::Done => tracing::info!("the server begins its append-only file"),
                Outcome::Moot(why) | Outcome::Failed(why) | Outcome::Unanswered(why) | Outcome::Forbidden(why) => {
                    tracing::warn!("the server does not begin its append-only file: {why}; trying again");
                    sleep(RETRY).await;
                }
            },
        }
    }
}
