//! Users that the server has from an ACL file or from its configuration: at its start our user has to have the password of
//! this pod's file there, as nobody but the user itself could give it to the server that runs.

use std::fs;
use std::path::Path;

use crate::config::{Credentials, Secret};
use crate::files;
use crate::topology::changeover::{Accepts, PasswordHash, Wanted, accepts, with_passwords};
use crate::topology::parse::ServerConfig;

use super::record::Record;

const REMEDY: &str = "add `#` and the SHA-256 of that password to the rules of the user";

/// Sees to it that our user can log in once the server runs; where it cannot be done that is said, with what to do.
pub(super) fn admit(config: &ServerConfig, credentials: &Credentials, record: &Record) {
    let Some(mine) = credentials.keyring.current().map(|password| password.hash()) else { return };
    let user = credentials.user();
    match config.acl_file() {
        Some(file) => match admit_by_file(&file, user, &mine, record) {
            Ok(false) => {}
            Ok(true) => tracing::info!(
                "{}: user {user} has the password of this pod's file, and those that other pods may come with",
                file.display()
            ),
            Err(error) => tracing::warn!(
                "{}: cannot see to it that user {user} has the password of this pod's file: {error}; {REMEDY}",
                file.display()
            ),
        },
        None => {
            let rules = config.user(user);
            if let Some(Accepts::These(passwords)) = rules.map(|rules| accepts(rules, hash))
                && !passwords.contains(&mine)
            {
                tracing::warn!(
                    "the configuration gives user {user} other passwords than that of this pod's file, with which this node is \
                     not let into its own server; {REMEDY}"
                );
            }
        }
    }
}

/// Whether the file had to be written.
fn admit_by_file(file: &Path, user: &str, mine: &PasswordHash, record: &Record) -> std::io::Result<bool> {
    // The server renames over the file as well; a link stays one.
    let file = fs::canonicalize(file)?;
    let accepted: Vec<_> = record.hashes().iter().cloned().collect();
    let wanted = Wanted { mine, accepted: &accepted, retired: record.retired() };
    match with_passwords(&fs::read_to_string(&file)?, user, &wanted, hash) {
        Some(text) => files::replace(&file, &text).map(|()| true),
        None => Ok(false),
    }
}

fn hash(password: &str) -> PasswordHash {
    Secret::new(password).hash()
}
