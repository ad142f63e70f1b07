//! A secret as the kubelet mounts it, and changes it: all files at once, by one symbolic link.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::authority::Issued;

const DATA: &str = "..data";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";

/// A folder with `tls.crt`, `tls.key` and `ca.crt`, each a link through `..data` to a folder that is named for its time.
#[derive(Debug, Clone)]
pub struct Mount {
    dir: PathBuf,
}

impl Mount {
    /// The one at that folder, which is made when something is put there.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The certificate's file.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join(CERTIFICATE)
    }

    /// The key's file.
    pub fn key(&self) -> PathBuf {
        self.dir.join(KEY)
    }

    /// The file with the authorities that are believed.
    pub fn authority(&self) -> PathBuf {
        self.dir.join(AUTHORITY)
    }

    /// Replaces all three in one moment, as Kubernetes' AtomicWriter does.
    pub fn put(&self, issued: &Issued, authorities: &str) -> Result<()> {
        self.replace(issued, authorities).with_context(|| format!("a secret at {}", self.dir.display()))
    }

    fn replace(&self, issued: &Issued, authorities: &str) -> Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let before = fs::read_link(self.dir.join(DATA)).ok();
        // Its name begins with two dots and is never used again.
        let dated = tempfile::Builder::new().prefix("..2026_").tempdir_in(&self.dir)?.keep();
        let files = [(CERTIFICATE, &*issued.certificate), (KEY, &issued.key), (AUTHORITY, authorities)];
        for (name, text) in files {
            write(&dated.join(name), text)?;
        }
        let next = self.dir.join("..data_tmp");
        symlink(dated.file_name().context("the name of a folder")?, &next)?;
        fs::rename(next, self.dir.join(DATA))?;
        for (name, _) in files {
            match symlink(Path::new(DATA).join(name), self.dir.join(name)) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        Ok(before.map_or(Ok(()), |before| fs::remove_dir_all(self.dir.join(before)))?)
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}
