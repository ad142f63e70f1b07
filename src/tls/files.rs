//! The files that certificates and keys are in.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where they are, all in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The authorities that we believe.
    pub ca: Option<PathBuf>,
    /// What we prove with who we are.
    pub pair: Option<Pair>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and those between it and the authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What tells one content of a file from the next: a mounted secret changes by another file in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// One for each file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps(Vec<Stamp>);

/// A chain of certificates and the key of the first.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Files {
    /// All of them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let pair = self.pair.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        self.ca.iter().chain(pair).map(PathBuf::as_path)
    }

    /// The server's settings that name them.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let pair = self.pair.iter().flat_map(|pair| [("tls-cert-file", &pair.cert), ("tls-key-file", &pair.key)]);
        let ca = self.ca.iter().map(|ca| ("tls-ca-cert-file", ca));
        ca.chain(pair).map(|(name, file)| (name, file.as_path()))
    }

    /// What they are now. A file that is missing is like any other that is missing.
    pub fn stamps(&self) -> Stamps {
        let stamps = self.paths().map(|path| match std::fs::metadata(path) {
            Ok(meta) => Stamp { inode: meta.ino(), length: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()) },
            Err(_) => Stamp { inode: 0, length: 0, modified: (0, 0) },
        });
        Stamps(stamps.collect())
    }

    pub(super) fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca {
            for certificate in certificates(path)? {
                roots.add(certificate).with_context(|| format!("a certificate in {}", path.display()))?;
            }
        }
        Ok(roots)
    }

    pub(super) fn identity(&self) -> anyhow::Result<Option<Identity>> {
        let Some(Pair { cert, key }) = &self.pair else { return Ok(None) };
        let chain = certificates(cert)?;
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| anyhow!("cannot read a private key from {}: {}", key.display(), what(&error)))?;
        Ok(Some((chain, key)))
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let cannot = |error| anyhow!("cannot read certificates from {}: {}", path.display(), what(&error));
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(cannot)?.collect::<Result<_, _>>().map_err(cannot)?;
    ensure!(!found.is_empty(), "there is no certificate in {}", path.display());
    Ok(found)
}

/// The library quotes what it cannot read, and that may be of a key.
fn what(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        pem::Error::Base64Decode(_) => "it is not base64 between its first and its last line".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "a line `-----END …-----` is missing".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a line `-----BEGIN …-----` is broken".to_owned(),
        _ => "it is no PEM".to_owned(),
    }
}
