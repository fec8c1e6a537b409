//! A trust as rustls asks it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, SignatureScheme};
use webpki::RawPublicKeyEntity;

use super::verified::Verified;
use super::{Believed, Trust};
use crate::config::values;
use crate::credentials::certificate::{CertificateFacts, Date, public_key};
use crate::credentials::observation::note;
use crate::credentials::period::Period;
use crate::credentials::presented::Presented;
use crate::credentials::refusal::Refusal;
use crate::observe::metrics::OriginMetrics;

/// What happens if verification of the server fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The server is refused.
    Full,
    /// The server is refused, except for a name that the trust does not ask for.
    Chain,
    /// The server is used; the failure is noted.
    Report,
    /// The server is not verified.
    None,
}

/// Checks servers within the handshake, before the client certificate is sent.
///
/// One per origin and never changed: rustls ties sessions to this object, so that a session which one
/// trust has made cannot be resumed under another.
pub struct Verifier {
    trust: Arc<Trust>,
    mode: Mode,
    verified: Verified,
    metrics: Arc<OriginMetrics>,
}

impl Verifier {
    /// A verifier of its own.
    pub fn new(trust: Arc<Trust>, mode: Mode, metrics: Arc<OriginMetrics>) -> Self {
        Self { trust, mode, verified: Verified::default(), metrics }
    }

    fn build(
        &self,
        presented: &Presented,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Option<Period>, Refusal> {
        let leaf = presented.certificates().first().filter(|_| self.mode != Mode::None);
        let Some(leaf) = leaf else { return Ok(None) };
        let believed = self.trust.check_in(self.mode, leaf, intermediates, server_name, now)?;
        self.metrics.chains_built.increment(1);
        self.count(&believed);
        let valid = Period { from: Date::from(now), until: believed.until };
        self.verified.keep(presented, server_name, now, believed);
        Ok(Some(valid))
    }

    fn count(&self, believed: &Believed) {
        if let Some((index, root)) = believed.root.and_then(|index| Some((index, self.trust.roots().get(index)?))) {
            self.metrics.rotation.vouched(index, || if root.system { "system" } else { &root.subject });
        }
        if let Some(verdict) = believed.candidate {
            self.metrics.rotation.candidates(verdict.err().unwrap_or("passed"));
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("trust", &self.trust).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl From<&values::Verify> for Mode {
    fn from(verify: &values::Verify) -> Self {
        match verify {
            values::Verify::Full => Self::Full,
            values::Verify::Chain { .. } => Self::Chain,
            values::Verify::Report { .. } => Self::Report,
            values::Verify::None { .. } => Self::None,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // A stapled OCSP response is ignored, so it can neither help nor harm.
        if let Some((presented, believed, valid)) = self.verified.find(end_entity, intermediates, server_name, now) {
            self.metrics.chains_remembered.increment(1);
            self.count(&believed);
            note(|facts| {
                (facts.passed, facts.valid, facts.chain_bytes) = (true, Some(valid), presented.size());
                facts.presented = Some(presented);
            });
            return Ok(ServerCertVerified::assertion());
        }
        let presented = Presented::new(end_entity, intermediates);
        note(|facts| (facts.chain_bytes, facts.presented) = (presented.size(), Some(presented.clone())));
        let refusal = match self.build(&presented, intermediates, server_name, now) {
            Ok(valid) => {
                note(|facts| (facts.passed, facts.valid) = (true, valid));
                return Ok(ServerCertVerified::assertion());
            }
            Err(refusal) => refusal,
        };
        let error = Error::InvalidCertificate(refusal.to_certificate_error());
        note(|facts| (facts.passed, facts.refusal) = (self.mode == Mode::Report, Some(refusal)));
        if self.mode == Mode::Report { Ok(ServerCertVerified::assertion()) } else { Err(error) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        with_key(cert, |spki| tls12_signature(message, spki, dss))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        with_key(cert, |spki| verify_tls13_signature_with_raw_key(message, spki, dss, algorithms()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

pub(super) fn algorithms() -> &'static WebPkiSupportedAlgorithms {
    static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
        LazyLock::new(|| aws_lc_rs::default_provider().signature_verification_algorithms);
    &ALGORITHMS
}

/// Checks a signature by the bare key of a certificate: webpki would not read X.509 v1. A key that is too short is
/// noted as such, whatever the mode.
fn with_key(
    cert: &CertificateDer<'_>,
    check: impl FnOnce(&SubjectPublicKeyInfoDer<'_>) -> Result<HandshakeSignatureValid, Error>,
) -> Result<HandshakeSignatureValid, Error> {
    let spki = public_key(cert).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    check(&spki).inspect_err(|_| {
        if let Some(weak) = CertificateFacts::read(cert).filter(CertificateFacts::has_weak_key) {
            note(|facts| facts.refusal = Some(Refusal::WeakKey { subject: weak.subject, bits: weak.key_bits }));
        }
    })
}

/// TLS 1.2 does not tie a scheme to a curve, so each algorithm of the scheme is tried (as rustls does).
fn tls12_signature(
    message: &[u8],
    spki: &SubjectPublicKeyInfoDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let candidates = algorithms().mapping.iter().find(|(scheme, _)| *scheme == dss.scheme).map(|(_, all)| *all);
    let candidates = candidates.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    let key =
        RawPublicKeyEntity::try_from(spki).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    // Each candidate checks that it is for this kind of key.
    match candidates.iter().any(|algorithm| key.verify_signature(*algorithm, message, dss.signature()).is_ok()) {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(Error::InvalidCertificate(CertificateError::BadSignature)),
    }
}
