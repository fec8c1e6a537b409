//! Who egret is: a certificate chain and its private key, read from files.

mod error;
mod key;
mod pkcs12;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

pub use self::error::{Error, Wrong};
use self::key::Key;
use crate::config::values::{self, Name};
use crate::originate::certificate::{CertificateFacts, Date, public_key};
use crate::originate::files::{self, Content};
use crate::originate::fingerprint::{Fields, Sha256};
use crate::originate::pem::{self, Section};

/// A certificate chain and its private key, ready to sign.
#[derive(Debug)]
pub struct Identity {
    name: Name,
    certified: Arc<CertifiedKey>,
    leaf: CertificateFacts,
    not_after: Date,
    fingerprint: Fingerprint,
}

/// What tells identities apart. Two with the same are the same to every server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// SHA-256 of the leaf's DER encoding.
    pub leaf: Sha256,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key: Sha256,
    /// Over the whole chain: a new intermediate is a new identity.
    pub chain: Sha256,
}

impl Identity {
    /// Reads the files, opens what is encrypted, and checks that key and certificate belong together and
    /// that the certificate is valid today. Blocks on the file system and, with an encrypted key, for
    /// the time that its key derivation is meant to take.
    ///
    /// # Errors
    /// [`Error`] names the file and what is wrong with it.
    pub fn load(name: &Name, spec: &values::Identity) -> Result<Self, Error> {
        let material = Material::read(spec)?;
        let key_file = spec.private_key.as_deref().unwrap_or(&spec.certificate);
        let signing = any_supported_type(&material.key)
            .map_err(|error| Error { file: key_file.into(), what: Wrong::BadKey(error.to_string()) })?;
        let blame = |what| Error { file: spec.certificate.clone(), what };
        let leaf = material.chain.first().ok_or_else(|| blame(Wrong::NoCertificate(Vec::new())))?;
        let belongs = signing.public_key().is_some_and(|spki| public_key(leaf).as_ref() == Some(&spki));
        if !belongs {
            return Err(blame(Wrong::KeyMismatch(key_file.into())));
        }
        let facts = check_dates(&material.chain).map_err(blame)?;
        Ok(Self::new(name.clone(), CertifiedKey::new(material.chain, signing), facts))
    }

    fn new(name: Name, certified: CertifiedKey, facts: Vec<CertificateFacts>) -> Self {
        let leaf = facts[0].clone();
        let mut chain = Fields::new();
        facts.iter().for_each(|facts| chain.add("certificate", &facts.sha256));
        let fingerprint = Fingerprint { leaf: leaf.sha256, key: leaf.spki_sha256, chain: chain.finish() };
        let not_after = facts.iter().map(|facts| facts.not_after).min().unwrap_or(leaf.not_after);
        Self { name, certified: Arc::new(certified), leaf, not_after, fingerprint }
    }

    /// What the configuration calls it.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What tells it from others.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// What the leaf certificate says of itself.
    pub fn leaf(&self) -> &CertificateFacts {
        &self.leaf
    }

    /// The earliest end of the chain.
    pub fn not_after(&self) -> Date {
        self.not_after
    }

    /// Chain and key in the form that rustls signs with.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// Chain and key, as read.
struct Material {
    chain: Vec<CertificateDer<'static>>,
    key: Key,
}

impl Material {
    fn read(spec: &values::Identity) -> Result<Self, Error> {
        let Content { bytes, mode } = read(&spec.certificate)?;
        let loose_is_fine = spec.allow_loose_key_permissions;
        if pem::is_pem(bytes.expose()) {
            let blame = |what| Error { file: spec.certificate.clone(), what };
            let sections = pem::sections(bytes.expose()).map_err(|error| blame(Wrong::Damaged(error)))?;
            let chain = chain(&sections).map_err(blame)?;
            if let Some(file) = &spec.private_key {
                return Ok(Self { chain, key: key::from_file(file, spec)? });
            }
            let key = key::from_sections(&sections, &spec.certificate, spec)?;
            check_mode(&spec.certificate, mode, loose_is_fine)?;
            return Ok(Self { chain, key });
        }
        if let (Some(file), Some(_)) = (&spec.private_key, CertificateFacts::read(bytes.expose())) {
            let chain = vec![CertificateDer::from(bytes.expose().to_vec())];
            return Ok(Self { chain, key: key::from_file(file, spec)? });
        }
        check_mode(&spec.certificate, mode, loose_is_fine)?;
        let (chain, key) = pkcs12::open(bytes.expose(), spec)?;
        Ok(Self { chain, key })
    }
}

fn chain(sections: &[Section]) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let labels = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];
    let certificates = sections.iter().filter(|section| labels.contains(&section.label.as_str()));
    let chain: Vec<_> = certificates.map(|section| CertificateDer::from(section.body.expose().to_vec())).collect();
    if chain.is_empty() {
        return Err(Wrong::NoCertificate(labels_of(sections)));
    }
    Ok(chain)
}

fn labels_of(sections: &[Section]) -> Vec<String> {
    sections.iter().map(|section| section.label.clone()).collect()
}

fn check_dates(chain: &[CertificateDer<'_>]) -> Result<Vec<CertificateFacts>, Wrong> {
    let now = Date::now();
    let mut all = Vec::with_capacity(chain.len());
    for (index, der) in chain.iter().enumerate() {
        let facts = CertificateFacts::read(der).ok_or(Wrong::BadCertificate(index + 1))?;
        if facts.not_after < now {
            return Err(Wrong::Expired { subject: facts.subject, since: facts.not_after });
        }
        if facts.not_before > now {
            return Err(Wrong::NotYetValid { subject: facts.subject, from: facts.not_before });
        }
        all.push(facts);
    }
    Ok(all)
}

/// Whoever may read or replace a key may use the identity.
fn check_mode(file: &Path, mode: u32, loose_is_fine: bool) -> Result<(), Error> {
    if loose_is_fine || mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error { file: file.into(), what: Wrong::LooseKeyPermissions { mode, file: file.into() } })
}

fn read(path: &Path) -> Result<Content, Error> {
    files::read(path).map_err(|error| Error { file: path.into(), what: Wrong::File(error) })
}
