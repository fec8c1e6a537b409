//! A client identity: a certificate chain and its private key, read from files.

mod error;
mod key;
mod permission;
mod pkcs12;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

pub use self::error::{Error, Wrong};
use self::key::Key;
use crate::config::values;
use crate::credentials::certificate::{self, CertificateFacts, Date, public_key};
use crate::credentials::contents::{self, Contents, Kind, Part};
use crate::credentials::files::{self, Content};
use crate::credentials::fingerprint::{Fields, Sha256};
use crate::wording;

/// A certificate chain and its private key, ready to sign.
#[derive(Debug)]
pub struct Identity {
    file: PathBuf,
    certified: Arc<CertifiedKey>,
    path: Vec<CertificateFacts>,
    fingerprint: Fingerprint,
    remarks: Vec<String>,
}

/// Identifies an identity. Identities with equal fingerprints are the same to every server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// SHA-256 of the leaf's DER encoding.
    pub leaf: Sha256,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub(crate) key: Sha256,
    /// Over the whole chain: a new intermediate makes a new identity.
    pub(crate) chain: Sha256,
}

impl Identity {
    /// Reads the files, decrypts the key, and checks that key and certificate belong together. Blocks on the file
    /// system and, with an encrypted key, for the time of its key derivation.
    ///
    /// Dates are no reason to refuse it: the server checks them, and its clock may be the right one.
    /// [`Identity::check_period`] returns what a server is going to find.
    ///
    /// # Errors
    /// [`Error`] names the file and its fault.
    pub fn load(spec: &values::Identity) -> Result<Self, Error> {
        let material = Material::read(spec)?;
        let key_file = spec.private_key.as_deref().unwrap_or(&spec.certificate);
        let signing = any_supported_type(&material.key)
            .map_err(|error| Error { file: key_file.into(), what: Wrong::BadKey(wording::sentence(&error)) })?;
        let blame = |what| Error { file: spec.certificate.clone(), what };
        let leaf = material.chain.first().ok_or_else(|| blame(Wrong::NoCertificate(Vec::new())))?;
        let belongs = signing.public_key().is_some_and(|spki| public_key(leaf).as_ref() == Some(&spki));
        if !belongs {
            return Err(blame(Wrong::KeyMismatch(key_file.into())));
        }
        let facts = facts(&material.chain).map_err(blame)?;
        let Material { chain, remarks, .. } = material;
        Ok(Self::new(spec, CertifiedKey::new(chain, signing), &facts, remarks))
    }

    fn new(spec: &values::Identity, certified: CertifiedKey, facts: &[CertificateFacts], remarks: Vec<String>) -> Self {
        let leaf = &facts[0];
        let mut chain = Fields::new();
        facts.iter().for_each(|facts| chain.add("certificate", &facts.sha256));
        let fingerprint = Fingerprint { leaf: leaf.sha256, key: leaf.spki_sha256, chain: chain.finish() };
        let path = path(facts, Date::now());
        let file = spec.certificate.clone();
        Self { file, certified: Arc::new(certified), path, fingerprint, remarks }
    }

    /// Identifies it.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The facts that the leaf certificate states.
    pub fn leaf(&self) -> &CertificateFacts {
        &self.path[0]
    }

