//! Everything with an end that a configuration uses: certificates of identities, roots, exact certificates, revocation
//! lists.
//!
//! The only place that knows from when to when each is valid and when its end begins to matter. Metrics, `check`,
//! `trust expiry`, the log of a load and the status render it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::certificate::{CertificateFacts, Date, soon_from};
use super::identity::Identity;
use super::trust::Trust;
use crate::config::values::Name;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) kind: LifetimeKind,
    pub(crate) name: Name,
    /// `None` for a root of the system.
    pub(crate) file: Option<PathBuf>,
    /// Its subject; of a list, its issuer.
    pub(crate) subject: String,
    /// Of a list, its `thisUpdate`.
    pub(crate) not_before: Date,
    /// Inclusive; of a list, its optional `nextUpdate`.
    pub(crate) not_after: Option<Date>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum LifetimeKind {
    /// The leaf of an identity, or a certificate that leads from it to a root.
    Identity,
    /// A root of a trust, in force or a candidate.
    Root,
    Certificate,
    Crl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Validity {
    NotYetValid,
    /// More than a third of it is left ([`soon_from`]).
    Valid,
    EndsSoon,
    Ended,
}

impl LifetimeKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Root => "root",
            Self::Certificate => "certificate",
            Self::Crl => "crl",
        }
    }
}

impl Validity {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotYetValid => "not_yet_valid",
            Self::Valid => "valid",
            Self::EndsSoon => "ends_soon",
            Self::Ended => "ended",
        }
    }
}

impl Lifetime {
    fn of_certificate(kind: LifetimeKind, name: &Name, file: &Path, facts: &CertificateFacts) -> Self {
        Self {
            kind,
            name: name.clone(),
            file: Some(file.to_owned()),
            subject: facts.subject.clone(),
            not_before: facts.not_before,
            not_after: Some(facts.not_after),
        }
    }

    /// When warnings about expiry start; `None` if it never expires.
    pub(crate) fn soon_from(&self) -> Option<Date> {
        self.not_after.map(|not_after| soon_from(self.not_before, not_after))
    }

    pub(crate) fn validity(&self, now: Date) -> Validity {
        match self.not_after {
            _ if now < self.not_before => Validity::NotYetValid,
            Some(end) if end < now => Validity::Ended,
            Some(end) if soon_from(self.not_before, end) < now => Validity::EndsSoon,
            _ => Validity::Valid,
        }
    }

    pub(crate) fn document(&self, now: Date) -> Value {
        json!({
            "kind": self.kind.as_str(),
            "name": self.name.as_str(),
            "state": self.validity(now).as_str(),
            "subject": self.subject,
            "file": self.file,
            "not_before": self.not_before.to_string(),
            "not_after": self.not_after.map(|date| date.to_string()),
        })
    }
}

/// The leaf of an identity and the certificates that lead from it to a root. Other certificates of its file are not
/// used, and their expiry has no effect.
pub(crate) fn of_identity(name: &Name, identity: &Identity) -> Vec<Lifetime> {
    of_chain(name, identity.file(), identity.path())
}

pub(crate) fn of_chain(name: &Name, file: &Path, chain: &[CertificateFacts]) -> Vec<Lifetime> {
    chain.iter().map(|facts| Lifetime::of_certificate(LifetimeKind::Identity, name, file, facts)).collect()
}

/// Roots, candidates, the exact certificate and the lists of a trust. Roots of the system are left to its updates.
pub(crate) fn of_trust(trust: &Trust) -> Vec<Lifetime> {
    let roots = trust.roots().iter().chain(trust.candidate_roots()).filter(|root| !root.system);
    let roots = roots.map(|root| Lifetime {
        kind: LifetimeKind::Root,
        name: trust.name().clone(),
        file: root.file.clone(),
        subject: root.subject.clone(),
        not_before: root.not_before,
        not_after: Some(root.not_after),
    });
    let exact = trust.exact().into_iter();
    let exact =
        exact.map(|(file, facts)| Lifetime::of_certificate(LifetimeKind::Certificate, trust.name(), file, facts));
    let lists = trust.crls().map(|list| Lifetime {
        kind: LifetimeKind::Crl,
        name: trust.name().clone(),
        file: Some(list.file.clone()),
        subject: list.issuer.clone(),
        not_before: list.this_update,
        not_after: list.next_update,
    });
    roots.chain(exact).chain(lists).collect()
}

/// The one of each kind and name that expires first. Both dates are of the same certificate, so that the remaining part
/// of its lifetime can be computed from them.
pub(crate) fn first_to_end(lifetimes: &[Lifetime]) -> Vec<&Lifetime> {
    let mut first: BTreeMap<(LifetimeKind, &Name), &Lifetime> = BTreeMap::new();
    for lifetime in lifetimes.iter().filter(|lifetime| lifetime.not_after.is_some()) {
        let known = first.entry((lifetime.kind, &lifetime.name)).or_insert(lifetime);
        if lifetime.not_after < known.not_after {
            *known = lifetime;
        }
    }
    first.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetime(name: &str, not_before: i64, not_after: Option<i64>) -> Lifetime {
        Lifetime {
            kind: LifetimeKind::Crl,
            name: Name::new(name),
            file: None,
            subject: "CN=a".into(),
            not_before: Date(not_before),
            not_after: not_after.map(Date),
        }
    }

    #[test]
    fn a_lifetime_is_told_by_its_thirds() {
        let hour = lifetime("a", 0, Some(3_600));
        for (now, validity) in [
            (-1, Validity::NotYetValid),
            (0, Validity::Valid),
            (2_400, Validity::Valid),
            (2_401, Validity::EndsSoon),
            (3_600, Validity::EndsSoon),
            (3_601, Validity::Ended),
        ] {
            assert_eq!(hour.validity(Date(now)), validity, "{now}");
        }
        assert_eq!(lifetime("a", 0, None).validity(Date(i64::MAX)), Validity::Valid);
    }

    #[test]
    fn of_several_that_ends_first_counts_with_its_own_beginning() {
        let all =
            [lifetime("a", 5, Some(90)), lifetime("a", 1, Some(80)), lifetime("b", 0, None), lifetime("c", 2, Some(7))];
        let first: Vec<_> = first_to_end(&all).into_iter().map(|it| (it.name.as_str(), it.not_before.0)).collect();
        assert_eq!(first, [("a", 1), ("c", 2)]);
    }
}
