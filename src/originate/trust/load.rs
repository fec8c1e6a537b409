//! Reads roots, certificates and revocation lists.

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::{OwnedCertRevocationList, anchor_from_trusted_cert};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Version};

use super::{Anchors, Crl, Error, RootFacts, Wrong};
use crate::config::values::{self, ExactCertificate};
use crate::originate::certificate::{self, CertificateFacts, Date, clean};
use crate::originate::files;
use crate::originate::fingerprint::{Sha256, sha256};
use crate::originate::pem;

/// What anchors were made of.
pub(super) struct Loaded {
    pub(super) anchors: Anchors,
    pub(super) digests: Vec<Sha256>,
    pub(super) roots: Vec<RootFacts>,
}

/// Debian's folder of roots has some 300 entries, links included.
pub(super) const MAX_FOLDER: usize = 4096;

pub(super) fn anchors(spec: &values::Anchors, pins: &[Sha256]) -> Result<Loaded, Error> {
    match spec {
        values::Anchors::Roots { system, paths } => roots(*system, paths),
        values::Anchors::Certificate(which) => {
            let sha256 = match which {
                ExactCertificate::Sha256(sha256) => *sha256,
                ExactCertificate::File(file) => exactly_one(file)?,
            };
            Ok(Loaded { anchors: Anchors::Exactly(sha256), digests: vec![sha256], roots: Vec::new() })
        }
        values::Anchors::PinsOnly if pins.is_empty() => Err(Error { file: None, what: Wrong::NoPins }),
        values::Anchors::PinsOnly => Ok(Loaded { anchors: Anchors::Pins, digests: Vec::new(), roots: Vec::new() }),
    }
}

pub(super) fn roots(system: bool, paths: &[PathBuf]) -> Result<Loaded, Error> {
    let mut roots = Roots::default();
    if system {
        roots.add_system()?;
    }
    for path in paths {
        if path.is_dir() { roots.add_folder(path)? } else { roots.add_file(path)? }
    }
    if roots.anchors.is_empty() {
        return Err(Error { file: None, what: Wrong::NoRoots });
    }
    let digests = roots.facts.iter().map(|facts| facts.sha256).collect();
    Ok(Loaded { anchors: Anchors::Roots(roots.anchors), digests, roots: roots.facts })
}

/// Roots while they are gathered; each is kept once.
#[derive(Default)]
struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    facts: Vec<RootFacts>,
}

impl Roots {
    fn add_system(&mut self) -> Result<(), Error> {
        let found = rustls_native_certs::load_native_certs();
        for der in &found.certs {
            // A bundle of a distribution is not ours to judge: what cannot be a root is left out.
            let _ = self.add(der, true);
        }
        if self.anchors.is_empty() {
            // No certificates is no error to the library if the folder exists and is empty.
            let why = found.errors.first().map(ToString::to_string);
            return Err(Error { file: None, what: Wrong::NoSystemRoots(why) });
        }
        Ok(())
    }

    fn add_file(&mut self, file: &Path) -> Result<(), Error> {
        let ders = certificates(file)?;
        if ders.is_empty() {
            return Err(Error { file: Some(file.into()), what: Wrong::NoCertificate });
        }
        self.add_all(file, &ders)
    }

    /// Every file of a folder that holds certificates; what holds none (a README, a key) is skipped, and
    /// so are hidden entries (Kubernetes keeps the same files once more under `..data`).
    fn add_folder(&mut self, folder: &Path) -> Result<(), Error> {
        let blame = |error| Error { file: Some(folder.into()), what: Wrong::Folder(error) };
        let before = self.facts.len();
        for (index, entry) in std::fs::read_dir(folder).map_err(blame)?.enumerate() {
            if index >= MAX_FOLDER {
                return Err(Error { file: Some(folder.into()), what: Wrong::FolderTooLarge });
            }
            let path = entry.map_err(blame)?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.is_file() {
                let ders = match certificates(&path) {
                    Err(Error { what: Wrong::File(files::Error::Empty), .. }) => continue,
                    ders => ders?,
                };
                self.add_all(&path, &ders)?;
            }
        }
        if self.facts.len() == before {
            return Err(Error { file: Some(folder.into()), what: Wrong::NoCertificate });
        }
        Ok(())
    }

