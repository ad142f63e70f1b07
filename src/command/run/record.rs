//! What pods' files have said their password was, kept beside the data: a server that starts again has to accept it for
//! as long as somebody may come with it, and refuse it afterwards, whatever its configuration still says. Only hashes are
//! kept, as in the server's own ACL file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::files;
use crate::topology::changeover::PasswordHash;

const NAME: &str = "valkeeper-passwords";

/// What follows a hash that is no longer valid.
const RETIRED: &str = " retired";
/// So many of these are kept, the newest: a configuration that nobody has touched since names the eldest.
const KEPT: usize = 256;

/// The file and what is in it.
#[derive(Debug)]
pub(super) struct Record {
    file: Option<PathBuf>,
    hashes: BTreeSet<PasswordHash>,
    /// Those that were valid, the eldest first.
    retired: Vec<PasswordHash>,
}

impl Record {
    /// Reads it; nothing where there is no file.
    pub(super) fn read(dir: Option<&Path>) -> Self {
        let file = dir.map(|dir| dir.join(NAME));
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let retired = text.lines().filter_map(|line| PasswordHash::parse(line.strip_suffix(RETIRED)?)).collect();
        Self { file, hashes: text.lines().filter_map(PasswordHash::parse).collect(), retired }
    }

    /// What is valid.
    pub(super) fn hashes(&self) -> &BTreeSet<PasswordHash> {
        &self.hashes
    }

    /// What was valid and is no longer.
    pub(super) fn retired(&self) -> &[PasswordHash] {
        &self.retired
    }

    /// Puts these in; before a server accepts them.
    pub(super) fn add<'h>(&mut self, hashes: impl IntoIterator<Item = &'h PasswordHash>) {
        let before = (self.hashes.len(), self.retired.len());
        self.hashes.extend(hashes.into_iter().cloned());
        self.retired.retain(|hash| !self.hashes.contains(hash));
        if (self.hashes.len(), self.retired.len()) != before {
            self.write();
        }
    }

    /// These are no longer valid; after a server refuses them.
    pub(super) fn retire(&mut self, hashes: &[PasswordHash]) {
        let before = self.hashes.len();
        self.hashes.retain(|hash| !hashes.contains(hash));
        if self.hashes.len() != before {
            self.retired.retain(|hash| !hashes.contains(hash));
            self.retired.extend(hashes.iter().cloned());
            self.retired.drain(..self.retired.len().saturating_sub(KEPT));
            self.write();
        }
    }

    /// A disk that is full, for one, may prevent it, which is no reason to keep anybody out.
    fn write(&self) {
        let Some(file) = &self.file else {
            return;
        };
        let valid = self.hashes.iter().map(|hash| format!("{}\n", hash.as_str()));
        let retired = self.retired.iter().map(|hash| format!("{}{RETIRED}\n", hash.as_str()));
        let text: String = valid.chain(retired).collect();
        if let Err(error) = files::replace(file, &text) {
            tracing::warn!(
                "cannot note down in {} which passwords are valid: {error}; a server that starts again now accepts the \
                 newest alone",
                file.display()
            );
        }
    }
}
