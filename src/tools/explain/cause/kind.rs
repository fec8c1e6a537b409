//! The things that can be wrong, each with its word and its sentence.

use std::fmt;

use super::certificate::days;
use crate::config::values::TlsVersion;
use crate::credentials::certificate::Date;
use crate::pipeline::originate::handshake::Plaintext;
use crate::protocols::Upgrade;
use crate::tools::explain::plaintext_probe::Greeting;

/// What is wrong. The text it displays is one sentence without an end.
#[allow(missing_docs, reason = "the text that it displays is the documentation")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CauseKind {
    Unreachable(String),
    Upgrade(String),
    UpgradeNotWanted,
    PlaintextServer(Plaintext),
    StartTlsServer {
        protocol: Upgrade,
        greeting: Option<String>,
    },
    HybridDropped,
    /// With the failure of the handshake that offered a session.
    ResumptionIntolerant(String),
    ServerNameMissing(Option<String>),
    /// Names of the certificate that the server shows without SNI.
    ServerNameUnrecognized(Vec<String>),
    IdentityRequired {
        acceptable: Vec<String>,
        /// By an alert; else the server only closes.
        said: bool,
        given: bool,
    },
    IdentityUnusable,
    IdentityRejected {
        /// Its extended key usage lacks client authentication.
        not_for_clients: bool,
        acceptable: Vec<String>,
        foreign: bool,
        alert: Option<String>,
    },
    /// The server refuses the client certificate, or wants one, in its answer to a question.
    RefusedInAnswer {
        answer: String,
        given: bool,
    },
    SelfSigned {
        is_authority: bool,
    },
    PrivateAuthority {
        issuer: String,
        /// A root of that name is trusted, with another key.
        namesake: bool,
        /// The server sends the root itself.
        sent: bool,
    },
    ChainIncomplete {
        issuer: String,
        url: Option<String>,
    },
    LeafAsAuthority {
        issuer: String,
    },
    TrustTooNarrow,
    AuthorityAsLeaf {
        version: u32,
    },
    WrongName {
        names: Vec<String>,
        expected: Vec<String>,
    },
    CommonNameOnly {
        common_name: Option<String>,
    },
    Expired {
        subject: String,
        not_after: Date,
        now: Date,
    },
    NotYetValid {
        subject: String,
        not_before: Date,
        now: Date,
    },
    Revoked,
    CrlExpired(Date),
    WeakKey(String),
    WeakSignature(String),
    PinMismatch,
    NotTheExactOne,
    VersionExcluded(TlsVersion),
    VersionTooOld(String),
    SuiteTooOld(String),
    GroupsExcluded,
    GroupUnknown(String),
    AlpnRefused {
        /// The handshake succeeds without ALPN.
        without: bool,
    },
    /// Its class has no finer word.
    Other(String),
}

impl CauseKind {
    pub(super) fn of_plaintext(guess: Plaintext, greeting: Option<&Greeting>) -> Self {
        let Plaintext::Upgrade(protocol) = guess else { return Self::PlaintextServer(guess) };
        let greeting = greeting.and_then(|greeting| greeting.text.clone());
        Self::StartTlsServer { protocol, greeting }
    }

