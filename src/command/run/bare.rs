//! What remains when the supervision itself has a bug. The server comes first: it runs on, gets every signal, and ends
//! as it likes. It is never killed here.

use rustix::process::Signal;

use super::supervision::{Rest, ended, tell_end, warn};
use crate::exit::{Exit, Failure};
use crate::process::signals::Heard;

/// Looks after the server to its end, which is ours too; where none runs the bug is the end.
pub(super) async fn run(rest: &mut Rest, bug: Failure) -> Result<Exit, Failure> {
    if rest.server.is_none() {
        return rest.ended.ok_or(bug);
    }
    tracing::warn!("the server goes on; from now on it only gets its signals, without handover and save of ours");
    if rest.is_asked_to_stop {
        warn(rest.server.as_ref().map(|server| server.signal(Signal::TERM)));
    }
    loop {
        tokio::select! {
            heard = rest.signals.next() => {
                let signal = match heard {
                    Heard::Stop => Signal::TERM,
                    Heard::Forward(signal) => signal,
                };
                warn(rest.server.as_ref().map(|server| server.signal(signal)));
            }
            status = ended(&mut rest.server) => {
                tell_end(&status);
                return Ok(status.map_or(Exit::System, Exit::of));
            }
            never = rest.reaper.run() => match never {},
        }
    }
}
