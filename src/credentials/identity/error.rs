//! Why an identity could not be loaded.

use std::path::PathBuf;

use super::permission::Remedy;
use crate::credentials::certificate::Date;
use crate::credentials::contents::derivation;
use crate::credentials::{contents, files};

/// Why an identity could not be loaded: the file, what is wrong with it, and since when.
#[derive(Debug)]
pub struct Error {
    pub(crate) file: PathBuf,
    pub(crate) what: Wrong,
}

/// What is wrong with a file of an identity. Each variant's text says it.
#[allow(missing_docs, reason = "the text of the error is the documentation")]
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error("{0}")]
    File(#[source] files::Error),
    #[error("{0}")]
    Damaged(#[source] contents::Error),
    #[error("holds no certificate{}", found(.0))]
    NoCertificate(Vec<String>),
    #[error("holds no private key{}", found(.0))]
    NoKey(Vec<String>),
    #[error("holds {0} private keys: keep the one that belongs to the certificate")]
    SeveralKeys(usize),
    #[error("line {0}: a certificate that cannot be read")]
    BadCertificate(usize),
    #[error("holds a private key that cannot be used: {0}")]
    BadKey(String),
    #[error(
        "holds a key encrypted in OpenSSL's old format, which is not supported: \
         convert it with `openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW`"
    )]
    OldEncryption,
    #[error(
        "is encrypted in a way that is not supported ({0}): convert it with `openssl pkcs8 -topk8 -v2 aes-256-cbc`"
    )]
    UnsupportedEncryption(String),
    #[error("{0}")]
    Derivation(#[source] derivation::Error),
    #[error("is encrypted: name the file with its password as `password_file`")]
    PasswordMissing,
    #[error("cannot be opened with the password of {}", .0.display())]
    WrongPassword(PathBuf),
    #[error("holds a password that is not UTF-8, which PKCS#12 needs")]
    PasswordNotText,
    #[error("has mode {mode:04o}: others than its owner may use this private key; {remedy}")]
    LooseKeyPermissions { mode: u32, remedy: Remedy },
    #[error("holds another certificate than that of the private key in {}", .0.display())]
    KeyMismatch(PathBuf),
    #[error("holds a certificate (\"{subject}\") that expired on {since}")]
    Expired { subject: String, since: Date },
    #[error("holds a certificate (\"{subject}\") that is not valid before {from}")]
    NotYetValid { subject: String, from: Date },
}

impl Error {
    /// The fixed word for log and metric.
    pub fn reason(&self) -> &'static str {
        match &self.what {
            Wrong::File(files::Error::Unreadable(_) | files::Error::NotRegular(_) | files::Error::TooLarge) => {
                "identity_unreadable"
            }
            Wrong::File(files::Error::Empty)
            | Wrong::Damaged(_)
            | Wrong::NoCertificate(_)
            | Wrong::NoKey(_)
            | Wrong::SeveralKeys(_)
            | Wrong::BadCertificate(_)
            | Wrong::BadKey(_) => "identity_malformed",
            Wrong::OldEncryption | Wrong::UnsupportedEncryption(_) => "identity_encryption_unsupported",
            Wrong::Derivation(_) => "identity_key_derivation",
            Wrong::PasswordMissing | Wrong::WrongPassword(_) | Wrong::PasswordNotText => "identity_password",
            Wrong::LooseKeyPermissions { .. } => "identity_loose_permissions",
            Wrong::KeyMismatch(_) => "identity_key_mismatch",
            Wrong::Expired { .. } => "identity_expired",
            Wrong::NotYetValid { .. } => "identity_not_yet_valid",
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.file.display(), self.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.what.source()
    }
}

fn found(labels: &[String]) -> String {
    if labels.is_empty() { String::new() } else { format!(", only: {}", labels.join(", ")) }
}
