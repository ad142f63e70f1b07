//! What the server's and the library's errors mean to us.

use redis::{ErrorKind, RedisError};

use super::Outcome;
use crate::topology::observation::Silence;

/// Replies to what somebody else has done meanwhile, or what the server will take later. The next round sees which.
const MOOT: [&str; 6] = [
    // SET-CONFIG-EPOCH
    "Node config epoch is already non-zero",
    "when the node does not know any other node",
    // ADDSLOTSRANGE
    "is already busy",
    // REPLICATE
    "Unknown node",
    "I can only replicate a",
    "To set a",
];

/// What a server says that lets in no client more.
const NO_ROOM: &str = "max number of clients";

/// That our user may not do something at the target of a MIGRATE, as the source passes it on.
const FORBIDDEN_THERE: &str = "Target instance replied with error: NOPERM";

/// Why a server gave no report.
pub(super) fn silence(error: &RedisError) -> Silence {
    let what = describe(error);
    match error.code().unwrap_or_default() {
        "LOADING" | "BUSY" | "MASTERDOWN" => Silence::NotReady(what),
        "NOAUTH" => Silence::Denied(format!(
            "{what} We were given no password: give it in VALKEY_PASSWORD or with --password-file, and with --username whose \
             it is where the default user is off"
        )),
        "NOPERM" => Silence::Denied(with_remedy(&what)),
        "WRONGPASS" => Silence::Denied(what),
        // To whatever it is asked first.
        _ if what.contains(NO_ROOM) => Silence::NotReady(what),
        _ if error.is_connection_refusal() => Silence::Refused,
        _ if error.kind() == ErrorKind::AuthenticationFailed => Silence::Denied(what),
        _ if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() => Silence::Unreachable(what),
        _ => Silence::Unusable(what),
    }
}

/// What came of an action that the server answered with an error. What the server will never let us do is not to be
/// tried again.
pub(super) fn outcome(error: &RedisError) -> Outcome {
    let what = describe(error);
    match error.code() {
        Some("NOPERM") => Outcome::Forbidden(with_remedy(&what)),
        _ if MOOT.iter().any(|text| what.contains(text)) => Outcome::Moot(what),
        _ => Outcome::Failed(what),
    }
}

/// Whether our user may not do it, here or there.
pub(super) fn is_forbidden(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.detail().is_some_and(|what| what.contains(FORBIDDEN_THERE))
}

/// The server names the user and the command, but where a key is the matter.
pub(super) fn with_remedy(what: &str) -> String {
    format!("{what}; `valkeeper acl` prints the rule of a user that may do what we do")
}

/// The server's own words, else the library's. To AUTH the server's words may hold the password: see `Connection`.
pub(super) fn describe(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if error.is_connection_refusal() {
        return "connection refused".to_owned();
    }
    if error.is_connection_dropped() {
        return format!(
            "{error}; if it stays so: does it want TLS (--tls), is protected-mode on there, or maxclients reached?"
        );
    }
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}
