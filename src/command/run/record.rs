//! What pods' files have said their password was, kept beside the data: a server that starts again has to accept it for
//! as long as somebody may come with it. Only hashes are kept, as in the server's own ACL file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::files;
use crate::topology::changeover::PasswordHash;

const NAME: &str = "valkeeper-passwords";

/// The file and what is in it.
#[derive(Debug)]
pub(super) struct Record {
    file: Option<PathBuf>,
    hashes: BTreeSet<PasswordHash>,
}

impl Record {
    /// Reads it; nothing where there is no file.
    pub(super) fn read(dir: Option<&Path>) -> Self {
        let file = dir.map(|dir| dir.join(NAME));
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        Self { file, hashes: text.lines().filter_map(PasswordHash::parse).collect() }
    }

    /// What is in it.
    pub(super) fn hashes(&self) -> &BTreeSet<PasswordHash> {
        &self.hashes
    }

    /// Puts these in; before a server accepts them.
    pub(super) fn add<'h>(&mut self, hashes: impl IntoIterator<Item = &'h PasswordHash>) {
        let before = self.hashes.len();
        self.hashes.extend(hashes.into_iter().cloned());
        if self.hashes.len() != before {
            self.write();
        }
    }

    /// Takes these out; after a server refuses them.
    pub(super) fn remove(&mut self, hashes: &[PasswordHash]) {
        let before = self.hashes.len();
        self.hashes.retain(|hash| !hashes.contains(hash));
        if self.hashes.len() != before {
            self.write();
        }
    }

    /// A disk that is full, for one, may prevent it, which is no reason to keep anybody out.
    fn write(&self) {
        let Some(file) = &self.file else {
            return;
        };
        let text: String = self.hashes.iter().map(|hash| format!("{}\n", hash.as_str())).collect();
        if let Err(error) = files::replace(file, &text) {
            tracing::warn!(
                "cannot note down in {} which passwords are valid: {error}; a server that starts again now accepts the \
                 newest alone",
                file.display()
            );
        }
    }
}