    /// Finer than the class; empty where there is nothing finer.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::UpgradeNotWanted => "upgrade_not_wanted",
            Self::PlaintextServer(_) => "plaintext_server",
            Self::StartTlsServer { .. } => "starttls_server",
            Self::HybridDropped => "post_quantum_hello_dropped",
            Self::ResumptionIntolerant(_) => "resumption_intolerant",
            Self::ServerNameMissing(_) => "server_name_missing",
            Self::ServerNameUnrecognized(_) => "server_name_unrecognized",
            Self::IdentityRequired { said: false, .. } => "client_certificate_required_silently",
            Self::IdentityUnusable => "client_key_unusable",
            Self::RefusedInAnswer { given: true, .. } => "client_certificate_rejected_in_answer",
            Self::RefusedInAnswer { given: false, .. } => "client_certificate_required_in_answer",
            Self::PrivateAuthority { .. } => "private_authority",
            Self::ChainIncomplete { .. } => "chain_incomplete",
            Self::LeafAsAuthority { .. } => "leaf_as_authority",
            Self::TrustTooNarrow => "trust_too_narrow",
            Self::AuthorityAsLeaf { .. } => "authority_as_leaf",
            Self::CommonNameOnly { .. } => "common_name_only",
            Self::VersionExcluded(_) => "version_excluded",
            Self::VersionTooOld(_) => "version_too_old",
            Self::SuiteTooOld(_) => "suite_too_old",
            Self::GroupsExcluded => "groups_excluded",
            Self::GroupUnknown(_) => "group_unknown",
            Self::Unreachable(_)
            | Self::Upgrade(_)
            | Self::IdentityRequired { said: true, .. }
            | Self::IdentityRejected { .. }
            | Self::SelfSigned { .. }
            | Self::WrongName { .. }
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::Revoked
            | Self::CrlExpired(_)
            | Self::WeakKey(_)
            | Self::WeakSignature(_)
            | Self::PinMismatch
            | Self::NotTheExactOne
            | Self::AlpnRefused { .. }
            | Self::Other(_) => "",
        }
    }
}

impl fmt::Display for CauseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(detail) => write!(f, "there is no connection to the server: {detail}"),
            Self::Upgrade(text) | Self::WeakKey(text) | Self::WeakSignature(text) | Self::Other(text) => {
                f.write_str(text)
            }
            Self::UpgradeNotWanted => {
                f.write_str("the server speaks TLS at once, and does not understand the upgrade that is asked for")
            }
            Self::PlaintextServer(guess) => write!(f, "the server does not speak TLS on this port; it looks like {guess}"),
            Self::StartTlsServer { protocol, greeting } => {
                write!(f, "the server speaks {} and begins in plaintext: TLS has to be asked for", protocol.name)?;
                greeting.iter().try_for_each(|text| write!(f, " (it says \"{text}\")"))
            }
            Self::HybridDropped => f.write_str(
                "the large ClientHello of post-quantum key exchange is dropped by the server or on the way to it; without that group TLS stands",
            ),
            Self::ResumptionIntolerant(detail) => {
                write!(f, "the server gives TLS sessions, and ends a handshake that offers one for resumption ({detail})")?;
                f.write_str("; egret repeats such a handshake without, other clients fail")
            }
            Self::ServerNameMissing(Some(name)) => {
                write!(f, "no server name (SNI) is sent; with \"{name}\" the server answers as it should")
            }
            Self::ServerNameMissing(None) => {
                f.write_str("no server name (SNI) is sent, since the server is given by its address, and it answers to names only")
            }
            Self::ServerNameUnrecognized(names) => {
                f.write_str("the server does not know the server name (SNI) that is sent")?;
                if names.is_empty() { Ok(()) } else { write!(f, "; without one it shows a certificate for {}", names.join(", ")) }
            }
            Self::IdentityRequired { acceptable, said, given } => {
                f.write_str("the server wants a client certificate and ")?;
                f.write_str(if *given { "did not take ours" } else { "got none" })?;
                f.write_str(if *said { "" } else { "; it does not say so, but closes" })?;
                accepts(f, acceptable)
            }
            Self::IdentityUnusable => {
                f.write_str("the server wants a client certificate, and accepts no signature that the key of ours can make")
            }
            Self::IdentityRejected { acceptable, foreign, not_for_clients, alert } => {
                f.write_str("the server does not accept the client certificate")?;
                alert.iter().try_for_each(|alert| write!(f, " (alert {alert})"))?;
                f.write_str(if *not_for_clients { "; its extended key usage lacks clientAuth" } else { "" })?;
                f.write_str(if *foreign { "; it is of none of the authorities that the server names" } else { "" })?;
                accepts(f, acceptable)
            }
            Self::RefusedInAnswer { answer, given } => {
                f.write_str("the server accepts the handshake, and then ")?;
                f.write_str(if *given { "refuses the client certificate" } else { "wants a client certificate" })?;
                write!(f, ": it answers \"{answer}\"")
            }
            _ => self.of_certificate(f),
        }
    }
}

