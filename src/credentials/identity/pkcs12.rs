//! PKCS#12 (RFC 7292), with the ciphers of today and the legacy ones (3DES, RC2) that old tools still write.

use std::path::Path;

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error as ArchiveError;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::key::{self, Key};
use super::{Error, Material, Wrong};
use crate::config::values;
use crate::credentials::certificate::{CertificateFacts, public_key};
use crate::credentials::contents::derivation::{self, Format};
use crate::wording;

/// Chain (leaf first, without a root) and key of an archive, and its certificates that are not sent.
pub(super) fn open(bytes: &[u8], spec: &values::Identity) -> Result<Material, Error> {
    let blame = |what| Error { file: spec.certificate.clone(), what };
    derivation::check(bytes, Format::Pkcs12).map_err(|error| blame(Wrong::Derivation(error)))?;
    let password = key::password(spec)?;
    let text = match &password {
        Some((password, file)) => std::str::from_utf8(password.expose())
            .map_err(|_| Error { file: (*file).into(), what: Wrong::PasswordNotText })?,
        None => "",
    };
    let archive = Pkcs12Archive::from_pkcs12(bytes, text)
        .map_err(|error| blame(why(&error, password.as_ref().map(|(_, file)| *file))))?;
    let [bag] = &archive.keys[..] else {
        let what = match archive.keys.len() {
            0 => Wrong::NoKey(Vec::new()),
            keys => Wrong::SeveralKeys(keys),
        };
        return Err(blame(what));
    };
    let key = Key::new(PrivatePkcs8KeyDer::from(bag.key.as_der().to_vec()).into());
    let signing = any_supported_type(&key).map_err(|error| blame(Wrong::BadKey(wording::sentence(&error))))?;
    let spki = signing.public_key().ok_or_else(|| blame(Wrong::BadKey("it has no public half".into())))?;
    let mut rest: Vec<&[u8]> = archive.certs.iter().map(|bag| bag.cert.as_der()).collect();
    if rest.is_empty() {
        return Err(blame(Wrong::NoCertificate(Vec::new())));
    }
    let own = rest.iter().position(|der| public_key(der).as_ref() == Some(&spki));
    let own = own.ok_or_else(|| blame(Wrong::KeyMismatch(spec.certificate.clone())))?;
    let leaf = rest.swap_remove(own);
    let (chain, rest) = in_order(leaf, rest);
    let remarks = rest.into_iter().map(|der| remark(&spec.certificate, der)).collect();
    Ok(Material { chain, key, remarks })
}

fn remark(file: &Path, der: &[u8]) -> String {
    let facts = CertificateFacts::read(der);
    let subject = facts.as_ref().map_or("of unknown subject", |facts| facts.subject.as_str());
    let why = match &facts {
        Some(facts) if facts.self_signed => "servers have their roots",
        Some(_) => "the chain from the leaf up has no place for it",
        None => "it cannot be read",
    };
    format!("{}: the certificate `{subject}` is not sent: {why}", file.display())
}

/// Archives keep certificates in any order: each one's issuer is looked up. A root is left out: the server has it
/// already, or does not trust it.
fn in_order<'a>(leaf: &[u8], mut rest: Vec<&'a [u8]>) -> (Vec<CertificateDer<'static>>, Vec<&'a [u8]>) {
    let mut chain = vec![CertificateDer::from(leaf.to_vec())];
    let mut last = CertificateFacts::read(leaf);
    while let Some(facts) = last.take().filter(|facts| !facts.self_signed) {
        let issuer = rest.iter().position(|der| {
            CertificateFacts::read(der).is_some_and(|it| it.subject == facts.issuer && !it.self_signed)
        });
        let Some(issuer) = issuer else { break };
        let issuer = rest.swap_remove(issuer);
        chain.push(CertificateDer::from(issuer.to_vec()));
        last = CertificateFacts::read(issuer);
    }
    (chain, rest)
}

fn why(error: &ArchiveError, password_file: Option<&Path>) -> Wrong {
    let wrong_password = || match password_file {
        Some(file) => Wrong::WrongPassword(file.into()),
        None => Wrong::PasswordMissing,
    };
    match error {
        ArchiveError::MacError(_) | ArchiveError::UnpadError | ArchiveError::Pkcs5Error(_) => wrong_password(),
        ArchiveError::UnsupportedEncryptionScheme | ArchiveError::UnsupportedMacAlgorithm => {
            Wrong::UnsupportedEncryption(wording::sentence(error))
        }
        // Inside of an encrypted part: outside, such parameters were refused before.
        ArchiveError::InvalidParameters => Wrong::UnsupportedEncryption(
            "inside of it, parameters are missing, or ask for more than 1000000 iterations or 1 GiB of memory".into(),
        ),
        _ => Wrong::NoCertificate(vec!["neither PEM nor PKCS#12".into()]),
    }
}
