//! The parts of a file of certificates, keys or revocation lists, in every form that tools write.
//!
//! The only reader of such files: identities, trusts, `egret trust show` and the list of what expires read through it, so
//! that a file means the same everywhere. No part is dropped: a reader that has no use for one reports it by its line.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::certificate::element;
use super::pem::{self, Section};
use crate::secret::Secret;

pub mod derivation;
mod key;
mod pkcs7;

pub(crate) use self::key::Key;
pub(crate) use self::key::algorithm as encryption;

/// One part of a file.
#[derive(Debug)]
pub struct Part {
    /// Where it begins, from 1; in DER, 1.
    pub(crate) line: usize,
    /// Its label in PEM; in DER, what it was recognised as.
    pub(crate) label: String,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Certificate(CertificateDer<'static>),
    /// A certificate with OpenSSL's trust settings behind it, which were cut off.
    Trusted(CertificateDer<'static>),
    Crl(Vec<u8>),
    Key(Key),
    /// The curve of the EC key that follows; the key names it again.
    Curve,
    Other,
}

/// The form of a file.
#[derive(Debug)]
pub enum Contents {
    /// PEM or DER that was recognised.
    Parts(Vec<Part>),
    /// One DER element that is none of these: PKCS#12, if anything.
    Unknown(Secret),
}

/// Why a file cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is damaged PEM.
    #[error("is damaged PEM: {0}")]
    Pem(#[source] pem::Error),
    /// DER with something behind it that is not DER.
    #[error("has {0} octets behind its DER that are no part of it")]
    Trailing(usize),
    /// The text of a PEM section without its first and last line.
    #[error("is base64 without its BEGIN and END lines: the kind of its content is unknown")]
    Unlabelled,
    /// A PKCS#7 bundle that cannot be read.
    #[error("line {0}: a PKCS#7 bundle that cannot be read; convert it with `openssl pkcs7 -print_certs`")]
    Pkcs7(usize),
}

/// Takes a file apart.
///
/// # Errors
/// A part is damaged: it is not known what it holds.
pub fn read(bytes: &[u8]) -> Result<Contents, Error> {
    if pem::is_pem(bytes) {
        let mut parts = Vec::new();
        for section in pem::sections(bytes).map_err(Error::Pem)? {
            of_section(section, &mut parts)?;
        }
        return Ok(Contents::Parts(parts));
    }
    of_der(bytes)
}

impl Part {
    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match &self.kind {
            Kind::Certificate(der) | Kind::Trusted(der) => Some(der),
            _ => None,
        }
    }

    /// What a reader of other kinds of parts reports about this one; `None`: nothing is lost.
    pub(crate) fn unused(&self) -> Option<String> {
        match &self.kind {
            Kind::Curve => None,
            _ => Some(format!("line {}: `{}` is not used", self.line, super::certificate::clean(&self.label))),
        }
    }

    /// What is cut off from a part that is used.
    pub(crate) fn cut(&self) -> Option<String> {
        let cut = "OpenSSL's trust settings behind the certificate are not used";
        matches!(self.kind, Kind::Trusted(_)).then(|| format!("line {}: {cut}", self.line))
    }
}

fn of_section(section: Section, parts: &mut Vec<Part>) -> Result<(), Error> {
    let Section { label, body, old_encryption, line } = section;
    let der = body.expose();
    let kind = match label.as_str() {
        "CERTIFICATE" | "X509 CERTIFICATE" | "PKCS7" | "CMS" if pkcs7::is_signed_data(der) => {
            return of_bundle(der, line, parts);
        }
        "PKCS7" | "CMS" => return Err(Error::Pkcs7(line)),
        "CERTIFICATE" | "X509 CERTIFICATE" => Kind::Certificate(der.to_vec().into()),
        "TRUSTED CERTIFICATE" => trusted(der),
        "X509 CRL" => Kind::Crl(der.to_vec()),
        "EC PARAMETERS" => Kind::Curve,
        label if label.ends_with("PRIVATE KEY") => Kind::Key(Key { label: label.into(), der: body, old_encryption }),
        _ => Kind::Other,
    };
    parts.push(Part { line, label, kind });
    Ok(())
}

/// `X509_CERT_AUX` of OpenSSL: a certificate, and perhaps a second element with what it is trusted for.
fn trusted(der: &[u8]) -> Kind {
    match element(der) {
        Some((certificate, _, rest)) if !rest.is_empty() => Kind::Trusted(certificate.to_vec().into()),
        _ => Kind::Certificate(der.to_vec().into()),
    }
}

fn of_bundle(der: &[u8], line: usize, parts: &mut Vec<Part>) -> Result<(), Error> {
    let bundle = pkcs7::read(der).ok_or(Error::Pkcs7(line))?;
    let part = |label: &str, kind| Part { line, label: label.into(), kind };
    parts
        .extend(bundle.certificates.into_iter().map(|der| part("certificate of PKCS7", Kind::Certificate(der.into()))));
    parts.extend(bundle.crls.into_iter().map(|der| part("revocation list of PKCS7", Kind::Crl(der))));
    Ok(())
}

/// DER, one element after the other. White space at the end comes from an editor, or from `echo`.
fn of_der(bytes: &[u8]) -> Result<Contents, Error> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while !rest.trim_ascii().is_empty() {
        let Some((der, _, behind)) = element(rest).filter(|_| rest[0] == SEQUENCE) else {
            return if rest.len() == bytes.len() { unknown(bytes) } else { Err(Error::Trailing(rest.len())) };
        };
        if !of_element(der, &mut parts)? {
            // PKCS#12, if anything, and that is alone in its file.
            let alone = rest.len() == bytes.len() && behind.trim_ascii().is_empty();
            let unknown = Contents::Unknown(Secret::new(der.to_vec()));
            return if alone { Ok(unknown) } else { Err(Error::Trailing(behind.len())) };
        }
        rest = behind;
    }
    Ok(Contents::Parts(parts))
}