impl CauseKind {
    fn of_certificate(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SelfSigned { is_authority } => {
                f.write_str("the server's certificate is self-signed: nobody but itself vouches for it")?;
                f.write_str(if *is_authority {
                    " (and it says that it is an authority, so as a root it would not do)"
                } else {
                    ""
                })
            }
            Self::PrivateAuthority { issuer, namesake: true, .. } => write!(
                f,
                "the server's certificate is of \"{issuer}\", and the root of that name that is trusted has another key: the authority was made anew, or is another"
            ),
            Self::PrivateAuthority { issuer, sent, .. } => {
                write!(f, "the server's certificate is of \"{issuer}\", which is not trusted: a private authority")?;
                f.write_str(if *sent { " (the server sends it along, which proves nothing)" } else { "" })
            }
            Self::ChainIncomplete { issuer, url } => {
                write!(f, "the server does not send the intermediate certificate \"{issuer}\"")?;
                url.iter().try_for_each(|url| write!(f, ", which can be had at {url}"))
            }
            Self::LeafAsAuthority { issuer } => write!(
                f,
                "what is trusted as a root is the server's own certificate; it was issued by \"{issuer}\", and that is the root that is wanted"
            ),
            Self::TrustTooNarrow => {
                f.write_str("the system's roots vouch for the server, the configured trust does not")
            }
            Self::AuthorityAsLeaf { version: 3 } => f.write_str(
                "the server's certificate says that it is an authority's, and such a one cannot end a chain",
            ),
            Self::AuthorityAsLeaf { version } => {
                write!(f, "the server's certificate is X.509 version {version}, and such a one cannot end a chain")
            }
            Self::WrongName { names, expected } => {
                let wanted = expected.join(" or ");
                let carried = names.join(", ");
                write!(f, "the server's certificate is not for {wanted}; names that would do: {carried}")
            }
            Self::CommonNameOnly { common_name: Some(name) } => write!(
                f,
                "the server's certificate carries its name only as common name (\"{name}\"), which counts for nothing since RFC 6125"
            ),
            Self::CommonNameOnly { common_name: None } => {
                f.write_str("the server's certificate carries no name at all")
            }
            Self::Expired { subject, not_after, now } => {
                let ago = days(*not_after, *now);
                write!(
                    f,
                    "the certificate \"{subject}\" expired on {not_after}, {ago} before the clock of this machine ({now})"
                )
            }
            Self::NotYetValid { subject, not_before, now } => {
                let ahead = days(*now, *not_before);
                write!(
                    f,
                    "the certificate \"{subject}\" is valid from {not_before} on, {ahead} after the clock of this machine ({now})"
                )
            }
            Self::Revoked => f.write_str("the server's certificate, or an issuer's, is revoked"),
            Self::CrlExpired(date) => write!(f, "the revocation list is stale since {date}"),
            Self::PinMismatch => f.write_str("none of the pinned keys is in the server's chain"),
            Self::NotTheExactOne => f.write_str("the server shows another certificate than the one that is trusted"),
            Self::VersionExcluded(version) => {
                write!(f, "the server speaks {}, which the configuration excludes", spoken(*version))
            }
            Self::VersionTooOld(version) => {
                write!(f, "the server speaks {version} at best, which is broken (RFC 8996)")
            }
            Self::SuiteTooOld(suite) => write!(
                f,
                "the server has no cipher suite that is safe: of all there are it chooses {suite} (egret speaks those with AEAD and forward secrecy)"
            ),
            Self::GroupsExcluded => {
                f.write_str("the server accepts none of the groups in `key_exchange`, but another that egret knows")
            }
            Self::GroupUnknown(group) => {
                write!(f, "the server exchanges keys by {group} only, which egret does not speak")
            }
            Self::AlpnRefused { without } => {
                f.write_str("the server chooses none of the protocols offered by ALPN")?;
                f.write_str(if *without { "; without ALPN it goes on" } else { "" })
            }
            other => f.write_str(other.word()),
        }
    }
}

fn accepts(f: &mut fmt::Formatter<'_>, acceptable: &[String]) -> fmt::Result {
    if acceptable.is_empty() { Ok(()) } else { write!(f, "; it accepts those of {}", acceptable.join("; ")) }
}

fn spoken(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "TLS 1.2",
        TlsVersion::V1_3 => "TLS 1.3",
    }
}
