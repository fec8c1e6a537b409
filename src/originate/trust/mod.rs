//! Whom egret believes: roots, one certificate or pins; names; revocation lists.

mod chain;
mod error;
mod exact;
mod load;
pub mod names;
mod verified;
mod verifier;

use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::CertRevocationList;

pub use self::error::{Error, Wrong};
pub use self::load::facts_of;
pub use self::verifier::{Mode, Verifier};
use crate::config::values::{self, ExpectedName, Name};
use crate::originate::certificate::Date;
use crate::originate::fingerprint::{Fields, Sha256};
use crate::originate::refusal::Refusal;

/// Whom egret believes, loaded and never changed: a new root is a new trust.
pub struct Trust {
    name: Name,
    anchors: Anchors,
    pins: Vec<Sha256>,
    names: Vec<ExpectedName>,
    crls: Vec<Crl>,
    roots: Vec<RootFacts>,
    candidates: Option<Candidates>,
    digest: Sha256,
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
    pub until: Date,
    /// Which of [`Trust::roots`] vouches for it; `None` where no chain is built.
    pub root: Option<usize>,
    /// What the candidate roots alone say; `None`: there are none.
    pub candidate: Option<Result<(), &'static str>>,
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
struct Crl {
    list: CertRevocationList<'static>,
    next_update: Option<Date>,
}

/// A root, for metrics and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFacts {
    /// Its distinguished name.
    pub subject: String,
    /// That of who signed it.
    pub issuer: String,
    /// Roots are believed beyond this date by most programs, and by this one; it is shown so that nobody
    /// is surprised by those that do not.
    pub not_after: Date,
    /// Of its DER encoding.
    pub sha256: Sha256,
    /// It came with the system, and not from a file of the configuration.
    pub system: bool,
    /// It may sign other certificates: basic constraints say so, or it is of version 1 and cannot say.
    pub authority: bool,
    /// Subject and issuer are the same.
    pub self_signed: bool,
    /// An RSA key that is too short for chains to it to be believed.
    pub weak_key: bool,
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
        let (crls, crl_digests) = load::crls(&spec.crls)?;
        let mut fields = Fields::new();
        fields.add("anchors", loaded.anchors.kind().as_bytes());
        fields.add_set("certificates", loaded.digests);
        fields.add_set("pins", spec.pins.iter().copied());
        fields.add_set("names", spec.names.iter().map(names::digest));
        fields.add_set("crls", crl_digests);
        let candidates =
            (!spec.candidate_roots.is_empty()).then(|| load::roots(false, &spec.candidate_roots)).transpose()?;
        // They decide about nobody; but an origin that is carried over would not ask new ones.
        fields.add_set("candidates", candidates.iter().flat_map(|loaded| loaded.digests.iter().copied()));
        let candidates = candidates.and_then(|loaded| match loaded.anchors {
            Anchors::Roots(anchors) => Some(Candidates { anchors, roots: loaded.roots }),
            Anchors::Exactly(_) | Anchors::Pins => None,
        });
        Ok(Self {
            name: name.clone(),
            anchors: loaded.anchors,
            pins: spec.pins.clone(),
            names: spec.names.clone(),
            crls,
            roots: loaded.roots,
            candidates,
            digest: fields.finish(),
        })
    }

    /// What the configuration calls it.
    pub fn name(&self) -> &Name {
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
    pub fn candidate_roots(&self) -> &[RootFacts] {
        self.candidates.as_ref().map(|candidates| &candidates.roots[..]).unwrap_or_default()
    }

    /// When the revocation lists end, of those that say so.
    pub fn crl_next_updates(&self) -> impl Iterator<Item = Date> {
        self.crls.iter().filter_map(|crl| crl.next_update)
    }

    /// The names that a certificate must carry one of; empty: the server name.
    pub fn names(&self) -> &[ExpectedName] {
        &self.names
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
        let own;
        let expected = match &self.names[..] {
            [] => {
                own = names::expected(server_name);
                std::slice::from_ref(own.as_ref().ok_or_else(|| Refusal::Invalid("no name to expect".into()))?)
            }
            names => names,
        };
        match &self.anchors {
            Anchors::Roots(anchors) => {
                let (until, root) = chain::check(self, anchors, leaf, intermediates, expected, now)?;
                let candidate = self.candidates.as_ref().map(|candidates| {
                    let verdict = chain::check(self, &candidates.anchors, leaf, intermediates, expected, now);
                    verdict.map(drop).map_err(|refusal| refusal.reason())
                });
                Ok(Believed { until: self.end_of_root(root, now).min(until), root: Some(root), candidate })
            }
            Anchors::Exactly(sha256) => exact::check(Some(sha256), &self.pins, leaf, expected, now).map(alone),
            Anchors::Pins => exact::check(None, &self.pins, leaf, expected, now).map(alone),
        }
    }

    /// A verdict does not outlive the root that it rests on: what a root means that has expired is for the next one.
    fn end_of_root(&self, index: usize, now: UnixTime) -> Date {
        let end = self.roots.get(index).map_or(Date(i64::MAX), |root| root.not_after);
        if Date::from(now) < end { end } else { Date(i64::MAX) }
    }
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
