//! What is tried: a pure description of each origination, made from the upstream as it is configured.

use rustls::pki_types::ServerName;

use crate::config::values::{self, KeyExchange, KeyShare, TlsVersion, Verify};
use crate::protocols::Upgrade;

/// The one difference from the upstream as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptKind {
    AsConfigured,
    /// What nginx does by default.
    WithoutSni,
    /// The server name is sent although the configuration says not to.
    WithSni,
    WithoutIdentity,
    Tls12,
    Tls13,
    /// The ClientHello then fits one packet.
    Classic,
    AllGroups,
    WithoutAlpn,
    WithoutUpgrade,
    /// TLS from the first byte with the ALPN of the protocol, in place of a request for TLS.
    DirectTls,
    /// With a session of the attempt as configured.
    Resumed,
    /// With a session of another identity, or of none: the server must not resume it.
    ForeignSession,
    /// As configured, followed by the question.
    Question,
    QuestionWithoutIdentity,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) kind: AttemptKind,
    /// The upstream with that difference. A server is only reported on, and passes (`Verify::Report`), where no
    /// client certificate is at stake; else it has to pass before the certificate leaves.
    pub(crate) spec: values::Upstream,
}

impl AttemptKind {
    /// Attempts after the one as configured, once the server is known to speak TLS.
    pub(crate) const DIFFERENCES: [Self; 10] = [
        Self::WithoutSni,
        Self::WithSni,
        Self::WithoutIdentity,
        Self::Tls12,
        Self::Tls13,
        Self::Classic,
        Self::AllGroups,
        Self::WithoutAlpn,
        Self::WithoutUpgrade,
        Self::DirectTls,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::AsConfigured => "as_configured",
            Self::WithoutSni => "without_sni",
            Self::WithSni => "with_sni",
            Self::WithoutIdentity => "without_identity",
            Self::Tls12 => "tls12",
            Self::Tls13 => "tls13",
            Self::Classic => "classic",
            Self::AllGroups => "all_groups",
            Self::WithoutAlpn => "without_alpn",
            Self::WithoutUpgrade => "without_upgrade",
            Self::DirectTls => "direct_tls",
            Self::Resumed => "resumed",
            Self::ForeignSession => "foreign_session",
            Self::Question => "question",
            Self::QuestionWithoutIdentity => "question_without_identity",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::AsConfigured => "as configured",
            Self::WithoutSni => "without SNI",
            Self::WithSni => "with SNI",
            Self::WithoutIdentity => "without client certificate",
            Self::Tls12 => "TLS 1.2 only",
            Self::Tls13 => "TLS 1.3 only",
            Self::Classic => "no post-quantum group",
            Self::AllGroups => "every group",
            Self::WithoutAlpn => "without ALPN",
            Self::WithoutUpgrade => "TLS at once",
            Self::DirectTls => "TLS at once with ALPN",
            Self::Resumed => "session resumed",
            Self::ForeignSession => "session of another identity",
            Self::Question => "with the question",
            Self::QuestionWithoutIdentity => "question, no certificate",
        }
    }
}

impl Attempt {
    /// The attempt of this kind at an upstream; `None` where it would differ in nothing.
    pub(crate) fn new(kind: AttemptKind, upstream: &values::Upstream, server_name: &ServerName<'_>) -> Option<Self> {
        let mut spec = upstream.clone();
        let tls = &mut spec.tls;
        let named = matches!(server_name, ServerName::DnsName(_));
        let applies = match kind {
            AttemptKind::AsConfigured | AttemptKind::Resumed | AttemptKind::ForeignSession | AttemptKind::Question => {
                true
            }
            AttemptKind::WithoutSni => named && std::mem::replace(&mut tls.settings.sni, false),
            AttemptKind::WithSni => named && !std::mem::replace(&mut tls.settings.sni, true),
            AttemptKind::WithoutIdentity | AttemptKind::QuestionWithoutIdentity => tls.identity.take().is_some(),
            AttemptKind::Tls12 => only(tls, TlsVersion::V1_2),
            AttemptKind::Tls13 => only(tls, TlsVersion::V1_3),
            AttemptKind::Classic => classic(tls),
            AttemptKind::AllGroups => !std::mem::take(&mut tls.settings.key_exchange).is_empty(),
            AttemptKind::WithoutAlpn => !std::mem::take(&mut tls.settings.alpn).is_empty(),
            AttemptKind::WithoutUpgrade => spec.upgrade.take().is_some(),
            AttemptKind::DirectTls => direct(&mut spec),
        };
        if matches!(kind, AttemptKind::Question | AttemptKind::QuestionWithoutIdentity) {
            // HTTP/1.1 is what is asked in.
            spec.tls.settings.alpn.retain(|protocol| protocol != b"h2");
        }
        // A configuration that does not verify, or only reports, would be no reason to show a certificate to a
        // stranger: an explanation never does.
        spec.tls.verify = match spec.tls.identity {
            Some(_) => Verify::Full,
            None => Verify::Report { reason: String::new() },
        };
        applies.then_some(Self { kind, spec })
    }

    /// Whether this attempt sends the key share of the post-quantum group, and so a ClientHello of two packets.
    pub(crate) fn is_hybrid(&self) -> bool {
        sends_hybrid_share(&self.spec.tls)
    }
}

fn direct(spec: &mut values::Upstream) -> bool {
    let Some(direct) = spec.upgrade.and_then(Upgrade::direct) else { return false };
    spec.upgrade = Some(direct);
    spec.tls.settings.alpn = direct.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    true
}

fn sends_hybrid_share(tls: &values::Tls) -> bool {
    let first = tls.key_exchange.first();
    tls.max_version >= TlsVersion::V1_3
        && match tls.key_exchange_share {
            KeyShare::Auto => first.is_none_or(|group| *group == KeyExchange::X25519Mlkem768),
            KeyShare::Hybrid => true,
            KeyShare::Classic => false,
        }
}

fn only(tls: &mut values::Tls, version: TlsVersion) -> bool {
    let before = (tls.min_version, tls.max_version);
    tls.settings.min_version = version;
    tls.settings.max_version = version;
    // A group of TLS 1.3 alone leaves nothing to offer in 1.2.
    if version == TlsVersion::V1_2 && tls.key_exchange == [KeyExchange::X25519Mlkem768] {
        tls.settings.key_exchange.clear();
    }
    before != (version, version)
}

fn classic(tls: &mut values::Tls) -> bool {
    if !sends_hybrid_share(tls) {
        return false;
    }
    tls.settings.key_exchange_share = KeyShare::Auto;
    tls.settings.key_exchange.retain(|group| *group != KeyExchange::X25519Mlkem768);
    if tls.key_exchange.is_empty() {
        tls.settings.key_exchange = CLASSIC.to_vec();
    }
    true
}

/// The groups that are offered when the post-quantum one is left out.
const CLASSIC: [KeyExchange; 3] = [KeyExchange::X25519, KeyExchange::Secp256r1, KeyExchange::Secp384r1];
