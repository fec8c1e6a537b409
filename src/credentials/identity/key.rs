//! Private keys in PEM and DER, plain and encrypted.

use std::path::Path;

use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{Error, Wrong, labels_of, parts, permission, read};
use crate::config::values;
use crate::credentials::contents::derivation::{self, Format};
use crate::credentials::contents::{self, Contents, Kind, Part};
use crate::secret::Secret;

/// A key on its way from a file to the library that signs; wiped once it is there.
pub(super) type Key = Zeroizing<PrivateKeyDer<'static>>;

pub(super) fn from_file(file: &Path, spec: &values::Identity) -> Result<(Key, Vec<Part>), Error> {
    let content = read(file)?;
    permission::check(file, &content, spec.allow_loose_key_permissions)?;
    match parts(file, &content)? {
        Contents::Parts(parts) => Ok((from_parts(&parts, file, spec)?, parts)),
        Contents::Unknown(_) => Err(Error { file: file.into(), what: Wrong::NoKey(Vec::new()) }),
    }
}

pub(super) fn from_parts(parts: &[Part], file: &Path, spec: &values::Identity) -> Result<Key, Error> {
    let blame = |what| Error { file: file.into(), what };
    let keys: Vec<_> =
        parts.iter().filter_map(|part| if let Kind::Key(key) = &part.kind { Some(key) } else { None }).collect();
    let [key] = keys[..] else {
        let what = if keys.is_empty() { Wrong::NoKey(labels_of(parts)) } else { Wrong::SeveralKeys(keys.len()) };
        return Err(blame(what));
    };
    if key.old_encryption {
        return Err(blame(Wrong::OldEncryption));
    }
    if key.is_sealed() {
        return decrypt(key.der.expose(), file, spec);
    }
    key.open().map(|key| Key::new(key.clone_key())).map_err(|why| blame(Wrong::BadKey(why.0)))
}

/// Opens PKCS#8 that is encrypted by PBES2 (RFC 8018).
fn decrypt(der: &[u8], file: &Path, spec: &values::Identity) -> Result<Key, Error> {
    let blame = |what| Error { file: file.into(), what };
    derivation::check(der, Format::Pkcs8).map_err(|error| blame(Wrong::Derivation(error)))?;
    let sealed = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| {
        blame(match contents::encryption(der) {
            Some(oid) => Wrong::UnsupportedEncryption(format!("algorithm {oid}")),
            None => Wrong::BadKey("its encryption cannot be read".into()),
        })
    })?;
    let (password, password_file) = password(spec)?.ok_or_else(|| blame(Wrong::PasswordMissing))?;
    let opened = sealed.decrypt(password.expose()).map_err(|error| blame(why(error, password_file)))?;
    Ok(Key::new(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into()))
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

pub(super) fn password(spec: &values::Identity) -> Result<Option<(Secret, &Path)>, Error> {
    let Some(file) = spec.password_file.as_deref() else { return Ok(None) };
    let content = read(file)?;
    permission::check(file, &content, spec.allow_loose_key_permissions)?;
    let password = contents::password(content.bytes.expose());
    let password = password.map_err(|error| Error { file: file.into(), what: Wrong::Damaged(error) })?;
    Ok(Some((password, file)))
}
