//! Why a handshake failed: a class of a fixed set, the facts, the repair.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible, PeerMisbehaved};

use super::first_bytes::{Plaintext, plaintext};
use super::late::{late_refusal, refusal_in_handshake};
use crate::config::values::Name;
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::observation::{Facts, Observed};
use crate::credentials::refusal::Refusal;
use crate::pipeline::originate::negotiated::Negotiated;
use crate::pipeline::originate::origin::{Origin, OriginKey};
use crate::pipeline::originate::pool::warm::Discard;
use crate::tls::handshake::{self, Failed};
use crate::wording;

/// Why a handshake failed.
#[derive(Debug)]
pub struct Error {
    cause: Cause,
    pub(super) scene: Box<Scene>,
}

#[derive(Debug)]
pub(super) struct Scene {
    pub(super) endpoint: SocketAddr,
    pub(super) key: OriginKey,
    pub(super) trust: Name,
    pub(super) expected: Vec<String>,
    /// `expected` are the names of the trust, and not the server name.
    pub(super) has_names: bool,
    pub(super) has_identity: bool,
    /// The extended key usage of the client certificate lacks client authentication.
    pub(super) not_for_clients: bool,
    pub(super) server: Option<Arc<CertificateFacts>>,
    pub(super) seen: Facts,
}

/// The class of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The server's certificate failed verification.
    Certificate(Refusal),
    /// The server wants a client certificate, and got none.
    ClientCertificateRequired,
    /// The server rejected the client certificate.
    ClientCertificateRejected(AlertDescription),
    /// The server does not know the server name (alert 112).
    ServerNameUnrecognized,
    /// No common version of TLS.
    VersionMismatch,
    /// No common cipher suite, group or signature scheme, as far as the server says.
    NoCommonParameters,
    /// The server chose no protocol of ALPN.
    AlpnRefused,
    /// The server's first bytes are not TLS.
    NotTls(Plaintext),
    /// The server closed.
    Closed(Flight),
    /// The server, or something between, reset.
    Reset(Flight),
    /// No end within the deadline, or (`None`) the kernel gave the peer up.
    TimedOut(Option<Duration>),
    /// The server broke the protocol.
    Protocol(String),
    /// Any other fatal alert.
    Alert(AlertDescription),
}

/// How far the handshake had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flight {
    /// Our ClientHello was sent, and nothing came back.
    BeforeServerHello,
    /// The server has begun to answer.
    AfterServerHello,
    /// The server was verified and our last flight sent, without a client certificate.
    AfterOurFinished,
    /// The server was verified and our certificate sent.
    AfterOurCertificate,
}

#[derive(Debug)]
pub(super) enum Broken {
    Tls(rustls::Error),
    Io(io::Error, Flight),
    Plaintext(Plaintext),
    NoAlpn,
    Protocol,
    LongHello(usize),
}

impl Broken {
    pub(super) fn of(failed: Failed, observed: &Observed) -> Self {
        let flight = if failed.answered { observed.read(flight_of) } else { Flight::BeforeServerHello };
        match failed.error {
            handshake::Error::Tls(error) => Self::Tls(error),
            handshake::Error::Io(error) => Self::Io(error, flight),
            handshake::Error::Closed => Self::Io(io::ErrorKind::UnexpectedEof.into(), flight),
            handshake::Error::NotTls(first) => Self::Plaintext(plaintext(&first).unwrap_or(Plaintext::Unknown)),
            handshake::Error::Protocol => Self::Protocol,
            handshake::Error::LongHello(bytes) => Self::LongHello(bytes),
        }
    }
}

impl Error {
    pub(super) fn new(broken: Broken, seen: Facts, origin: &Origin, endpoint: SocketAddr) -> Self {
        let cause = match broken {
            Broken::Plaintext(guess) => Cause::NotTls(guess),
            Broken::NoAlpn => Cause::AlpnRefused,
            Broken::Protocol => Cause::Protocol("bytes that belong to no handshake".into()),
            Broken::LongHello(bytes) => Cause::Protocol(format!("its ticket makes a ClientHello of {bytes} bytes")),
            Broken::Tls(error) => of_tls(&error, &seen),
            Broken::Io(error, flight) => of_io(&error, flight),
        };
        Self { cause, scene: Box::new(Scene::new(seen, origin, endpoint)) }
    }

