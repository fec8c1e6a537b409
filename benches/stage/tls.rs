//! Operations of TLS: records of our own, chains that were believed.

use std::hint::black_box;
use std::sync::Arc;

use egret::config::values::Name;
use egret::credentials::trust::{Mode, Trust, Verifier};
use egret::observe::metrics::OriginMetrics;
use egret::tls::record::{Opener, Sealer};
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ConnectionTrafficSecrets, ContentType};

use super::credentials::{Credentials, NAME};
use super::operations::Operation;

/// AES-256-GCM, since rustls makes shorter keys only in a handshake. It takes 14 rounds for each block where
/// AES-128-GCM takes 10.
fn secrets() -> ConnectionTrafficSecrets {
    ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([7; 32]), iv: Iv::new([9; 12]) }
}

/// One record of TLS 1.3 that holds so many bytes is sealed.
pub(crate) fn seal(size: usize) -> Operation {
    let mut sealer = Sealer::new(true, &secrets(), 0, u64::MAX).expect("a suite of TLS");
    let mut slot = slot(&sealer, size);
    Box::new(move || {
        black_box(sealer.seal(ContentType::ApplicationData, &mut slot, size).expect("a key without an end"));
    })
}

/// The same, and then opened where it stands. No record can be opened twice, so opening alone is the difference.
pub(crate) fn seal_and_open(size: usize) -> Operation {
    let mut sealer = Sealer::new(true, &secrets(), 0, u64::MAX).expect("a suite of TLS");
    let mut opener = Opener::new(true, &secrets(), 0).expect("a suite of TLS");
    let mut slot = slot(&sealer, size);
    Box::new(move || {
        let wire = sealer.seal(ContentType::ApplicationData, &mut slot, size).expect("a key without an end");
        let (_, plain) = opener.open(&mut slot[..wire]).expect("a record that was sealed");
        assert_eq!(plain.len(), size);
    })
}

fn slot(sealer: &Sealer, size: usize) -> Vec<u8> {
    vec![7; sealer.layout().front() + size + sealer.layout().back()]
}

/// The same server again: its chain is known.
pub(crate) fn chain_hit() -> Operation {
    let stage = Chain::new();
    let verifier = stage.verifier();
    Box::new(move || stage.verify(&verifier))
}

/// A server for the first time: its chain is built, and remembered.
pub(crate) fn chain_miss() -> Operation {
    let stage = Chain::new();
    Box::new(move || stage.verify(&stage.verifier()))
}

/// A trust, and a server that it believes: a P-256 leaf right below a P-256 root.
struct Chain {
    credentials: Credentials,
    trust: Arc<Trust>,
    metrics: Arc<OriginMetrics>,
    name: ServerName<'static>,
}

impl Chain {
    fn new() -> Self {
        let credentials = Credentials::new();
        let config = credentials.config(1);
        let spec = config.trusts.values().next().expect("it is configured");
        let trust = Arc::new(Trust::load(&Name::new("bench"), spec).expect("a trust"));
        let name = NAME.try_into().expect("a name");
        Self { credentials, trust, metrics: OriginMetrics::silent(), name }
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(Arc::clone(&self.trust), Mode::Full, Arc::clone(&self.metrics))
    }

    fn verify(&self, verifier: &Verifier) {
        let leaf = self.credentials.leaf();
        let verified = verifier.verify_server_cert(leaf, &[], &self.name, &[], UnixTime::now());
        black_box(verified).expect("a server that is believed");
    }
}
