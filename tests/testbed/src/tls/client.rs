//! The test bed's own side of a connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::{ClientTlsConfig, TlsCertificates};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};

use super::authority::Issued;

/// What a client of the test bed shows. It lets any server pass: whom the program lets pass is what is under test.
#[derive(Debug)]
pub(crate) struct ClientTls {
    config: Arc<ClientConfig>,
    /// The same for the library.
    pub(crate) certificates: TlsCertificates,
}

/// A connection, with TLS or without.
#[derive(Debug)]
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Whoever has the key of the certificate that he shows.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ClientTls {
    /// A client that shows this certificate, or none.
    pub(crate) fn new(authority: &str, issued: Option<&Issued>) -> Result<Self> {
        // The library asks for one of the whole process.
        let _ = ring::default_provider().install_default();
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
        let config = match issued {
            None => builder.with_no_client_auth(),
            Some(Issued { certificate, key }) => {
                let chain: Result<_, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
                builder.with_client_auth_cert(chain?, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?
            }
        };
        let client_tls = issued.map(|issued| ClientTlsConfig {
            client_cert: issued.certificate.clone().into_bytes(),
            client_key: issued.key.clone().into_bytes(),
        });
        let certificates = TlsCertificates { client_tls, root_cert: Some(authority.as_bytes().to_vec()) };
        Ok(Self { config: Arc::new(config), certificates })
    }

    /// The same without a certificate.
    pub(crate) fn without_certificate(&self) -> Result<Self> {
        let authority = self.certificates.root_cert.as_deref().unwrap_or_default();
        Self::new(std::str::from_utf8(authority)?, None)
    }
}

impl Wire {
    /// Connects; this, every read and every write may take so long.
    pub(crate) fn open(addr: SocketAddr, tls: Option<&ClientTls>, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let Some(tls) = tls else { return Ok(Self::Plain(stream)) };
        let name = ServerName::IpAddress(addr.ip().into());
        let connection = ClientConnection::new(tls.config.clone(), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, stream))))
    }

    /// The certificate that the other side has shown, in DER, once it has answered.
    pub(crate) fn certificate(&mut self) -> Result<Vec<u8>> {
        let Self::Tls(stream) = self else { bail!("no TLS") };
        stream.write_all(b"PING\r\n")?;
        stream.read_exact(&mut [0])?;
        let chain = stream.conn.peer_certificates().context("no certificate")?;
        Ok(chain.first().context("an empty chain")?.to_vec())
    }

    /// Whether the other side has closed it, or said anything, while nothing was asked.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self {
            Self::Plain(stream) => {
                let seen = recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
                !matches!(seen, Err(Errno::AGAIN))
            }
            Self::Tls(stream) => is_closed(&mut stream.conn, &mut stream.sock).unwrap_or(true),
        }
    }
}

/// What TLS has to say by itself, such as a ticket, is no end.
fn is_closed(connection: &mut ClientConnection, socket: &mut TcpStream) -> Result<bool> {
    loop {
        match recv(&*socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => return Ok(false),
            Ok((_, 0)) | Err(_) => return Ok(true),
            Ok(_) => {}
        }
        connection.read_tls(socket)?;
        let state = connection.process_new_packets().context("what it says by itself")?;
        if state.peer_has_closed() || state.plaintext_bytes_to_read() > 0 {
            return Ok(true);
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
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
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
