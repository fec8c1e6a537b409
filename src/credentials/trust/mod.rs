//! What makes a server trusted: roots, one certificate or pins; names; revocation lists.

mod chain;
mod error;
mod exact;
mod load;
pub(crate) mod names;
mod verified;
mod verifier;

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::CertRevocationList;

pub(crate) use self::error::{Error, Wrong};
pub use self::verifier::{Mode, Verifier};
use crate::config::values::{self, ExpectedName, Name};
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::fingerprint::{Fields, Sha256};
use crate::credentials::refusal::Refusal;

/// The name of the trust of upstreams that name none. No configured trust can have it: names may not contain
/// parentheses or spaces.
pub(crate) const DEFAULT_NAME: &str = "(system roots)";

/// What makes a server trusted, loaded and never changed: a new root makes a new trust.
pub struct Trust {
    name: Name,
    anchors: Anchors,
    pins: Vec<Sha256>,
    names: Vec<ExpectedName>,
    crls: Vec<Crl>,
    roots: Vec<RootFacts>,
    exact: Option<(PathBuf, CertificateFacts)>,
    candidates: Option<Candidates>,
    digest: Sha256,
    remarks: Vec<String>,
}

/// Roots that are to replace the others; checked in shadow only.
struct Candidates {
    anchors: Vec<TrustAnchor<'static>>,
    roots: Vec<RootFacts>,
}

/// The result of a successful check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Believed {
    /// The earliest expiry of a certificate of its chain, or of a list that was checked.
    pub(crate) until: Date,
    /// Index in [`Trust::roots`] of the root at the end of the chain; `None` where no chain is built.
    pub(crate) root: Option<usize>,
    /// The result with the candidate roots alone; `None`: there are none.
    pub(crate) candidate: Option<Result<(), &'static str>>,
}

enum Anchors {
    Roots(Vec<TrustAnchor<'static>>),
    /// It has to be the one with this SHA-256.
    Exactly(Sha256),
    Pins,
}

pub(crate) struct Crl {
    list: CertRevocationList<'static>,
    pub(crate) file: PathBuf,
    pub(crate) issuer: String,
    pub(crate) this_update: Date,
    pub(crate) next_update: Option<Date>,
}

/// A root, for metrics and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFacts {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) not_before: Date,
    pub(crate) not_after: Date,
    /// Of its DER encoding.
    pub(crate) sha256: Sha256,
    pub(crate) system: bool,
    pub(crate) file: Option<PathBuf>,
    /// It may sign other certificates: by its basic constraints, or because it is of version 1, which has none.
    pub(crate) authority: bool,
    pub(crate) self_signed: bool,
    /// An RSA key that is too short: chains to it are rejected.
    pub(crate) weak_key: bool,
}

