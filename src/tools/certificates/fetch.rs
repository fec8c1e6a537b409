//! The chain that a server presents, and which of it to believe.
//!
//! Nothing of ours is shown to the server: no client certificate, no byte of data. Nothing that is fetched is
//! believed by that: a person compares fingerprints, or says that the first sight is trusted.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::read::{self, Item};
use crate::config::values::{Anchors, Dns, ExactCertificate, Name, Server, Trust as TrustSpec};
use crate::credentials::certificate::CertificateFacts;
use crate::credentials::fingerprint::Sha256;
use crate::credentials::trust::Trust;
use crate::net::Options;
use crate::observe::metrics::Registry;
use crate::pipeline::originate::handshake::{self, Handshake};
use crate::pipeline::originate::hello::Offer;
use crate::pipeline::originate::origin::{Origin, OriginKey};
use crate::pipeline::originate::servers::resolve::{self, Resolver};
use crate::pipeline::originate::{dial, upgrade};
use crate::protocols::Upgrade;

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
    #[error("the server presented no certificate{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    NoCertificate(Option<handshake::Error>),
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
    let (mut tcp, address) = dial::dial_before(&addresses, &Options::default(), None).await.map_err(Error::Dial)?;
    if let Some(kind) = wanted.upgrade {
        upgrade::upgrade(kind, &mut tcp, &wanted.server_name.to_str()).await.map_err(Error::Upgrade)?;
    }
    presented(tcp, address, &origin(wanted)).await
}

/// An origin that verifies nothing. If it did, its trust would accept nobody: no certificate has this digest.
fn origin(wanted: &Wanted) -> Origin {
    let nobody = TrustSpec { anchors: Anchors::Certificate(ExactCertificate::Sha256([0; 32])), ..TrustSpec::default() };
    let trust = Trust::load(&Name::new("nobody"), &nobody).expect("a digest is in no file");
    let key = OriginKey::unverified(wanted.server.clone(), wanted.server_name.clone(), &trust);
    Origin::new(key, None, Arc::new(trust)).expect("both versions and all groups are allowed")
}

async fn presented(tcp: TcpStream, address: SocketAddr, origin: &Origin) -> Result<Vec<Item>, Error> {
    let handshake = Handshake::shown(address, origin, Offer::default());
    let ended = match handshake.run(tcp).await {
        Ok((established, _)) => {
            established.leave(AlertDescription::CloseNotify).await;
            None
        }
        Err(error) => Some(error),
    };
    match handshake.facts().presented {
        // A server that wants a certificate of ours ends the handshake after it has shown its own.
        Some(chain) => Ok(chain.certificates().iter().map(|der| read::presented(der)).collect()),
        None => Err(Error::NoCertificate(ended)),
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
