//! What a fatal alert means for the client certificate, in the handshake and after it.

use rustls::AlertDescription;

use super::error::Cause;
use crate::pipeline::originate::negotiated::Negotiated;

/// The server's refusal of the client certificate by an alert after egret's handshake, before a byte of data. `None`:
/// the alert has another cause.
///
/// Only TLS 1.3 verifies this late (RFC 8446 section 4.4.2.4), and only a server that asked for a certificate, in this
/// handshake or in the one that a resumed session descends from: some verify the session's certificate again.
pub fn late_refusal(alert: AlertDescription, negotiated: &Negotiated) -> Option<Cause> {
    let sent = negotiated.certificate_sent.filter(|_| negotiated.version == "TLSv1.3")?;
    refusal(alert, sent)
}

/// In a handshake whose server has asked for a certificate; `sent`: it got one.
pub(super) fn refusal_in_handshake(alert: AlertDescription, sent: bool) -> Option<Cause> {
    use AlertDescription as A;
    match alert {
        // SSL 3.0's word, which no version since may send (RFC 8446 section 6.2).
        A::NoCertificate => Some(Cause::ClientCertificateRequired),
        // What OpenSSL says in TLS 1.2 when there was no certificate, and others when it was a wrong one. After a
        // handshake of TLS 1.3 it would be about something else.
        A::HandshakeFailure => Some(of_certificate(alert, sent)),
        _ => refusal(alert, sent),
    }
}

/// The alerts of RFC 8446 section 6.2 that are about a certificate. `unrecognized_name` (112) is about a host name, and
/// `bad_certificate_status_response` (113) about what a server sends.
fn refusal(alert: AlertDescription, sent: bool) -> Option<Cause> {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired => Some(Cause::ClientCertificateRequired),
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        // A certificate is valid, and its holder is not allowed.
        | A::AccessDenied => Some(of_certificate(alert, sent)),
        // A signature does not verify: that of CertificateVerify, or (OpenSSL) that of an issuer which has the name of
        // an authority that the server trusts, but another key.
        A::DecryptError if sent => Some(Cause::ClientCertificateRejected(alert)),
        _ => None,
    }
}

fn of_certificate(alert: AlertDescription, sent: bool) -> Cause {
    if sent { Cause::ClientCertificateRejected(alert) } else { Cause::ClientCertificateRequired }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::originate::origin::resumption::Resumption;

    const REQUIRED: Option<&str> = Some("client_certificate_required");
    const REJECTED: Option<&str> = Some("client_certificate_rejected");

    fn judged(version: &'static str, certificate_sent: Option<bool>, alert: u8) -> Option<&'static str> {
        let negotiated = Negotiated {
            version,
            suite: "",
            group: "",
            alpn: None,
            resumed: Resumption::Off,
            server: None,
            would_fail: None,
            client_certificate: None,
            certificate_sent,
            chain: None,
        };
        late_refusal(alert.into(), &negotiated).map(|cause| cause.reason())
    }

    #[test]
    fn an_alert_after_the_handshake_is_a_judgement_only_if_it_can_be_one() {
        for alert in 0..=u8::MAX {
            let (sent, not_sent) = match alert {
                42..=46 | 48 | 49 => (REJECTED, REQUIRED),
                51 => (REJECTED, None),
                116 => (REQUIRED, REQUIRED),
                _ => (None, None),
            };
            assert_eq!(judged("TLSv1.3", Some(true), alert), sent, "{alert}, a certificate was sent");
            assert_eq!(judged("TLSv1.3", Some(false), alert), not_sent, "{alert}, none was sent");
            assert_eq!(judged("TLSv1.3", None, alert), None, "{alert}, none was asked for");
            assert_eq!(judged("TLSv1.2", Some(true), alert), None, "{alert}, judged in the handshake");
        }
    }
}
