//! The chain that a server presents, and which of it to believe.
//!
//! Nothing of ours is shown to the server: no client certificate, no byte of data. Nothing that is fetched is
//! believed by that: a person compares fingerprints, or says that the first sight is trusted.

use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::read::Item;
use crate::config::values::{Dns, Server};
use crate::credentials::certificate::CertificateFacts;
use crate::credentials::fingerprint::Sha256;
use crate::net::Options;
use crate::observe::metrics::Registry;
use crate::pipeline::originate::servers::resolve::{self, Resolver};
use crate::pipeline::originate::{dial, upgrade};
use crate::protocols::Upgrade;
use crate::wording;

#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) server: Server,
    /// SNI, if it is a DNS name.
    pub(crate) server_name: ServerName<'static>,
    pub(crate) upgrade: Option<Upgrade>,
    /// Of the whole fetch.
    pub(crate) timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Resolve(resolve::Error),
    #[error(transparent)]
    Dial(dial::Error),
    #[error(transparent)]
    Upgrade(upgrade::Error),
    #[error("the server presented no certificate: {}", wording::sentence(.0))]
    NoCertificate(io::Error),
    #[error("no certificate came in time")]
    Timeout,
}

impl Error {
    /// The word of log and metric where they have one.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Resolve(error) => error.reason(),
            Self::Dial(error) => error.reason(),
            Self::Upgrade(error) => error.reason(),
            Self::NoCertificate(_) => "no_certificate",
            Self::Timeout => "fetch_timeout",
        }
    }
}

/// The chain of a server, in the order in which it came. Cancel safe.
///
/// # Errors
/// None came.
pub(crate) async fn chain(wanted: &Wanted) -> Result<Vec<Item>, Error> {
    timeout(wanted.timeout, chain_in_time(wanted)).await.unwrap_or(Err(Error::Timeout))
}

async fn chain_in_time(wanted: &Wanted) -> Result<Vec<Item>, Error> {
    let dns = Dns { servers: Vec::new(), min_ttl: Duration::ZERO, max_ttl: Duration::ZERO };
    let resolver = Resolver::new(&dns, &Registry::silent()).map_err(Error::Resolve)?;
    let addresses = resolver.resolve(&wanted.server.host).await.map_err(Error::Resolve)?;
    let addresses: Vec<_> = addresses.iter().map(|ip| (*ip, wanted.server.port).into()).collect();
    let (mut tcp, _) = dial::dial_before(&addresses, &Options::default(), None).await.map_err(Error::Dial)?;
    if let Some(kind) = wanted.upgrade {
        upgrade::upgrade(kind, &mut tcp, &wanted.server_name.to_str()).await.map_err(Error::Upgrade)?;
    }
    present(tcp, wanted.server_name.clone()).await.map_err(Error::NoCertificate)
}

async fn present(tcp: TcpStream, server_name: ServerName<'static>) -> io::Result<Vec<Item>> {
    let witness = Arc::new(Witness::default());
    let config = ClientConfig::builder_with_provider(Arc::clone(&witness.provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous() // whatever comes is looked at; nothing is sent
        .with_custom_certificate_verifier(Arc::clone(&witness) as _)
        .with_no_client_auth();
    let ended = TlsConnector::from(Arc::new(config)).connect(server_name, tcp).await.map(drop);
    let seen = std::mem::take(&mut *witness.seen.lock().unwrap_or_else(PoisonError::into_inner));
    match (seen.is_empty(), ended) {
        // A server that wants a certificate of ours ends the handshake after it has shown its own.
        (false, _) => Ok(seen),
        (true, Err(error)) => Err(error),
        (true, Ok(())) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Records the chain; checks also that the server holds the key of the first certificate.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Vec<Item>>,
}

impl Default for Witness {
    fn default() -> Self {
        Self { provider: Arc::new(aws_lc_rs::default_provider()), seen: Mutex::default() }
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|der| match CertificateFacts::read(der) {
            Some(facts) => Item::Certificate(Box::new(facts), der.to_vec()),
            None => Item::Other("CERTIFICATE".to_owned()),
        });
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick<'a> {
    pub(crate) facts: &'a CertificateFacts,
    pub(crate) der: &'a [u8],
    /// The server's own: trusted as it is even if it says that it is an authority, since chains do not begin with
    /// authorities.
    pub(crate) leaf: bool,
}

/// The certificate with the fingerprint that was given; else the highest authority of the chain; else, if the leaf is
/// all there is, the leaf. `None`: no certificate has the fingerprint, or none can be read.
pub(crate) fn pick<'a>(chain: &'a [Item], fingerprint: Option<&Sha256>) -> Option<Pick<'a>> {
    let certificates = chain.iter().enumerate().filter_map(|(index, item)| match item {
        Item::Certificate(facts, der) => Some(Pick { facts, der, leaf: index == 0 }),
        _ => None,
    });
    let all: Vec<Pick<'_>> = certificates.collect();
    let found = match fingerprint {
        Some(fingerprint) => all.iter().find(|pick| pick.facts.sha256 == *fingerprint),
        None => all.iter().rev().find(|pick| pick.facts.authority && !pick.leaf).or_else(|| all.first()),
    };
    found.copied()
}

pub(crate) fn configuration(pick: &Pick<'_>, file: &str) -> String {
    match pick.leaf {
        true => format!("[trust.fetched]\ncertificate = {file:?}    # exactly this one\n"),
        false => format!("[trust.fetched]\nroots = [{file:?}]\n"),
    }
}

/// As PEM (RFC 7468), with its subject and fingerprint before it.
pub(crate) fn pem(facts: &CertificateFacts, der: &[u8]) -> String {
    let mut text = format!("# {}\n-----BEGIN CERTIFICATE-----\n", facts.subject);
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        let _ = writeln!(text, "{}", String::from_utf8_lossy(line));
    }
    text + "-----END CERTIFICATE-----\n"
}
