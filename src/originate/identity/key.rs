//! Private keys in PEM and DER, plain and encrypted.

use std::path::Path;

use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use x509_parser::asn1_rs::Sequence;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AlgorithmIdentifier;
use zeroize::Zeroizing;

use super::{Error, Wrong, check_mode, labels_of, read};
use crate::config::values;
use crate::originate::files::Content;
use crate::originate::pem::{self, Section};
use crate::secret::Secret;

/// A key on its way from a file to the library that signs; wiped once it is there.
pub(super) type Key = Zeroizing<PrivateKeyDer<'static>>;

/// The key of a file of its own.
pub(super) fn from_file(file: &Path, spec: &values::Identity) -> Result<Key, Error> {
    let Content { bytes, mode } = read(file)?;
    check_mode(file, mode, spec.allow_loose_key_permissions)?;
    if pem::is_pem(bytes.expose()) {
        let sections =
            pem::sections(bytes.expose()).map_err(|error| Error { file: file.into(), what: Wrong::Damaged(error) })?;
        return from_sections(&sections, file, spec);
    }
    if EncryptedPrivateKeyInfoRef::try_from(bytes.expose()).is_ok() {
        return decrypt(bytes.expose(), file, spec);
    }
    PrivateKeyDer::try_from(bytes.expose())
        .map(|key| Key::new(key.clone_key()))
        .map_err(|_| Error { file: file.into(), what: Wrong::NoKey(Vec::new()) })
}

/// The one key among the sections of a file.
pub(super) fn from_sections(sections: &[Section], file: &Path, spec: &values::Identity) -> Result<Key, Error> {
    let blame = |what| Error { file: file.into(), what };
    let keys: Vec<&Section> = sections.iter().filter(|section| section.label.ends_with("PRIVATE KEY")).collect();
    let [section] = keys[..] else {
        let what = if keys.is_empty() { Wrong::NoKey(labels_of(sections)) } else { Wrong::SeveralKeys(keys.len()) };
        return Err(blame(what));
    };
    if section.old_encryption {
        return Err(blame(Wrong::OldEncryption));
    }
    let der = section.body.expose();
    match section.label.as_str() {
        "PRIVATE KEY" => Ok(Key::new(PrivatePkcs8KeyDer::from(der.to_vec()).into())),
        "RSA PRIVATE KEY" => Ok(Key::new(PrivatePkcs1KeyDer::from(der.to_vec()).into())),
        "EC PRIVATE KEY" => Ok(Key::new(PrivateSec1KeyDer::from(der.to_vec()).into())),
        "ENCRYPTED PRIVATE KEY" => decrypt(der, file, spec),
        other => Err(blame(Wrong::BadKey(format!("its kind \"{other}\" is not known")))),
    }
}

/// Opens PKCS#8 that is encrypted by PBES2 (RFC 8018).
fn decrypt(der: &[u8], file: &Path, spec: &values::Identity) -> Result<Key, Error> {
    let blame = |what| Error { file: file.into(), what };
    let sealed = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| {
        blame(match algorithm(der) {
            Some(oid) => Wrong::UnsupportedEncryption(format!("algorithm {oid}")),
            None => Wrong::BadKey("its encryption cannot be read".into()),
        })
    })?;
    let (password, password_file) = password(spec)?.ok_or_else(|| blame(Wrong::PasswordMissing))?;
    let opened = sealed.decrypt(password.expose()).map_err(|error| blame(why(error, password_file)))?;
    Ok(Key::new(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into()))
}

/// The algorithm of an EncryptedPrivateKeyInfo (RFC 5958 section 3), for those that the library does not
/// even parse: the password-based ones of PKCS#12 and of OpenSSL before 1.1.
fn algorithm(der: &[u8]) -> Option<String> {
    let (_, outer) = Sequence::from_der(der).ok()?;
    let (_, algorithm) = AlgorithmIdentifier::from_der(&outer.content).ok()?;
    Some(algorithm.algorithm.to_id_string())
}

fn why(error: pkcs8::Error, password_file: &Path) -> Wrong {
    use pkcs8::pkcs5;
    match error {
        pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::NoPbes1CryptSupport) => {
            Wrong::UnsupportedEncryption("PBES1".into())
        }
        pkcs8::Error::EncryptedPrivateKey(
            pkcs5::Error::UnsupportedAlgorithm { oid } | pkcs5::Error::AlgorithmParametersInvalid { oid },
        ) => Wrong::UnsupportedEncryption(format!("algorithm {oid}")),
        // A wrong password decrypts to noise: bad padding, or padding by chance and then no key.
        _ => Wrong::WrongPassword(password_file.into()),
    }
}

/// The first line of the password file, without its end of line.
pub(super) fn password(spec: &values::Identity) -> Result<Option<(Secret, &Path)>, Error> {
    let Some(file) = spec.password_file.as_deref() else { return Ok(None) };
    let Content { bytes, mode } = read(file)?;
    check_mode(file, mode, spec.allow_loose_key_permissions)?;
    let line = bytes.expose().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(Some((Secret::new(line.to_vec()), file)))
}