const SEQUENCE: u8 = 0x30;

fn unknown(bytes: &[u8]) -> Result<Contents, Error> {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte) || byte.is_ascii_whitespace();
    if bytes.iter().all(is_base64) && bytes.trim_ascii().starts_with(b"MI") {
        return Err(Error::Unlabelled);
    }
    Ok(Contents::Unknown(Secret::new(bytes.to_vec())))
}

/// `false`: the element is of no known kind.
fn of_element(der: &[u8], parts: &mut Vec<Part>) -> Result<bool, Error> {
    let (label, kind) = if X509Certificate::from_der(der).is_ok() {
        ("CERTIFICATE", Kind::Certificate(der.to_vec().into()))
    } else if CertificateRevocationList::from_der(der).is_ok() {
        ("X509 CRL", Kind::Crl(der.to_vec()))
    } else if pkcs7::is_signed_data(der) {
        return of_bundle(der, 1, parts).map(|()| true);
    } else if is_key(der) {
        let key = Key { label: String::new(), der: Secret::new(der.to_vec()), old_encryption: false };
        ("PRIVATE KEY", Kind::Key(key))
    } else {
        return Ok(false);
    };
    parts.push(Part { line: 1, label: label.into(), kind });
    Ok(true)
}

/// PKCS#12 begins like a key of SEC1 or PKCS#8, but with version 3 (RFC 7292 section 4).
fn is_key(der: &[u8]) -> bool {
    key::is_encrypted(der) || PrivateKeyDer::try_from(der).is_ok_and(|_| !is_archive(der))
}

fn is_archive(der: &[u8]) -> bool {
    element(der).is_some_and(|(_, content, _)| content.starts_with(&[0x02, 0x01, 0x03]))
}

/// The password in a file: its first line, without the mark or the end of line that other systems write.
pub(crate) fn password(bytes: &[u8]) -> Result<Secret, Error> {
    let text = Zeroizing::new(pem::decoded(bytes).map_err(Error::Pem)?.into_owned());
    let line = text.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    Ok(Secret::new(line.to_vec()))
}