    pub(crate) fn timed_out(waited: Duration, endpoint: SocketAddr, origin: &Origin) -> Self {
        let scene = Box::new(Scene::new(Facts::default(), origin, endpoint));
        Self { cause: Cause::TimedOut(Some(waited)), scene }
    }

    /// Classifies a stream that broke after our handshake and before any data.
    pub(crate) fn late(why: Discard, negotiated: &Negotiated, endpoint: SocketAddr, origin: &Origin) -> Self {
        let request = negotiated.client_certificate.clone();
        let passed = true;
        let seen = Facts { request, passed, ..Facts::default() };
        let flight = flight_of(&seen);
        let cause = match why {
            Discard::Alert(alert) => late_refusal(alert, negotiated).unwrap_or(Cause::Alert(alert)),
            Discard::Closed => Cause::Closed(flight),
            Discard::Reset => Cause::Reset(flight),
            _ => Cause::Protocol("a record that must not come after the handshake".into()),
        };
        let scene = Box::new(Scene { server: negotiated.server.clone(), ..Scene::new(seen, origin, endpoint) });
        Self { cause, scene }
    }

    /// The fixed word for log and metric.
    pub fn reason(&self) -> &'static str {
        self.cause.reason()
    }

    pub(crate) fn is_about_client_certificate(&self) -> bool {
        self.cause.is_about_client_certificate()
    }

    /// The class with what belongs to it.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// What the server presented and what was expected of it.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let scene = &*self.scene;
        let mut facts = vec![("endpoint", scene.endpoint.to_string()), ("expected", scene.expected.join(", "))];
        facts.extend(scene.server.iter().flat_map(|server| server.fields()));
        if let Some(request) = scene.seen.answered() {
            let answer = match (request.answered, request.unusable_key) {
                (true, _) => "sent",
                (false, true) => "not sent: the server accepts no signature that its key can make",
                (false, false) => "not sent: no identity",
            };
            facts.push(("client_certificate", answer.into()));
            if !request.acceptable.is_empty() {
                facts.push(("acceptable_issuers", request.acceptable.join("; ")));
            }
        }
        facts
    }

    /// Lines of configuration that repair it, ready to be pasted; `None` if no line can.
    pub fn repair(&self, upstream: &Name) -> Option<String> {
        super::repair::repair(&self.cause, &self.scene, upstream)
    }
}

