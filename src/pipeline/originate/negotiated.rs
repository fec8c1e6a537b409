//! What a handshake has agreed on.

use std::sync::Arc;

use crate::credentials::certificate::CertificateFacts;
use crate::credentials::observation::CertificateRequest;
use crate::credentials::presented::Presented;
use crate::credentials::refusal::Refusal;
use crate::pipeline::originate::origin::resumption::Resumption;

/// What a handshake has agreed on.
#[derive(Clone, Debug)]
pub struct Negotiated {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    pub(crate) suite: &'static str,
    /// The group of the key exchange.
    pub group: &'static str,
    /// The protocol that the server chose.
    pub alpn: Option<Vec<u8>>,
    /// What became of resumption.
    pub resumed: Resumption,
    /// The server's certificate; in a resumed handshake, that of the handshake it descends from.
    pub server: Option<Arc<CertificateFacts>>,
    /// What `verify = "full"` would have refused.
    pub would_fail: Option<Refusal>,
    /// The server asked for a client certificate, and how that was answered. `None` in a resumed handshake
    /// of an identity too: the session carries it.
    pub client_certificate: Option<CertificateRequest>,
    /// Whether the server of this handshake, or of the one that a resumed session descends from, asked for a client
    /// certificate; `Some(true)`: it got one.
    pub(crate) certificate_sent: Option<bool>,
    /// Kept only where later trusts have to check it again.
    pub(crate) chain: Option<Presented>,
}
