//! Any file with certificates, keys or lists, taken apart.

use std::path::{Path, PathBuf};

use p12_keystore::Pkcs12Archive;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::credentials::certificate::{CertificateFacts, Date, clean};
use crate::credentials::contents::derivation::{self, Format};
use crate::credentials::contents::{self, Contents, Kind, Part};
use crate::credentials::files;
use crate::credentials::fingerprint::{Sha256, sha256};
use crate::secret::Secret;
use crate::wording;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// With its DER encoding.
    Certificate(Box<CertificateFacts>, Vec<u8>),
    /// Without the key's bytes.
    Key {
        /// SHA-256 of its public half, as certificates carry it; `None` if it is encrypted or cannot be used.
        public: Option<Sha256>,
        encrypted: bool,
    },
    Crl {
        issuer: String,
        next_update: Option<Date>,
        revoked: usize,
    },
    /// Something else, by its PEM label; or a certificate or list that cannot be read.
    Other(String),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: {why}", file.display())]
    Unreadable { file: PathBuf, why: String },
    #[error("{} {source}", file.display())]
    Damaged { file: PathBuf, source: contents::Error },
    /// Its key derivation would take too much work.
    #[error("{} {source}", file.display())]
    Derivation { file: PathBuf, source: derivation::Error },
    #[error("{}: neither PEM, nor a DER certificate or list, nor PKCS#12 that {password} opens: {why}", file.display())]
    Unknown {
        file: PathBuf,
        password: &'static str,
        /// Error of the last reader that was tried.
        why: String,
    },
}

impl Error {
    /// Stable word for scripts.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "bundle_unreadable",
            Self::Damaged { .. } => "bundle_damaged",
            Self::Derivation { .. } => "bundle_key_derivation",
            Self::Unknown { .. } => "bundle_unknown",
        }
    }
}

/// Everything in a file, in its order. Blocks on the file system.
///
/// # Errors
/// The file cannot be read, or is of no known kind.
pub(crate) fn items(file: &Path, password_file: Option<&Path>) -> Result<Vec<Item>, Error> {
    let unreadable = |file: &Path, why: String| Error::Unreadable { file: file.into(), why };
    let content = files::read(file).map_err(|error| unreadable(file, error.to_string()))?;
    let damaged = |file: &Path, source| Error::Damaged { file: file.into(), source };
    let bytes = match contents::read(content.bytes.expose()).map_err(|error| damaged(file, error))? {
        Contents::Parts(parts) => return Ok(parts.iter().map(item).collect()),
        Contents::Unknown(bytes) => bytes,
    };
    let derivable = derivation::check(bytes.expose(), Format::Pkcs12);
    derivable.map_err(|source| Error::Derivation { file: file.into(), source })?;
    let password = match password_file {
        Some(path) => {
            let content = files::read(path).map_err(|error| unreadable(path, error.to_string()))?;
            contents::password(content.bytes.expose()).map_err(|error| damaged(path, error))?
        }
        None => Secret::new(Vec::new()),
    };
    archive(bytes.expose(), &String::from_utf8_lossy(password.expose())).map_err(|why| Error::Unknown {
        file: file.into(),
        password: if password_file.is_some() { "the password" } else { "an empty password (--password-file)" },
        why,
    })
}

fn item(part: &Part) -> Item {
    let found = match &part.kind {
        Kind::Certificate(der) | Kind::Trusted(der) => certificate(der),
        Kind::Crl(der) => crl(der),
        Kind::Key(key) => Some(self::key(key)),
        Kind::Curve | Kind::Other => None,
    };
    found.unwrap_or_else(|| Item::Other(clean(&part.label)))
}

/// A certificate that a server presented.
pub(super) fn presented(der: &[u8]) -> Item {
    certificate(der).unwrap_or_else(|| Item::Other("CERTIFICATE".to_owned()))
}

fn certificate(der: &[u8]) -> Option<Item> {
    Some(Item::Certificate(Box::new(CertificateFacts::read(der)?), der.to_vec()))
}

fn key(key: &contents::Key) -> Item {
    let encrypted = key.old_encryption || key.is_sealed();
    let public = key.open().ok().filter(|_| !encrypted).and_then(|key| public_half(&key));
    Item::Key { public, encrypted }
}

fn public_half(key: &PrivateKeyDer<'_>) -> Option<Sha256> {
    Some(sha256(any_supported_type(key).ok()?.public_key()?.as_ref()))
}

fn crl(der: &[u8]) -> Option<Item> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    Some(Item::Crl {
        issuer: clean(&list.issuer().to_string()),
        next_update: list.next_update().map(|time| Date(time.timestamp())),
        revoked: list.iter_revoked_certificates().count(),
    })
}

fn archive(bytes: &[u8], password: &str) -> Result<Vec<Item>, String> {
    let archive = Pkcs12Archive::from_pkcs12(bytes, password).map_err(|error| wording::sentence(&error))?;
    let certificates = archive.certs.iter().filter_map(|bag| certificate(bag.cert.as_der()));
    let keys = archive.keys.iter().map(|bag| {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(bag.key.as_der()));
        Item::Key { public: public_half(&key), encrypted: false }
    });
    Ok(certificates.chain(keys).collect())
}
