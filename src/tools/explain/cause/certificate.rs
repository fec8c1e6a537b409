//! What is wrong with the server's certificate, more finely than by the class.

use super::{CauseKind, Evidence};
use crate::credentials::certificate::Date;
use crate::credentials::refusal::Refusal;
use crate::tools::explain::chain::Link;

/// The cause behind a refusal, and the faults that it hides.
pub(super) fn kinds(refusal: &Refusal, evidence: &Evidence<'_>) -> Vec<(CauseKind, &'static str)> {
    let mut found = vec![(kind(refusal, evidence), refusal.reason())];
    let behind = evidence.in_time.iter().chain(&evidence.alone);
    for refusal in behind {
        let kind = kind(refusal, evidence);
        // Most have no word but that of their class.
        let is_new = |known: &CauseKind| kind.word().is_empty() || known.word() != kind.word();
        if found.iter().all(|(known, reason)| is_new(known) && *reason != refusal.reason()) {
            found.push((kind, refusal.reason()));
        }
    }
    // A common name does where the certificate itself is trusted, and nowhere else.
    let leaf = evidence.chain.leaf();
    let by_chain = matches!(found[0].0, CauseKind::PrivateAuthority { .. } | CauseKind::ChainIncomplete { .. });
    if let Some(leaf) = leaf.filter(|leaf| by_chain && leaf.facts.names.is_empty()) {
        found.retain(|(kind, _)| !matches!(kind, CauseKind::WrongName { .. }));
        found.push((common_name_only(leaf), "certificate_name_mismatch"));
    }
    found
}

fn kind(refusal: &Refusal, evidence: &Evidence<'_>) -> CauseKind {
    let Some(leaf) = evidence.chain.leaf() else { return CauseKind::Other(refusal.to_string()) };
    match refusal {
        Refusal::UnknownIssuer => unknown_issuer(leaf, evidence),
        Refusal::SelfSigned { among_roots: false } => CauseKind::SelfSigned { is_authority: leaf.facts.authority },
        Refusal::SelfSigned { among_roots: true } | Refusal::NotAnEndEntity(_) => {
            CauseKind::AuthorityAsLeaf { version: leaf.facts.version }
        }
        Refusal::NameMismatch { .. } if leaf.facts.names.is_empty() => common_name_only(leaf),
        Refusal::NameMismatch { expected } => {
            CauseKind::WrongName { names: leaf.facts.names.clone(), expected: expected.clone() }
        }
        Refusal::Expired { not_after } => {
            let subject = subject_by(evidence, |link| link.facts.not_after == *not_after);
            CauseKind::Expired { subject, not_after: *not_after, now: evidence.now }
        }
        Refusal::NotYetValid { not_before } => {
            let subject = subject_by(evidence, |link| link.facts.not_before == *not_before);
            CauseKind::NotYetValid { subject, not_before: *not_before, now: evidence.now }
        }
        Refusal::Revoked => CauseKind::Revoked,
        Refusal::CrlExpired { next_update } => CauseKind::CrlExpired(*next_update),
        Refusal::WeakKey { .. } => CauseKind::WeakKey(refusal.to_string()),
        Refusal::WeakSignature { .. } => CauseKind::WeakSignature(refusal.to_string()),
        Refusal::PinMismatch => CauseKind::PinMismatch,
        Refusal::NotTheExactOne => CauseKind::NotTheExactOne,
        Refusal::Invalid(_) | Refusal::RootOutOfDate { .. } => CauseKind::Other(refusal.to_string()),
    }
}

fn unknown_issuer(leaf: &Link, evidence: &Evidence<'_>) -> CauseKind {
    let chain = evidence.chain;
    if evidence.anchors.iter().any(|anchor| anchor.sha256 == leaf.facts.sha256) {
        return CauseKind::LeafAsAuthority { issuer: leaf.facts.issuer.clone() };
    }
    if evidence.explicit_trust && evidence.system_believes {
        return CauseKind::TrustTooNarrow;
    }
    let top = chain.top().unwrap_or(leaf);
    let issuer = top.facts.issuer.clone();
    if chain.missing.is_some() && !chain.namesake {
        // Authorities say in what an intermediate signs where that can be had. Roots hand out leaves only in
        // small organisations, which do not say so.
        if let Some(url) = &top.issuer_url {
            return CauseKind::ChainIncomplete { issuer, url: Some(url.clone()) };
        }
        if evidence.explicit_trust && evidence.anchors.iter().any(|anchor| one_house(&anchor.subject, &issuer)) {
            return CauseKind::ChainIncomplete { issuer, url: None };
        }
    }
    CauseKind::PrivateAuthority { issuer, namesake: chain.namesake, sent: chain.missing.is_none() && !chain.namesake }
}

/// Two distinguished names of one organization.
fn one_house(one: &str, other: &str) -> bool {
    let organisation = |name: &str| -> Option<String> {
        name.split(',').find_map(|part| part.trim().strip_prefix("O=").map(str::to_owned))
    };
    organisation(one).is_some_and(|house| organisation(other).as_deref() == Some(&house))
}

fn common_name_only(leaf: &Link) -> CauseKind {
    CauseKind::CommonNameOnly { common_name: leaf.facts.common_name.clone() }
}

fn subject_by(evidence: &Evidence<'_>, is_it: impl Fn(&Link) -> bool) -> String {
    let found = evidence.chain.links.iter().find(|link| is_it(link)).or_else(|| evidence.chain.leaf());
    found.map(|link| link.facts.subject.clone()).unwrap_or_default()
}

pub(super) fn days(from: Date, to: Date) -> String {
    let seconds = (to.0 - from.0).abs();
    match seconds / 86_400 {
        0 => format!("{} hours", (seconds / 3600).max(1)),
        1 => "1 day".into(),
        days => format!("{days} days"),
    }
}
