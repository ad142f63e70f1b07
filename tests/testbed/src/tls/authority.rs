//! Who signs certificates.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A certificate authority that nobody else has.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and a key, which need not belong together, in PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Issued {
    /// The certificate in DER.
    pub fn der(&self) -> Result<Vec<u8>> {
        Ok(CertificateDer::from_pem_slice(self.certificate.as_bytes())?.to_vec())
    }
}

impl Authority {
    /// A new one of that name.
    pub fn new(name: &str) -> Self {
        let mut params = params(&[], name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, SystemTime::now() - DAY, SystemTime::now() + 3650 * DAY);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate of an authority").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Its own certificate in PEM: what everybody who is to believe it has as `ca.crt`.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate with these names, for servers and clients, valid for 90 days.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for(names, SystemTime::now() - DAY, SystemTime::now() + 90 * DAY)
    }

    /// [`Authority::issue`] for another time.
    pub fn issue_for(&self, names: &[&str], from: SystemTime, to: SystemTime) -> Issued {
        // The bus and replication are servers and clients with one certificate.
        self.issue_with(names, &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth], from, to)
    }

    /// [`Authority::issue`] for servers alone.
    pub fn issue_for_server(&self, names: &[&str]) -> Issued {
        let now = SystemTime::now();
        self.issue_with(names, &[ExtendedKeyUsagePurpose::ServerAuth], now - DAY, now + 90 * DAY)
    }

    fn issue_with(
        &self,
        names: &[&str],
        usages: &[ExtendedKeyUsagePurpose],
        from: SystemTime,
        to: SystemTime,
    ) -> Issued {
        let mut params = params(names, names.first().unwrap_or(&"nobody"));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        valid(&mut params, from, to);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// One that was valid until yesterday.
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        self.issue_for(names, SystemTime::now() - 30 * DAY, SystemTime::now() - DAY)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued")
    }
}

fn params(names: &[&str], name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names of DNS");
    params.distinguished_name = DistinguishedName::new();
    // A common name has 64 characters at most.
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params
}

fn valid(params: &mut CertificateParams, from: SystemTime, to: SystemTime) {
    let date = |time: SystemTime| date_time_ymd(1970, 1, 1) + time.duration_since(UNIX_EPOCH).expect("after 1970");
    params.not_before = date(from);
    params.not_after = date(to);
}