impl Trust {
    /// Reads every file and folder. Blocks on the file system.
    ///
    /// # Errors
    /// [`Error`] names the file and what is wrong with it. No certificate at all is an error: it would
    /// refuse every server.
    pub fn load(name: &Name, spec: &values::Trust) -> Result<Self, Error> {
        let loaded = load::anchors(&spec.anchors, &spec.pins)?;
        if !spec.crls.is_empty() && !matches!(loaded.anchors, Anchors::Roots(_)) {
            return Err(Error { file: None, what: Wrong::CrlsWithoutChain });
        }
        let lists = load::crls(&spec.crls)?;
        let mut remarks = loaded.remarks;
        remarks.extend(lists.remarks);
        let mut fields = Fields::new();
        fields.add("anchors", loaded.anchors.kind().as_bytes());
        fields.add_set("certificates", loaded.digests);
        fields.add_set("pins", spec.pins.iter().copied());
        fields.add_set("names", spec.names.iter().map(names::digest));
        fields.add_set("crls", lists.digests);
        let candidates =
            (!spec.candidate_roots.is_empty()).then(|| load::roots(false, &spec.candidate_roots)).transpose()?;
        // They decide nothing; but an origin that is carried over would not check new ones.
        fields.add_set("candidates", candidates.iter().flat_map(|loaded| loaded.digests.iter().copied()));
        remarks.extend(candidates.iter().flat_map(|loaded| loaded.remarks.iter().cloned()));
        let candidates = candidates.and_then(|loaded| match loaded.anchors {
            Anchors::Roots(anchors) => Some(Candidates { anchors, roots: loaded.roots }),
            Anchors::Exactly(_) | Anchors::Pins => None,
        });
        Ok(Self {
            name: name.clone(),
            anchors: loaded.anchors,
            pins: spec.pins.clone(),
            names: spec.names.clone(),
            crls: lists.crls,
            roots: loaded.roots,
            exact: loaded.exact,
            candidates,
            digest: fields.finish(),
            remarks,
        })
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Over everything that decides verification. Two trusts with the same digest accept the same servers.
    pub fn digest(&self) -> &Sha256 {
        &self.digest
    }

    /// The roots; none where one certificate or pins decide.
    pub fn roots(&self) -> &[RootFacts] {
        &self.roots
    }

    pub(crate) fn candidate_roots(&self) -> &[RootFacts] {
        self.candidates.as_ref().map(|candidates| &candidates.roots[..]).unwrap_or_default()
    }

    /// The one certificate that is trusted, with its file, if it came from one.
    pub(crate) fn exact(&self) -> Option<(&Path, &CertificateFacts)> {
        self.exact.as_ref().map(|(file, facts)| (file.as_path(), facts))
    }

    pub(crate) fn crls(&self) -> impl Iterator<Item = &Crl> {
        self.crls.iter()
    }

    /// The unused parts of its files, each with its file and line.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    pub(crate) fn names(&self) -> &[ExpectedName] {
        &self.names
    }

    /// The names of which a server's certificate must carry one: those of the configuration, else the server name. None
    /// where the certificate itself, or its key, was chosen.
    pub(crate) fn expected(&self, server_name: &ServerName<'_>) -> Vec<ExpectedName> {
        match (&self.names[..], &self.anchors) {
            ([], Anchors::Roots(_)) => names::expected(server_name).into_iter().collect(),
            (names, _) => names.to_vec(),
        }
    }

    /// Whether a server with these certificates is trusted, and until when. The signature of the handshake, which
    /// proves that the server has the key, is checked elsewhere ([`Verifier`]).
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Believed, Refusal> {
        let expected = self.expected(server_name);
        if expected.is_empty() && matches!(self.anchors, Anchors::Roots(_)) {
            return Err(Refusal::Invalid("no name to expect".into()));
        }
        self.check_named(leaf, intermediates, &expected, now)
    }

    pub(crate) fn check_in(
        &self,
        mode: Mode,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Believed, Refusal> {
        match mode {
            Mode::Chain => self.check_named(leaf, intermediates, &self.names, now),
            Mode::Full | Mode::Report | Mode::None => self.check(leaf, intermediates, server_name, now),
        }
    }

    /// Without `expected` names, those of the certificate do not matter.
    fn check_named(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        expected: &[ExpectedName],
        now: UnixTime,
    ) -> Result<Believed, Refusal> {
        let anchors = match &self.anchors {
            Anchors::Roots(anchors) => Authorities { anchors, roots: &self.roots },
            Anchors::Exactly(sha256) => {
                return exact::check(Some(sha256), &self.pins, leaf, &self.names, now).map(alone);
            }
            Anchors::Pins => return exact::check(None, &self.pins, leaf, &self.names, now).map(alone),
        };
        let (until, root) = chain::check(self, anchors, leaf, intermediates, expected, now)?;
        let candidate = self.candidates.as_ref().map(|Candidates { anchors, roots }| {
            let verdict = chain::check(self, Authorities { anchors, roots }, leaf, intermediates, expected, now);
            verdict.map(drop).map_err(|refusal| refusal.reason())
        });
        Ok(Believed { until, root: Some(root), candidate })
    }
}

/// Roots as trust anchors, and the facts of each.
#[derive(Clone, Copy)]
struct Authorities<'a> {
    anchors: &'a [TrustAnchor<'static>],
    roots: &'a [RootFacts],
}

fn alone(until: Date) -> Believed {
    Believed { until, root: None, candidate: None }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Anchors {
    fn kind(&self) -> &'static str {
        match self {
            Self::Roots(_) => "roots",
            Self::Exactly(_) => "certificate",
            Self::Pins => "pins",
        }
    }
}
