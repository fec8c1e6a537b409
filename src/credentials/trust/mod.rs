//! Whom egret believes: roots, one certificate or pins; names; revocation lists.

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

/// The name of the trust of upstreams that name none. No configured trust can have it: of the letters of names,
/// these are none.
pub(crate) const DEFAULT_NAME: &str = "(system roots)";

/// Whom egret believes, loaded and never changed: a new root is a new trust.
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

/// Roots that are to replace the others, and are only asked in shadow.
struct Candidates {
    anchors: Vec<TrustAnchor<'static>>,
    roots: Vec<RootFacts>,
}

/// A server that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Believed {
    /// Until then: the earliest end of a certificate of its chain, or of a list that was asked.
    pub(crate) until: Date,
    /// Which of [`Trust::roots`] vouches for it; `None` where no chain is built.
    pub(crate) root: Option<usize>,
    /// What the candidate roots alone say; `None`: there are none.
    pub(crate) candidate: Option<Result<(), &'static str>>,
}

/// What a certificate is checked against.
enum Anchors {
    /// It has to chain to one of these.
    Roots(Vec<TrustAnchor<'static>>),
    /// It has to be the one with this SHA-256.
    Exactly(Sha256),
    /// Its key has to be pinned.
    Pins,
}

/// A revocation list.
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
    /// Its distinguished name.
    pub(crate) subject: String,
    /// That of who signed it.
    pub(crate) issuer: String,
    /// It vouches for nobody before this date.
    pub(crate) not_before: Date,
    /// It vouches for nobody after this date.
    pub(crate) not_after: Date,
    /// Of its DER encoding.
    pub(crate) sha256: Sha256,
    /// It came with the system, and not from a file of the configuration.
    pub(crate) system: bool,
    /// The file of the configuration that holds it.
    pub(crate) file: Option<PathBuf>,
    /// It may sign other certificates: basic constraints say so, or it is of version 1 and cannot say.
    pub(crate) authority: bool,
    /// Subject and issuer are the same.
    pub(crate) self_signed: bool,
    /// An RSA key that is too short for chains to it to be believed.
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
        // They decide about nobody; but an origin that is carried over would not ask new ones.
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

    /// What the configuration calls it.
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Over everything that decides whom it believes. Two with the same believe the same servers.
    pub fn digest(&self) -> &Sha256 {
        &self.digest
    }

    /// The roots; none if one certificate or pins decide.
    pub fn roots(&self) -> &[RootFacts] {
        &self.roots
    }

    /// The roots that are to replace those.
    pub(crate) fn candidate_roots(&self) -> &[RootFacts] {
        self.candidates.as_ref().map(|candidates| &candidates.roots[..]).unwrap_or_default()
    }

    /// The one certificate that is believed, with its file, if it came from one.
    pub(crate) fn exact(&self) -> Option<(&Path, &CertificateFacts)> {
        self.exact.as_ref().map(|(file, facts)| (file.as_path(), facts))
    }

    /// The revocation lists.
    pub(crate) fn crls(&self) -> impl Iterator<Item = &Crl> {
        self.crls.iter()
    }

    /// What its files hold that is not used, each with its file and line.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// The names of the configuration ([`Trust::expected`]).
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

    /// Whether a server with these certificates is believed, and until when. The signature of the
    /// handshake, which proves that the server has the key, is checked elsewhere ([`Verifier`]).
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

    /// The same in this mode: with [`Mode::Chain`] only names of the trust are expected.
    ///
    /// # Errors
    /// Why it is not believed.
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

/// Roots in the form that chains are built to, and beside each what it says of itself.
#[derive(Clone, Copy)]
struct Authorities<'a> {
    anchors: &'a [TrustAnchor<'static>],
    roots: &'a [RootFacts],
}

/// Believed without a chain.
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
