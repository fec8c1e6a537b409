//! Reads roots, certificates and revocation lists.

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::{OwnedCertRevocationList, anchor_from_trusted_cert};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Version};

use super::{Anchors, Crl, Error, RootFacts, Wrong};
use crate::config::values::{self, ExactCertificate};
use crate::credentials::certificate::{self, CertificateFacts, Date, clean};
use crate::credentials::contents::{self, Contents, Kind, Part};
use crate::credentials::files;
use crate::credentials::fingerprint::{Sha256, sha256};
use crate::wording;

pub(super) struct Loaded {
    pub(super) anchors: Anchors,
    pub(super) digests: Vec<Sha256>,
    pub(super) roots: Vec<RootFacts>,
    pub(super) exact: Option<(PathBuf, CertificateFacts)>,
    pub(super) remarks: Vec<String>,
}

impl Loaded {
    fn alone(anchors: Anchors, digests: Vec<Sha256>) -> Self {
        Self { anchors, digests, roots: Vec::new(), exact: None, remarks: Vec::new() }
    }
}

/// Debian's folder of roots has some 300 entries, links included.
pub(super) const MAX_FOLDER: usize = 4096;

pub(super) fn anchors(spec: &values::Anchors, pins: &[Sha256]) -> Result<Loaded, Error> {
    match spec {
        values::Anchors::Roots { system, paths } => roots(*system, paths),
        values::Anchors::Certificate(ExactCertificate::Sha256(sha256)) => {
            Ok(Loaded::alone(Anchors::Exactly(*sha256), vec![*sha256]))
        }
        values::Anchors::Certificate(ExactCertificate::File(file)) => {
            let (facts, remarks) = exactly_one(file)?;
            let alone = Loaded::alone(Anchors::Exactly(facts.sha256), vec![facts.sha256]);
            Ok(Loaded { exact: Some((file.clone(), facts)), remarks, ..alone })
        }
        values::Anchors::PinsOnly if pins.is_empty() => Err(Error { file: None, what: Wrong::NoPins }),
        values::Anchors::PinsOnly => Ok(Loaded::alone(Anchors::Pins, Vec::new())),
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
    let Roots { anchors, facts, remarks, .. } = roots;
    Ok(Loaded { anchors: Anchors::Roots(anchors), digests, roots: facts, exact: None, remarks })
}

/// Mozilla's roots, if they are part of this build.
#[cfg(feature = "mozilla-roots")]
const BUILT_IN: &[CertificateDer<'static>] = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
#[cfg(not(feature = "mozilla-roots"))]
const BUILT_IN: &[CertificateDer<'static>] = &[];

/// Whether the environment names the system's roots, as OpenSSL reads it: if they are not there, others are not meant.
fn has_named_roots() -> bool {
    ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Roots while they are gathered; each is kept once.
#[derive(Default)]
struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    facts: Vec<RootFacts>,
    remarks: Vec<String>,
    /// Certificates that were taken, duplicates included.
    usable: usize,
}

impl Roots {
    fn add_system(&mut self) -> Result<(), Error> {
        let found = rustls_native_certs::load_native_certs();
        for der in &found.certs {
            // A bundle of a distribution is not checked here: what cannot be a root is left out.
            let _ = self.add(der, None);
        }
        if self.anchors.is_empty() && !has_named_roots() {
            self.add_built_in();
        }
        if self.anchors.is_empty() {
            // No certificates is no error to the library if the folder exists and is empty.
            let why = found.errors.first().map(ToString::to_string);
            return Err(Error { file: None, what: Wrong::NoSystemRoots(why) });
        }
        Ok(())
    }

    fn add_built_in(&mut self) {
        for der in BUILT_IN {
            let _ = self.add(der, None);
        }
        if !self.facts.is_empty() {
            tracing::info!(
                roots = self.facts.len(),
                "the system has no root certificates: Mozilla's, built in, are used"
            );
        }
    }

    fn add_file(&mut self, file: &Path) -> Result<(), Error> {
        let parts = parts(file)?;
        if !parts.iter().any(|part| part.certificate().is_some()) {
            return Err(Error { file: Some(file.into()), what: Wrong::NoCertificate });
        }
        self.add_all(file, &parts)
    }

    /// Every file of a folder that holds certificates; a file without any part (a README) is skipped, and so are hidden
    /// entries (Kubernetes keeps the same files once more under `..data`).
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
                match parts(&path) {
                    Err(Error { what: Wrong::File(files::Error::Empty), .. }) => {}
                    parts => self.add_parts(&path, &parts?),
                }
            }
        }
        if self.facts.len() == before {
            return Err(Error { file: Some(folder.into()), what: Wrong::NoCertificate });
        }
        Ok(())
    }

    /// A root that cannot be used is skipped and named in the remarks; a file without a usable root is refused.
    fn add_all(&mut self, file: &Path, parts: &[Part]) -> Result<(), Error> {
        let usable = self.usable;
        let remarks = self.remarks.len();
        self.add_parts(file, parts);
        if self.usable == usable {
            let why = self.remarks.split_off(remarks).join("; ");
            return Err(Error { file: Some(file.into()), what: Wrong::NoUsableRoot(why) });
        }
        Ok(())
    }

    fn add_parts(&mut self, file: &Path, parts: &[Part]) {
        for part in parts {
            let remark = match part.certificate() {
                Some(der) => match self.add(der, Some(file)) {
                    Ok(()) => part.cut(),
                    Err(why) => Some(format!("line {}: the root is left out: {why}", part.line)),
                },
                None => part.unused(),
            };
            self.remarks.extend(remark.map(|remark| format!("{}: {remark}", file.display())));
        }
    }

    /// `file` is `None` for a root of the system.
    fn add(&mut self, der: &CertificateDer<'_>, file: Option<&Path>) -> Result<(), String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| "it cannot be read".to_owned())?;
        let anchor = anchor_from_trusted_cert(der).map_err(|error| wording::variant(&error))?.to_owned();
        if let Some(oid) = certificate::unknown_critical_extension(&parsed) {
            let subject = clean(&parsed.subject().to_string());
            return Err(format!(
                "`{subject}` has a critical extension that is not known ({oid}; RFC 5280 section 4.2)"
            ));
        }
        self.usable += 1;
        let facts = RootFacts {
            subject: clean(&parsed.subject().to_string()),
            issuer: clean(&parsed.issuer().to_string()),
            not_before: Date(parsed.validity().not_before.timestamp()),
            not_after: Date(parsed.validity().not_after.timestamp()),
            sha256: sha256(der),
            system: file.is_none(),
            file: file.map(Path::to_owned),
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

fn exactly_one(file: &Path) -> Result<(CertificateFacts, Vec<String>), Error> {
    let blame = |what| Error { file: Some(file.into()), what };
    let parts = parts(file)?;
    let certificates: Vec<_> = parts.iter().filter_map(Part::certificate).collect();
    let [der] = &certificates[..] else {
        let number = certificates.len();
        return Err(blame(if number == 0 { Wrong::NoCertificate } else { Wrong::NotOneCertificate(number) }));
    };
    let facts = CertificateFacts::read(der).ok_or_else(|| blame(Wrong::BadCertificate))?;
    let remark = |part: &Part| if part.certificate().is_some() { part.cut() } else { part.unused() };
    let remarks = parts.iter().filter_map(remark).map(|remark| format!("{}: {remark}", file.display()));
    Ok((facts, remarks.collect()))
}

#[derive(Default)]
pub(super) struct Lists {
    pub(super) crls: Vec<Crl>,
    pub(super) digests: Vec<Sha256>,
    pub(super) remarks: Vec<String>,
}

pub(super) fn crls(files: &[PathBuf]) -> Result<Lists, Error> {
    let Lists { mut crls, mut digests, mut remarks } = Lists::default();
    for file in files {
        let before = crls.len();
        for part in parts(file)? {
            let Kind::Crl(der) = &part.kind else {
                remarks.extend(part.unused().map(|remark| format!("{}: {remark}", file.display())));
                continue;
            };
            let blame = |why| Error { file: Some(file.clone()), what: Wrong::BadCrl { line: part.line, why } };
            crls.push(crl(der, file).map_err(blame)?);
            digests.push(sha256(der));
        }
        if crls.len() == before {
            return Err(Error { file: Some(file.clone()), what: Wrong::NoCrl });
        }
    }
    Ok(Lists { crls, digests, remarks })
}

fn crl(der: &[u8], file: &Path) -> Result<Crl, String> {
    let list = OwnedCertRevocationList::from_der(der).map_err(|error| wording::variant(&error))?.into();
    let (_, parsed) = CertificateRevocationList::from_der(der).map_err(|_| "it cannot be read".to_owned())?;
    Ok(Crl {
        list,
        file: file.to_owned(),
        issuer: clean(&parsed.issuer().to_string()),
        this_update: Date(parsed.last_update().timestamp()),
        next_update: parsed.next_update().map(|time| Date(time.timestamp())),
    })
}

/// The parts of a file; none if it is in no known format.
fn parts(file: &Path) -> Result<Vec<Part>, Error> {
    let blame = |what| Error { file: Some(file.into()), what };
    let content = files::read(file).map_err(|error| blame(Wrong::File(error)))?;
    match contents::read(content.bytes.expose()).map_err(|error| blame(Wrong::Damaged(error)))? {
        Contents::Parts(parts) => Ok(parts),
        Contents::Unknown(_) => Ok(Vec::new()),
    }
}

#[cfg(all(test, feature = "mozilla-roots"))]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::{ServerName, UnixTime};
    use webpki::{EndEntityCert, KeyUsage};

    use super::*;

    /// A chain as a public server sent it in the spring of 2026: no private key of a public authority is at hand, so there
    /// is no such server to connect to.
    const LEAF: &[u8] = include_bytes!("../../../tests/public/leaf.der");
    const ISSUER: &[u8] = include_bytes!("../../../tests/public/issuer.der");
    /// 2026-04-01, in seconds.
    const THEN: u64 = 1_775_001_600;
    const YEAR: u64 = 365 * 86_400;

    fn verify(leaf: &[u8], intermediates: &[CertificateDer<'_>], second: u64) -> Result<(), webpki::Error> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(second));
        let mut roots = Roots::default();
        roots.add_built_in();
        assert!(roots.anchors.len() > 100, "{} roots", roots.anchors.len());
        let leaf = CertificateDer::from(leaf);
        let certificate = EndEntityCert::try_from(&leaf)?;
        let usage = KeyUsage::server_auth();
        certificate.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &roots.anchors,
            intermediates,
            now,
            usage,
            None,
            None,
        )?;
        certificate.verify_is_valid_for_subject_name(&ServerName::try_from("letsencrypt.org").expect("a host name"))
    }

    #[test]
    fn built_in_roots_vouch_for_a_public_server_in_its_time_and_for_no_altered_one() {
        let issuer = [CertificateDer::from(ISSUER)];
        assert_eq!(verify(LEAF, &issuer, THEN), Ok(()));
        assert_eq!(verify(LEAF, &[], THEN), Err(webpki::Error::UnknownIssuer));
        assert!(matches!(verify(LEAF, &issuer, THEN + YEAR), Err(webpki::Error::CertExpired { .. })));
        let mut altered = LEAF.to_vec();
        *altered.last_mut().expect("a signature") ^= 1;
        assert!(verify(&altered, &issuer, THEN).is_err());
    }
}
