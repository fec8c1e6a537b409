//! A server that does not believe the client's certificate, and says so when the handshake is over for the client.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};

use super::support::{Certificates, Counting, fills};
use crate::support::egret::Egret;
use crate::support::peer;
use crate::support::pki::Pki;
use crate::support::plain;

/// Longer than a pool that has learned nothing pauses between three tries.
const WHILE: Duration = Duration::from_millis(2_500);
const REFUSED: &str = "client_certificate_rejected";

#[test]
fn a_refused_certificate_stops_the_pool_and_clients_get_the_class() {
    let certificates = Certificates::new();
    let server = Counting::start(peer::mutual(&certificates.server, &Pki::new()), None, None);
    let client = certificates.pki.client("app");
    let egret = Egret::start(&certificates.sections(&client, server.address(), "min_idle = 4, max_idle = 8"));
    let line = egret.wait_for_log("the pool's failure", |line| line["message"] == "filling the pool failed");
    assert_eq!(line["reason"], REFUSED, "{line}");
    assert!(line["facts"]["acceptable_issuers"].as_str().is_some_and(|names| names.contains("Test Root")), "{line}");
    std::thread::sleep(WHILE);
    assert_eq!(server.accepted(), 1, "one handshake told all there is to know");

    for _ in 0..2 {
        assert!(plain::ask(egret.address("app"), b"hello").0.is_empty());
    }
    let told = |line: &serde_json::Value| line["message"] == "connection" && line["ended"] == REFUSED;
    egret.wait_for_log("the class of a client's stream", told);
    // A pool that a client's refusal wakes would try within some milliseconds.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((server.accepted(), fills(&egret, "failed")), (3, 1.0), "the clients' own, and no more of the pool's");
}

/// Thinks for longer than the pool waits, and refuses then.
#[derive(Debug)]
struct Late(Arc<dyn ClientCertVerifier>);

const THINKS: Duration = Duration::from_millis(400);

impl ClientCertVerifier for Late {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        std::thread::sleep(THINKS);
        Err(rustls::Error::InvalidCertificate(CertificateError::Revoked))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[test]
fn a_refusal_that_comes_when_the_connection_is_on_the_shelf_stops_the_pool_too() {
    const MOST: usize = 4;
    let certificates = Certificates::new();
    let mut roots = RootCertStore::empty();
    roots.add(peer::chain(&certificates.server)[1].clone()).unwrap();
    let verifier = Late(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap());
    let config = ServerConfig::builder().with_client_cert_verifier(Arc::new(verifier));
    let config = config.with_single_cert(peer::chain(&certificates.server), peer::key(&certificates.server)).unwrap();
    let server = Counting::start(Arc::new(config), None, None);
    let client = certificates.pki.client("app");
    let pool = format!("min_idle = {MOST}, max_idle = {MOST}");
    let egret = Egret::start(&certificates.sections(&client, server.address(), &pool));
    let line = egret.wait_for_log("the pool's failure", |line| line["message"] == "filling the pool failed");
    assert_eq!(line["reason"], REFUSED, "{line}");
    assert_eq!(line["facts"]["client_certificate"], "sent", "{line}");
    std::thread::sleep(WHILE);
    // The shelf was filled once before the server had made up its mind.
    assert!(server.accepted() <= 2 * MOST, "{} handshakes", server.accepted());
}