const LARGE_HELLO: &str = "the server, or a middlebox before it, drops a ClientHello of more than one packet, which the key \
                           share of post-quantum key exchange makes; only that share is allowed (key_exchange_share, \
                           key_exchange)";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        if matches!(self.cause, Cause::ClientCertificateRejected(_)) && self.scene.not_for_clients {
            f.write_str("; its extended key usage lacks clientAuth")?;
        }
        match (&self.cause, self.scene.seen.answered()) {
            (Cause::ClientCertificateRejected(_), Some(request)) if request.foreign_issuer => {
                f.write_str("; it accepts certificates of other issuers only")
            }
            (Cause::ClientCertificateRequired, Some(request)) if request.unusable_key => {
                f.write_str("; it accepts no signature that the identity's key can make")
            }
            (Cause::NoCommonParameters, _) if !self.scene.key.sni() => {
                f.write_str("; some servers say so when no server name (SNI) was sent")
            }
            (Cause::Closed(Flight::BeforeServerHello) | Cause::Reset(Flight::BeforeServerHello), _)
                if self.scene.key.pins_hybrid_share() =>
            {
                write!(f, "; or {LARGE_HELLO}")
            }
            (Cause::TimedOut(_), _) if self.scene.key.pins_hybrid_share() => {
                write!(f, "; if it answered nothing, likely: {LARGE_HELLO}")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Certificate(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl Scene {
    fn new(seen: Facts, origin: &Origin, endpoint: SocketAddr) -> Self {
        let trust = origin.trust();
        Self {
            endpoint,
            key: origin.key().clone(),
            trust: trust.name().clone(),
            expected: trust.expected(origin.server_name()).iter().map(ToString::to_string).collect(),
            has_names: !trust.names().is_empty(),
            has_identity: origin.identity().is_some(),
            not_for_clients: origin.identity().is_some_and(|identity| !identity.leaf().for_clients),
            server: seen.server(),
            seen,
        }
    }
}

impl Cause {
    /// The fixed word for log and metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Certificate(refusal) => refusal.reason(),
            Self::ClientCertificateRequired => "client_certificate_required",
            Self::ClientCertificateRejected(_) => "client_certificate_rejected",
            Self::ServerNameUnrecognized => "server_name_unrecognized",
            Self::VersionMismatch => "version_mismatch",
            Self::NoCommonParameters => "no_common_parameters",
            Self::AlpnRefused => "alpn_refused",
            Self::NotTls(_) => "not_tls",
            Self::Closed(_) => "closed_in_handshake",
            Self::Reset(_) => "reset_in_handshake",
            Self::TimedOut(_) => "handshake_timeout",
            Self::Protocol(_) => "protocol_error",
            Self::Alert(_) => "alert_received",
        }
    }
}

impl Cause {
    /// A server, or a middlebox before it, may end a handshake with this cause because of the ClientHello's length or
    /// of something unknown in it.
    pub(crate) fn may_be_of_hello(&self) -> bool {
        match self {
            Self::Closed(flight) | Self::Reset(flight) => *flight == Flight::BeforeServerHello,
            Self::TimedOut(_) | Self::Alert(_) | Self::NoCommonParameters | Self::Protocol(_) => true,
            Self::Certificate(_)
            | Self::ClientCertificateRequired
            | Self::ClientCertificateRejected(_)
            | Self::ServerNameUnrecognized
            | Self::VersionMismatch
            | Self::AlpnRefused
            | Self::NotTls(_) => false,
        }
    }

    pub(crate) fn is_about_client_certificate(&self) -> bool {
        matches!(self, Self::ClientCertificateRequired | Self::ClientCertificateRejected(_))
    }

    /// The connection broke or timed out; otherwise the server has answered.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Reset(_) | Self::TimedOut(_))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(refusal) => write!(f, "{refusal}"),
            Self::ClientCertificateRequired => f.write_str("the server wants a client certificate and got none"),
            Self::ClientCertificateRejected(alert) => {
                write!(f, "the server does not accept the client certificate (alert {})", wording::alert(*alert))
            }
            Self::ServerNameUnrecognized => f.write_str("the server does not know the server name"),
            Self::VersionMismatch => f.write_str("the server speaks no version of TLS that is allowed"),
            Self::NoCommonParameters => {
                f.write_str("the server accepts none of the cipher suites, groups and signatures offered")
            }
            Self::AlpnRefused => f.write_str("the server chose none of the protocols offered by ALPN"),
            Self::NotTls(guess) => write!(f, "the server does not answer in TLS; it looks like {guess}"),
            Self::Closed(flight) => write!(f, "the server closed {flight}"),
            Self::Reset(flight) => write!(f, "the connection was reset {flight}"),
            Self::TimedOut(None) => f.write_str("the server does not answer any more"),
            Self::TimedOut(Some(waited)) => write!(f, "the handshake was not over after {} ms", waited.as_millis()),
            Self::Protocol(what) => write!(f, "the server broke the protocol: {what}"),
            Self::Alert(alert) => write!(f, "the server ended the handshake with alert {}", wording::alert(*alert)),
        }
    }
}

impl fmt::Display for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeServerHello => {
                "before its ServerHello; likely: it wants another server name, an upgrade before TLS, or no TLS at all"
            }
            Self::AfterServerHello => "after its ServerHello, before we had its certificate",
            Self::AfterOurFinished => "after our last flight; likely: it wants a client certificate",
            Self::AfterOurCertificate => {
                "after our certificate; likely: it does not accept the client certificate and does not say so"
            }
        })
    }
}

fn of_io(error: &io::Error, flight: Flight) -> Cause {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Cause::Closed(flight),
        io::ErrorKind::TimedOut => Cause::TimedOut(None),
        // Reset, broken pipe, host unreachable: the path to the server broke.
        _ => Cause::Reset(flight),
    }
}

