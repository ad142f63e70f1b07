//! A throwaway authority: its certificate, and one that all nodes of a local cluster show.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use super::SERVICE;
use super::network::Network;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::tls::{Files, Pair};

/// Makes both and writes them below a directory, in files that nobody else can read. The authority's key is kept nowhere.
pub(super) fn make(home: &Path, network: &Network) -> Result<Files, Failure> {
    let dir = home.join("tls");
    let named = |name: &str| dir.join(name);
    let made = || {
        let (authority, certificate, key) = issue(network).context("cannot make certificates")?;
        fs::create_dir_all(&dir)?;
        for (name, text) in [("ca.crt", authority), ("tls.crt", certificate), ("tls.key", key)] {
            files::replace(&named(name), &text).with_context(|| format!("cannot write {}", named(name).display()))?;
        }
        anyhow::Ok(())
    };
    made().map_err(|error| Exit::System.because(error))?;
    Ok(Files { ca: Some(named("ca.crt")), pair: Some(Pair { cert: named("tls.crt"), key: named("tls.key") }) })
}

/// The authority, the certificate and its key, in PEM; both are valid for a year.
#[allow(clippy::disallowed_methods)] // The clock is what certificates go by.
fn issue(network: &Network) -> Result<(String, String, String), rcgen::Error> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (yesterday, next_year) = (date_time_ymd(1970, 1, 1) + now - DAY, date_time_ymd(1970, 1, 1) + now + 365 * DAY);

    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (yesterday, next_year);
    params.distinguished_name.push(DnType::CommonName, "valkeeper local");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let mut params = CertificateParams::new([SERVICE.to_owned(), format!("*.{SERVICE}"), "localhost".to_owned()])?;
    (params.not_before, params.not_after) = (yesterday, next_year);
    params.distinguished_name.push(DnType::CommonName, SERVICE);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names.extend(network.nodes().map(|ip| SanType::IpAddress(IpAddr::V4(ip))));
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    Ok((authority.pem(), certificate.pem(), key.serialize_pem()))
}
