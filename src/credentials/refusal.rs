//! Why a server's certificate is rejected: a fixed set.

use std::fmt;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use crate::credentials::certificate::{Date, MIN_RSA_BITS};

/// Why a server's certificate is rejected.
#[allow(missing_docs, reason = "the text that it displays is the documentation")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No root has issued it.
    UnknownIssuer,
    /// It is self-signed, and is not the one certificate that is trusted.
    SelfSigned {
        /// One of the roots has its key, but is another certificate; and it claims to be an authority (or is X.509 v1),
        /// which the end of a chain may not be.
        among_roots: bool,
    },
    /// It carries none of the expected names.
    NameMismatch {
        /// What was expected, in words.
        expected: Vec<String>,
    },
    Expired {
        not_after: Date,
    },
    NotYetValid {
        not_before: Date,
    },
    Revoked,
    /// A key too short to be checked.
    WeakKey {
        subject: String,
        bits: usize,
    },
    /// A signature by an algorithm that is broken.
    WeakSignature {
        subject: String,
        algorithm: String,
    },
    /// The chain holds none of the pinned keys.
    PinMismatch,
    /// Another certificate than the one that is trusted.
    NotTheExactOne,
    /// A revocation list is past its `nextUpdate`.
    CrlExpired {
        next_update: Date,
    },
    /// The only roots that have issued it have expired or are not valid yet.
    RootOutOfDate {
        subject: String,
        /// `false`: not valid yet.
        expired: bool,
        date: Date,
    },
    /// Anything else that is wrong with it, in words.
    Invalid(String),
    /// It is an authority's certificate, or X.509 v1, at the end of a chain.
    NotAnEndEntity(&'static str),
}

impl Refusal {
    /// The class of failure: the one word of log, metric and repair.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownIssuer => "certificate_unknown_issuer",
            Self::SelfSigned { .. } => "certificate_self_signed",
            Self::NameMismatch { .. } => "certificate_name_mismatch",
            Self::Expired { .. } => "certificate_expired",
            Self::NotYetValid { .. } => "certificate_not_yet_valid",
            Self::Revoked => "certificate_revoked",
            Self::WeakKey { .. } => "certificate_weak_key",
            Self::WeakSignature { .. } => "certificate_weak_signature",
            Self::PinMismatch => "certificate_pin_mismatch",
            Self::NotTheExactOne => "certificate_not_the_exact_one",
            Self::CrlExpired { .. } => "crl_expired",
            Self::RootOutOfDate { .. } => "certificate_root_out_of_date",
            Self::Invalid(_) | Self::NotAnEndEntity(_) => "certificate_invalid",
        }
    }

    /// For rustls, which chooses the alert that the server gets (RFC 8446 section 6.2).
    pub(crate) fn to_certificate_error(&self) -> CertificateError {
        match self {
            Self::UnknownIssuer | Self::SelfSigned { .. } | Self::NotTheExactOne | Self::RootOutOfDate { .. } => {
                CertificateError::UnknownIssuer
            }
            Self::NameMismatch { .. } => CertificateError::NotValidForName,
            Self::Expired { .. } => CertificateError::Expired,
            Self::NotYetValid { .. } => CertificateError::NotValidYet,
            Self::Revoked => CertificateError::Revoked,
            Self::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
            // access_denied: a valid certificate that is not let in.
            Self::PinMismatch => CertificateError::ApplicationVerificationFailure,
            Self::WeakKey { .. } | Self::WeakSignature { .. } | Self::Invalid(_) | Self::NotAnEndEntity(_) => {
                CertificateError::Other(OtherError(Arc::new(self.clone())))
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer => f.write_str("no trusted root vouches for the server's certificate"),
            Self::SelfSigned { among_roots: false } => {
                f.write_str("the server's certificate is self-signed: nobody but itself vouches for it")
            }
            Self::SelfSigned { among_roots: true } => f.write_str(
                "one of the roots has the key of the server's certificate, but is another certificate; an authority's \
                 certificate, or X.509 v1, cannot end a chain: trust it as exactly one certificate",
            ),
            Self::NameMismatch { expected } => {
                write!(f, "the server's certificate is not for {}", expected.join(" or "))
            }
            Self::Expired { not_after } => write!(f, "the server's certificate expired on {not_after}"),
            Self::NotYetValid { not_before } => write!(f, "the server's certificate is not valid before {not_before}"),
            Self::Revoked => f.write_str("the server's certificate, or an issuer's, is revoked"),
            Self::WeakKey { subject, bits } => {
                write!(f, "the RSA key of \"{subject}\" has {bits} bits, fewer than {MIN_RSA_BITS}")
            }
            Self::WeakSignature { subject, algorithm } => {
                write!(f, "the certificate \"{subject}\" is signed with {algorithm}, which is broken")
            }
            Self::PinMismatch => f.write_str("none of the pinned keys is in the server's chain"),
            Self::NotTheExactOne => f.write_str("the server's certificate is not the one that is trusted"),
            Self::CrlExpired { next_update } => write!(f, "the issuer's revocation list is stale since {next_update}"),
            Self::RootOutOfDate { subject, expired: true, date } => {
                write!(f, "the root \"{subject}\" of the server's certificate expired on {date} and is not used")
            }
            Self::RootOutOfDate { subject, expired: false, date } => {
                write!(f, "the root \"{subject}\" of the server's certificate is not valid before {date}")
            }
            Self::Invalid(what) => write!(f, "the server's certificate cannot be used: {what}"),
            Self::NotAnEndEntity(what) => write!(f, "the server's certificate is {what}, which cannot end a chain"),
        }
    }
}

impl std::error::Error for Refusal {}
