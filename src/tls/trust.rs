//! Which certificate is believed, and what is said of one that is not.

use std::fmt;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use webpki::EndEntityCert;

use super::files::{Files, Identity};
use crate::topology::observation::Silence;

/// Which names a server may prove to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// This one.
    Exactly(String),
    /// Those of the pods of a service, which goes by all of these names.
    PodsOf(Vec<String>),
    /// Its address.
    Address,
    /// Whichever.
    Any,
}

/// Believes who has a certificate of an authority of ours with one of the names.
struct OneOf {
    authorities: Arc<WebPkiServerVerifier>,
    names: Names,
}

/// Believes whoever has the key to a certificate.
struct Anybody {
    provider: Arc<CryptoProvider>,
}

/// How connections are made.
pub(super) fn client(
    roots: RootCertStore,
    identity: Option<Identity>,
    names: &Names,
    insecure: bool,
) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match insecure {
        true => Arc::new(Anybody { provider: provider.clone() }),
        false => {
            let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            Arc::new(OneOf { authorities: authorities.context("no authority to believe")?, names: names.clone() })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match identity {
        Some((chain, key)) => match builder.with_client_auth_cert(chain, key) {
            Err(Error::InconsistentKeys(_)) => {
                anyhow::bail!("the certificate and the private key do not belong together")
            }
            other => other.context("the certificate or its private key cannot be used"),
        },
        None => Ok(builder.with_no_client_auth()),
    }
}

impl OneOf {
    /// Everything that the certificate may be for, given what was asked for.
    fn accepted(&self, certificate: &CertificateDer<'_>, asked: &ServerName<'_>) -> Vec<ServerName<'static>> {
        let (Names::PodsOf(services), ServerName::DnsName(asked)) = (&self.names, asked) else {
            return vec![asked.to_owned()];
        };
        let Some(first) = services.first() else { return Vec::new() };
        let pod = asked.as_ref().strip_suffix(first).and_then(|rest| rest.strip_suffix('.'));
        let names: Vec<String> = match pod {
            Some(pod) => services.iter().map(|service| format!("{pod}.{service}")).collect(),
            // Whichever pod it is: what the certificate says must be right below the service, or the service itself.
            None => EndEntityCert::try_from(certificate)
                .iter()
                .flat_map(|certificate| certificate.valid_dns_names())
                .filter(|name| services.iter().any(|service| is_of(name, service)))
                .map(|name| name.strip_prefix('*').map_or_else(|| name.to_owned(), |rest| format!("pod{rest}")))
                .collect(),
        };
        names.into_iter().filter_map(|name| ServerName::try_from(name).ok()).collect()
    }
}

/// Whether a name in a certificate is the service, one of its pods, or all of them.
fn is_of(name: &str, service: &str) -> bool {
    let pod = name.strip_suffix(service);
    pod.is_some_and(|pod| pod.is_empty() || pod.strip_suffix('.').is_some_and(|pod| !pod.contains('.')))
}

impl ServerCertVerifier for OneOf {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify =
            |name: &ServerName<'_>| self.authorities.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        // The first error tells of the authority and the time, where one of these is wrong.
        self.accepted(end_entity, asked).iter().find_map(|name| verify(name).ok()).map_or_else(|| verify(asked), Ok)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed handshake says: of the server's certificate, or of ours.
pub(super) fn silence(error: &Error, files: &Files) -> Silence {
    let ca = files.ca.as_ref().map_or_else(|| "our authorities".to_owned(), |ca| ca.display().to_string());
    let ours = match &files.pair {
        Some(pair) => format!("ours is {}", pair.cert.display()),
        None => "we have none: --tls-cert and --tls-key".to_owned(),
    };
    match error {
        Error::InvalidCertificate(wrong) => Silence::Untrusted(match wrong {
            CertificateError::UnknownIssuer => format!("its certificate is of an authority that is not in {ca}"),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; is the time right, here and there?".to_owned()
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                format!("its certificate is not for {} but for {}", expected.to_str(), shown(presented))
            }
            other => format!("its certificate is wrong: {other}"),
        }),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            Silence::Untrusted(format!("it asks for a certificate of ours; {ours}"))
        }
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            Silence::Untrusted(format!("it does not know the authority of our certificate; {ours}"))
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            Silence::Untrusted(format!("our certificate has expired; {ours}"))
        }
        Error::AlertReceived(alert) => Silence::Untrusted(format!("it ends the handshake ({alert:?}); {ours}")),
        Error::InvalidMessage(_) => Silence::Unusable("what answers does not speak TLS".to_owned()),
        other => Silence::Unusable(format!("TLS: {other}")),
    }
}

/// `DnsName("valkey-0.valkey")` as people write it.
fn shown(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner.trim_end_matches(')'));
        inner.trim_matches('"').to_owned()
    };
    match presented {
        [] => "no name at all".to_owned(),
        names => names.iter().map(bare).collect::<Vec<_>>().join(", "),
    }
}

impl fmt::Debug for OneOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneOf").field("names", &self.names).finish_non_exhaustive()
    }
}

impl fmt::Debug for Anybody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anybody")
    }
}
