//! Which certificate is believed, and what is said of one that is not.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

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

/// What a certificate is to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Whose server it is, to clients and peers.
    Server,
    /// Who comes to another server: we, and a server that follows another or speaks to it over the bus.
    Client,
}

/// Believes who has the key to a certificate: one of an authority of ours with one of the names; or, where no authority
/// counts, any.
struct Verifier {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    names: Names,
    provider: Arc<CryptoProvider>,
}

/// How connections are made.
pub(super) fn client(
    roots: RootCertStore,
    identity: Option<Identity>,
    names: &Names,
    insecure: bool,
) -> anyhow::Result<ClientConfig> {
    let verifier = Arc::new(Verifier::new(roots, names, insecure)?);
    let builder = ClientConfig::builder_with_provider(verifier.provider.clone())
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(unusable),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Whether a certificate and its key can be used: see [`super::check`].
pub(super) fn check(roots: &RootCertStore, (chain, key): Identity, uses: &[Use]) -> anyhow::Result<()> {
    let provider = ring::default_provider();
    let (first, between) = chain.split_first().context("there is no certificate")?;
    let ours = EndEntityCert::try_from(first).context("it cannot be read")?;
    let algorithms = provider.signature_verification_algorithms.all;
    let verify = |used: Use| {
        let verified =
            ours.verify_for_usage(algorithms, &roots.roots, between, UnixTime::now(), used.usage(), None, None);
        verified.map(drop).map_err(|error| match error {
            webpki::Error::UnknownIssuer => anyhow!("no authority that we believe has made it"),
            webpki::Error::CertExpired { .. } => anyhow!("it has expired"),
            webpki::Error::CertNotValidYet { .. } => anyhow!("it is not valid yet; is the time right?"),
            webpki::Error::RequiredEkuNotFoundContext(_) => anyhow!("its extended key usage lacks {}", used.name()),
            other => anyhow!("it cannot be used: {other}"),
        })
    };
    if !roots.is_empty() {
        match uses {
            [] => verify(Use::Server).or_else(|_| verify(Use::Client))?,
            uses => uses.iter().try_for_each(|used| verify(*used))?,
        }
    }
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => Ok(()),
        Err(error) => Err(unusable(error)),
    }
}

/// Whether whoever knows these names and authorities believes that a chain is of the server that is asked for by this name.
pub(super) fn check_name(
    roots: RootCertStore,
    chain: &[CertificateDer<'static>],
    names: &Names,
    asked: &ServerName<'_>,
) -> anyhow::Result<()> {
    let (first, between) = chain.split_first().context("there is no certificate")?;
    match Verifier::new(roots, names, false)?.verify_server_cert(first, between, asked, &[], UnixTime::now()) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented })) => {
            Err(anyhow!("it is not for {} but for {}", expected.to_str(), shown(&presented)))
        }
        Err(error) => Err(anyhow!("it cannot be used: {error}")),
    }
}

impl Use {
    fn usage(self) -> KeyUsage {
        match self {
            Self::Server => KeyUsage::server_auth(),
            Self::Client => KeyUsage::client_auth(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Server => "serverAuth",
            Self::Client => "clientAuth",
        }
    }
}

fn unusable(error: Error) -> anyhow::Error {
    match error {
        Error::InconsistentKeys(_) => anyhow!("the certificate and the private key do not belong together"),
        other => anyhow!("the certificate or its private key cannot be used: {other}"),
    }
}

impl Verifier {
    fn new(roots: RootCertStore, names: &Names, insecure: bool) -> anyhow::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let authorities = match insecure {
            true => None,
            false => {
                let authorities =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
                Some(authorities.context("no authority to believe")?)
            }
        };
        Ok(Self { authorities, names: names.clone(), provider })
    }

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

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        let verify = |name: &ServerName<'_>| authorities.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        // The first error tells of the authority and the time, where one of these is wrong.
        self.accepted(end_entity, asked).iter().find_map(|name| verify(name).ok()).map_or_else(|| verify(asked), Ok)
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

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("names", &self.names).finish_non_exhaustive()
    }
}