    fn add_all(&mut self, file: &Path, ders: &[CertificateDer<'_>]) -> Result<(), Error> {
        for (index, der) in ders.iter().enumerate() {
            let blame = |why| Error { file: Some(file.into()), what: Wrong::BadRoot { number: index + 1, why } };
            self.add(der, false).map_err(blame)?;
        }
        Ok(())
    }

    fn add(&mut self, der: &CertificateDer<'_>, system: bool) -> Result<(), String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let anchor = anchor_from_trusted_cert(der).map_err(|error| error.to_string())?.to_owned();
        let facts = RootFacts {
            subject: clean(&parsed.subject().to_string()),
            issuer: clean(&parsed.issuer().to_string()),
            not_after: Date(parsed.validity().not_after.timestamp()),
            sha256: sha256(der),
            system,
            authority: parsed.is_ca() || parsed.version() == X509Version::V1,
            self_signed: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            weak_key: certificate::has_weak_key(&parsed),
        };
        if self.facts.iter().all(|known| known.sha256 != facts.sha256) {
            self.anchors.push(anchor);
            self.facts.push(facts);
        }
        Ok(())
    }
}

fn exactly_one(file: &Path) -> Result<Sha256, Error> {
    let blame = |what| Error { file: Some(file.into()), what };
    let ders = certificates(file)?;
    let [der] = &ders[..] else {
        return Err(blame(if ders.is_empty() { Wrong::NoCertificate } else { Wrong::NotOneCertificate(ders.len()) }));
    };
    X509Certificate::from_der(der).map_err(|_| blame(Wrong::BadCertificate))?;
    Ok(sha256(der))
}

/// What the file of a single certificate holds, for advice on it; `None` if that cannot be told.
pub fn facts_of(file: &Path) -> Option<CertificateFacts> {
    CertificateFacts::read(certificates(file).ok()?.first()?)
}

/// The certificates of a PEM file, or the one of a DER file.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let labels = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];
    let ders = bodies(file, &labels, |der| X509Certificate::from_der(der).is_ok())?;
    Ok(ders.into_iter().map(CertificateDer::from).collect())
}

/// The lists of PEM and DER files, and the digest of each.
pub(super) fn crls(files: &[PathBuf]) -> Result<(Vec<Crl>, Vec<Sha256>), Error> {
    let (mut crls, mut digests) = (Vec::new(), Vec::new());
    for file in files {
        let ders = bodies(file, &["X509 CRL"], |der| CertificateRevocationList::from_der(der).is_ok())?;
        if ders.is_empty() {
            return Err(Error { file: Some(file.clone()), what: Wrong::NoCrl });
        }
        for (index, der) in ders.iter().enumerate() {
            let number = index + 1;
            crls.push(crl(der).map_err(|why| Error { file: Some(file.clone()), what: Wrong::BadCrl { number, why } })?);
            digests.push(sha256(der));
        }
    }
    Ok((crls, digests))
}

fn crl(der: &[u8]) -> Result<Crl, String> {
    let list = OwnedCertRevocationList::from_der(der).map_err(|error| error.to_string())?.into();
    let (_, parsed) = CertificateRevocationList::from_der(der).map_err(|error| error.to_string())?;
    Ok(Crl { list, next_update: parsed.next_update().map(|time| Date(time.timestamp())) })
}

fn bodies(file: &Path, labels: &[&str], is_der: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>, Error> {
    let blame = |what| Error { file: Some(file.into()), what };
    let content = files::read(file).map_err(|error| blame(Wrong::File(error)))?;
    let bytes = content.bytes.expose();
    if !pem::is_pem(bytes) {
        return Ok(if is_der(bytes) { vec![bytes.to_vec()] } else { Vec::new() });
    }
    let sections = pem::sections(bytes).map_err(|error| blame(Wrong::Damaged(error)))?;
    let wanted = sections.into_iter().filter(|section| labels.contains(&section.label.as_str()));
    Ok(wanted.map(|section| section.body.expose().to_vec()).collect())
}