pub(super) fn of_tls(error: &rustls::Error, seen: &Facts) -> Cause {
    use rustls::Error as E;
    // The verifier's own refusal is more precise than the error that it gave to rustls.
    if let (E::InvalidCertificate(_), Some(refusal)) = (error, &seen.refusal) {
        return Cause::Certificate(refusal.clone());
    }
    match error {
        E::AlertReceived(alert) => of_alert(*alert, seen),
        E::InvalidCertificate(error) => Cause::Certificate(of_certificate(error)),
        E::InvalidCertRevocationList(error) => {
            Cause::Certificate(Refusal::Invalid(format!("a revocation list: {}", wording::variant(error))))
        }
        E::NoCertificatesPresented => Cause::Certificate(Refusal::Invalid("the server presented none".into())),
        E::UnsupportedNameType => Cause::Certificate(Refusal::Invalid("its kind of name is not supported".into())),
        E::PeerIncompatible(how) => of_incompatible(how),
        E::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) | E::NoApplicationProtocol => {
            Cause::AlpnRefused
        }
        E::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => Cause::VersionMismatch,
        E::InvalidMessage(what) => Cause::Protocol(format!("an invalid message: {}", wording::variant(what))),
        E::PeerMisbehaved(what) => Cause::Protocol(wording::variant(what)),
        E::InappropriateMessage { .. } | E::InappropriateHandshakeMessage { .. } => {
            Cause::Protocol("a message that does not belong here".into())
        }
        E::DecryptError => Cause::Protocol("a record that cannot be decrypted".into()),
        E::PeerSentOversizedRecord => Cause::Protocol("an oversized record".into()),
        // Our own failures, none of them expected: no random bytes, no clock, a limit of the library.
        other => Cause::Protocol(format!("not the server's fault: {}", wording::sentence(other))),
    }
}

fn of_certificate(error: &CertificateError) -> Refusal {
    use CertificateError as E;
    let date = |time: &rustls::pki_types::UnixTime| Date(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    match error {
        E::UnknownIssuer => Refusal::UnknownIssuer,
        E::Revoked => Refusal::Revoked,
        E::ExpiredContext { not_after, .. } => Refusal::Expired { not_after: date(not_after) },
        E::NotValidYetContext { not_before, .. } => Refusal::NotYetValid { not_before: date(not_before) },
        E::ExpiredRevocationListContext { next_update, .. } => Refusal::CrlExpired { next_update: date(next_update) },
        E::BadSignature => Refusal::Invalid("the server does not have its key: the signature is wrong".into()),
        other => Refusal::Invalid(wording::sentence(other)),
    }
}

fn of_incompatible(how: &PeerIncompatible) -> Cause {
    use PeerIncompatible as P;
    match how {
        P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig
        | P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled
        | P::SupportedVersionsExtensionRequired => Cause::VersionMismatch,
        P::NoCipherSuitesInCommon
        | P::NoKxGroupsInCommon
        | P::NoEcPointFormatsInCommon
        | P::NoSignatureSchemesInCommon
        | P::NoCertificateRequestSignatureSchemesInCommon
        | P::EcPointsExtensionRequired
        | P::UncompressedEcPointsRequired
        | P::NamedGroupsExtensionRequired
        | P::KeyShareExtensionRequired
        | P::SignatureAlgorithmsExtensionRequired
        | P::ExtendedMasterSecretExtensionRequired
        | P::NullCompressionRequired => Cause::NoCommonParameters,
        other => Cause::Protocol(wording::variant(other)),
    }
}

fn of_alert(alert: AlertDescription, seen: &Facts) -> Cause {
    use AlertDescription as A;
    match alert {
        A::ProtocolVersion => return Cause::VersionMismatch,
        A::UnrecognisedName => return Cause::ServerNameUnrecognized,
        A::NoApplicationProtocol => return Cause::AlpnRefused,
        A::InsufficientSecurity => return Cause::NoCommonParameters,
        A::UserCanceled | A::CloseNotify => return Cause::Closed(flight_of(seen)),
        _ => {}
    }
    let certificate = seen.answered().and_then(|request| refusal_in_handshake(alert, request.answered));
    match (certificate, alert) {
        (Some(cause), _) => cause,
        (None, A::CertificateRequired) => Cause::ClientCertificateRequired,
        (None, A::HandshakeFailure) => Cause::NoCommonParameters,
        (None, other) => Cause::Alert(other),
    }
}

fn flight_of(seen: &Facts) -> Flight {
    match (seen.answered(), seen.passed) {
        (Some(request), true) if request.answered => Flight::AfterOurCertificate,
        (_, true) => Flight::AfterOurFinished,
        _ => Flight::AfterServerHello,
    }
}
