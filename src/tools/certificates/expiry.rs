//! Everything with an end that a configuration uses, the nearest end first.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::read::{Error, Item, items};
use crate::config::values::{Anchors, Config, ExactCertificate, Name, Trust};
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::identity::Identity;

/// One thing that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// When.
    pub(crate) at: Date,
    /// From when on it ends soon.
    pub(crate) soon_from: Date,
    /// `identity`, `root`, `certificate` or `crl`.
    pub(crate) kind: &'static str,
    /// What the configuration calls it.
    pub(crate) name: String,
    /// Its subject; of a list, its issuer.
    pub(crate) subject: String,
    /// The file that holds it.
    pub(crate) file: String,
}

/// Why it could not be told what ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unknown {
    /// The certificate file of an identity.
    #[error("identity {0}: {1}")]
    Identity(Name, Error),
    /// A file of a trust.
    #[error("trust {0}: {1}")]
    Trust(Name, Error),
    /// A folder of roots.
    #[error("trust {0}: the folder {1} cannot be read: {2}")]
    Folder(Name, String, std::io::Error),
}

impl Unknown {
    /// The fixed word for scripts.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Identity(_, error) | Self::Trust(_, error) => error.reason(),
            Self::Folder(..) => "bundle_unreadable",
        }
    }
}

/// Identities with their chains, roots, exact certificates and lists; the roots of the system are its own affair.
/// An identity that cannot be used (one whose key is missing, say) is read as far as its certificates can be. Blocks on
/// the file system.
///
/// # Errors
/// A file that cannot be read: what is not known is not told to be fine.
pub(crate) fn endings(config: &Config) -> Result<Vec<Ending>, Unknown> {
    let mut endings = Vec::new();
    for (name, spec) in &config.identities {
        let found = items(&spec.certificate, spec.password_file.as_deref());
        let facts: Vec<CertificateFacts> = match (found, Identity::load(spec)) {
            (Ok(items), _) => items.into_iter().filter_map(certificate).collect(),
            (Err(_), Ok(identity)) => vec![identity.leaf().clone()],
            (Err(error), Err(_)) => return Err(Unknown::Identity(name.clone(), error)),
        };
        endings.extend(facts.iter().map(|facts| ending("identity", name, facts, &spec.certificate)));
    }
    for (name, spec) in &config.trusts {
        trust(name, spec, &mut endings)?;
    }
    endings.sort_by(|one, other| (one.at, &one.name).cmp(&(other.at, &other.name)));
    Ok(endings)
}

fn trust(name: &Name, spec: &Trust, endings: &mut Vec<Ending>) -> Result<(), Unknown> {
    let read = |file: &Path| items(file, None).map_err(|error| Unknown::Trust(name.clone(), error));
    let roots = match &spec.anchors {
        Anchors::Roots { paths, .. } => &paths[..],
        Anchors::Certificate(ExactCertificate::File(file)) => {
            let facts = read(file)?.into_iter().filter_map(certificate);
            endings.extend(facts.map(|facts| ending("certificate", name, &facts, file)));
            &[]
        }
        Anchors::Certificate(ExactCertificate::Sha256(_)) | Anchors::PinsOnly => &[],
    };
    for path in roots.iter().chain(&spec.candidate_roots) {
        for file in files_of(name, path)? {
            // Of a folder: it may hold a README.
            let Ok(items) = read(&file) else { continue };
            endings.extend(items.into_iter().filter_map(certificate).map(|facts| ending("root", name, &facts, &file)));
        }
    }
    for file in &spec.crls {
        endings.extend(read(file)?.into_iter().filter_map(|item| list(name, item, file)));
    }
    Ok(())
}

/// A file by itself; of a folder, its files.
fn files_of(name: &Name, path: &Path) -> Result<Vec<std::path::PathBuf>, Unknown> {
    if !path.is_dir() {
        return items(path, None).map(|_| vec![path.to_owned()]).map_err(|error| Unknown::Trust(name.clone(), error));
    }
    let blame = |error| Unknown::Folder(name.clone(), path.display().to_string(), error);
    let entries = std::fs::read_dir(path).map_err(blame)?.collect::<Result<Vec<_>, _>>().map_err(blame)?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

fn certificate(item: Item) -> Option<CertificateFacts> {
    if let Item::Certificate(facts, _) = item { Some(*facts) } else { None }
}

fn ending(kind: &'static str, name: &Name, facts: &CertificateFacts, file: &Path) -> Ending {
    Ending {
        at: facts.not_after,
        soon_from: facts.soon_from(),
        kind,
        name: name.to_string(),
        subject: facts.subject.clone(),
        file: file.display().to_string(),
    }
}

fn list(name: &Name, item: Item, file: &Path) -> Option<Ending> {
    let Item::Crl { issuer, next_update: Some(at), .. } = item else { return None };
    // Lists live for days: `check` warns a day before.
    let soon_from = Date(at.0 - 24 * 60 * 60);
    Some(Ending {
        at,
        soon_from,
        kind: "crl",
        name: name.to_string(),
        subject: issuer,
        file: file.display().to_string(),
    })
}

/// Days left, negative if it has ended.
fn days(ending: &Ending, now: Date) -> i64 {
    (ending.at.0 - now.0).div_euclid(24 * 60 * 60)
}

/// Whether anything ends within so many days; `None`: by the share of its life that is left.
pub(crate) fn any_within(endings: &[Ending], now: Date, within: Option<u32>) -> bool {
    endings.iter().any(|ending| match within {
        Some(within) => days(ending, now) < i64::from(within),
        None => ending.soon_from < now,
    })
}

/// For people: a line each.
pub(crate) fn text(endings: &[Ending], now: Date) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{:>6}  {:<20}  {:<11}  {:<16}  subject (file)", "days", "ends", "kind", "name");
    for ending in endings {
        let Ending { at, kind, name, subject, file, .. } = ending;
        let _ = writeln!(text, "{:>6}  {at}  {kind:<11}  {name:<16}  {subject} ({file})", days(ending, now));
    }
    text
}

/// For scripts: one object each.
pub(crate) fn json(endings: &[Ending], now: Date) -> Value {
    let one = |ending: &Ending| {
        json!({
            "days": days(ending, now),
            "not_after": ending.at.to_string(),
            "kind": ending.kind,
            "name": ending.name,
            "subject": ending.subject,
            "file": ending.file,
        })
    };
    endings.iter().map(one).collect()
}
