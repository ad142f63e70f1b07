//! `valkeeper acl`: the rule of a user that may do what valkeeper does, and nothing else. Asks no server.

use super::render;
use crate::cli::{AclArgs, AclRole};
use crate::config::{Secret, password};
use crate::exit::{Exit, Failure};
use crate::topology::acl::{NO_HASH, Scope, UserName};
use crate::topology::version::Version;

/// What the user is called where nobody says.
const NAME: &str = "valkeeper";

/// Runs the command.
pub fn run(args: &AclArgs) -> Result<(), Failure> {
    let scope =
        Scope { acts: args.role == AclRole::Run, version: args.version, changes_password: !args.fixed_password };
    if args.explain {
        let rows = scope.grants().map(|grant| [grant.command, grant.reason].map(str::to_owned));
        render::print(&render::table(["COMMAND", "FOR"], rows))?;
    } else {
        let name = args.login.username.as_deref().unwrap_or(NAME);
        let name = UserName::new(name)
            .ok_or_else(|| Exit::Usage.saying("--username must hold no space, no quote and no backslash"))?;
        let hash = password(&args.login)?.as_ref().map(Secret::hash);
        render::print(&(scope.line(&name, hash.as_ref()) + "\n"))?;
        if hash.is_none() {
            tracing::warn!(
                "no password was given: write its SHA-256 in place of {NO_HASH}, or give it with --password-file or \
                 VALKEY_PASSWORD"
            );
        }
    }
    if scope.acts && scope.version.is_none() {
        tracing::info!(
            "this suits every version; where all servers are {}.{} or newer, --for {0}.{1} adds what moving slots takes \
             there",
            Version::ATOMIC_MIGRATION.major,
            Version::ATOMIC_MIGRATION.minor
        );
    }
    Ok(())
}