    /// The leaf, and the certificates of the file that lead from it to a root. Those that no server needs are not among
    /// them: an expired cross-certificate, a spare.
    pub(crate) fn path(&self) -> &[CertificateFacts] {
        &self.path
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Whether the leaf is valid at `now`.
    ///
    /// # Errors
    /// It has expired, or is not valid yet: most servers will refuse it.
    pub fn check_period(&self, now: Date) -> Result<(), Error> {
        let leaf = self.leaf();
        let subject = leaf.subject.clone();
        let what = if leaf.not_after < now {
            Wrong::Expired { subject, since: leaf.not_after }
        } else if leaf.not_before > now {
            Wrong::NotYetValid { subject, from: leaf.not_before }
        } else {
            return Ok(());
        };
        Err(Error { file: self.file.clone(), what })
    }

    /// The earliest expiry of the leaf and of the certificates that lead from it to a root.
    pub fn not_after(&self) -> Date {
        self.path[1..].iter().fold(self.path[0].not_after, |end, facts| end.min(facts.not_after))
    }

    /// What its files hold beside the chain and the key, each with its file and line.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Chain and key in the form that rustls signs with.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

struct Material {
    chain: Vec<CertificateDer<'static>>,
    key: Key,
    remarks: Vec<String>,
}

impl Material {
    fn read(spec: &values::Identity) -> Result<Self, Error> {
        let file = &spec.certificate;
        let content = read(file)?;
        let loose_is_fine = spec.allow_loose_key_permissions;
        match parts(file, &content)? {
            Contents::Parts(parts) => {
                let chain = chain(&parts).map_err(|what| Error { file: file.clone(), what })?;
                let mut remarks = remarks(file, &parts, spec.private_key.is_none());
                if let Some(file) = &spec.private_key {
                    let (key, parts) = key::from_file(file, spec)?;
                    // Many keep the certificate in the key's file as well.
                    let others = parts.into_iter().filter(|part| part.certificate().is_none()).collect::<Vec<_>>();
                    remarks.extend(self::remarks(file, &others, true));
                    return Ok(Self { chain, key, remarks });
                }
                let key = key::from_parts(&parts, file, spec)?;
                permission::check(file, &content, loose_is_fine)?;
                Ok(Self { chain, key, remarks })
            }
            Contents::Unknown(bytes) => {
                permission::check(file, &content, loose_is_fine)?;
                pkcs12::open(bytes.expose(), spec)
            }
        }
    }
}

fn parts(file: &Path, content: &Content) -> Result<Contents, Error> {
    contents::read(content.bytes.expose()).map_err(|error| Error { file: file.into(), what: Wrong::Damaged(error) })
}

fn chain(parts: &[Part]) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let chain: Vec<_> = parts.iter().filter_map(Part::certificate).cloned().collect();
    if chain.is_empty() {
        return Err(Wrong::NoCertificate(labels_of(parts)));
    }
    for part in parts {
        if part.certificate().is_some_and(|der| CertificateFacts::read(der).is_none()) {
            return Err(Wrong::BadCertificate(part.line));
        }
    }
    Ok(chain)
}

fn remarks(file: &Path, parts: &[Part], with_key: bool) -> Vec<String> {
    let remark = |part: &Part| match &part.kind {
        Kind::Certificate(_) | Kind::Trusted(_) => part.cut(),
        Kind::Key(_) if with_key => None,
        _ => part.unused(),
    };
    parts.iter().filter_map(remark).map(|remark| format!("{}: {remark}", file.display())).collect()
}

fn labels_of(parts: &[Part]) -> Vec<String> {
    parts.iter().map(|part| certificate::clean(&part.label)).collect()
}

fn facts(chain: &[CertificateDer<'_>]) -> Result<Vec<CertificateFacts>, Wrong> {
    let read = |(index, der): (usize, &CertificateDer<'_>)| {
        CertificateFacts::read(der).ok_or(Wrong::BadCertificate(index + 1))
    };
    chain.iter().enumerate().map(read).collect()
}

/// From the leaf up: of several certificates for one issuer, a server can take the one that expires last. An expired
/// certificate is on no path that a server builds; if there is no other path, the server reports that.
fn path(chain: &[CertificateFacts], now: Date) -> Vec<CertificateFacts> {
    let mut path = vec![chain[0].clone()];
    let mut last = &chain[0];
    // Each step goes up by one; two authorities that vouch for each other must not make it endless.
    for _ in 1..chain.len() {
        let vouches =
            |one: &&CertificateFacts| one.subject == last.issuer && one.not_before <= now && now <= one.not_after;
        let issuer = chain[1..].iter().filter(vouches).max_by_key(|one| one.not_after);
        let Some(issuer) = issuer.filter(|issuer| !last.self_signed && !issuer.self_signed) else { break };
        path.push(issuer.clone());
        last = issuer;
    }
    path
}

fn read(path: &Path) -> Result<Content, Error> {
    files::read(path).map_err(|error| Error { file: path.into(), what: Wrong::File(error) })
}
