//! Verification of a chain to a root (RFC 5280 section 6), with pins, names and revocation lists.

use std::cell::Cell;

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath,
};

use super::{Authorities, Crl, RootFacts, Trust, exact, verifier};
use crate::config::values::ExpectedName;
use crate::credentials::certificate::{CertificateFacts, Date};
use crate::credentials::fingerprint::{Sha256, sha256};
use crate::credentials::refusal::Refusal;
use crate::wording;

/// Checks a chain: until when it holds and which of the roots vouches for it, or why it does not hold.
pub(super) fn check(
    trust: &Trust,
    authorities: Authorities<'_>,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    expected: &[ExpectedName],
    now: UnixTime,
) -> Result<(Date, usize), Refusal> {
    let facts = CertificateFacts::read(leaf);
    if let Some(root) = authorities.own_certificate(facts.as_ref()) {
        let until = exact::check(Some(&authorities.roots[root].sha256), &trust.pins, leaf, expected, now)?;
        return Ok((until, root));
    }
    let explain = |error| explain(error, facts.as_ref(), intermediates, authorities);
    let parsed = EndEntityCert::try_from(leaf).map_err(explain)?;
    let lists: Vec<&CertRevocationList<'_>> = trust.crls.iter().map(|crl| &crl.list).collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|builder| {
        builder
            .with_depth(RevocationCheckDepth::Chain)
            // Not every authority publishes a list; one that is there must be fresh.
            .with_status_policy(UnknownStatusPolicy::Allow)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    let pins_missed = Cell::new(false);
    let out_of_date = Cell::new(None);
    let until = Cell::new(Date(i64::MAX));
    let root = Cell::new(0);
    let check_path = |path: &VerifiedPath<'_>| {
        if !trust.pins.is_empty() && !is_pinned(path, &trust.pins) {
            pins_missed.set(true);
            // Another path may hold a pinned key: this error lets the search go on.
            return Err(webpki::Error::UnknownIssuer);
        }
        let found = authorities.of(path, now.into());
        let Ok(index) = found else {
            out_of_date.set(found.err());
            return Err(webpki::Error::UnknownIssuer);
        };
        until.set(end_of(path, &trust.crls).min(authorities.roots[index].not_after));
        root.set(index);
        Ok(())
    };
    let path = parsed.verify_for_usage(
        verifier::algorithms().all,
        authorities.anchors,
        intermediates,
        now,
        KeyUsage::server_auth(),
        revocation,
        Some(&check_path),
    );
    path.map_err(|error| match (out_of_date.get(), pins_missed.get()) {
        (Some(index), _) => out_of_date_root(&authorities.roots[index], now.into()),
        (None, true) => Refusal::PinMismatch,
        (None, false) => explain(error),
    })?;
    if !expected.is_empty() && !expected.iter().any(|name| carries(&parsed, leaf, name)) {
        return Err(Refusal::NameMismatch { expected: expected.iter().map(ToString::to_string).collect() });
    }
    // The chain does not use the leaf's key, but the handshake will: better said here than as a bad signature.
    match facts.filter(CertificateFacts::has_weak_key) {
        Some(weak) => Err(Refusal::WeakKey { subject: weak.subject, bits: weak.key_bits }),
        None => Ok((until.get(), root.get())),
    }
}

impl Authorities<'_> {
    /// The root that is this certificate, byte for byte, if webpki does not take it at the end of a chain: one that says
    /// it is an authority, as a stock `openssl req -x509` makes it, or X.509 v1.
    fn own_certificate(&self, leaf: Option<&CertificateFacts>) -> Option<usize> {
        let leaf = leaf.filter(|leaf| leaf.self_signed && (leaf.authority || leaf.version < 3))?;
        self.roots.iter().position(|root| root.sha256 == leaf.sha256)
    }

    /// The root at the end of a path. A root that was renewed with its key is listed twice: one valid root is enough;
    /// otherwise the error says that the root is out of date.
    fn of(&self, path: &VerifiedPath<'_>, now: Date) -> Result<usize, usize> {
        let same = self.anchors.iter().zip(self.roots).enumerate().filter(|(_, (anchor, _))| *anchor == path.anchor());
        let mut out_of_date = 0;
        for (index, (_, root)) in same {
            if root.not_before <= now && now <= root.not_after {
                return Ok(index);
            }
            out_of_date = index;
        }
        Err(out_of_date)
    }
}

fn out_of_date_root(root: &RootFacts, now: Date) -> Refusal {
    let from = root.not_before;
    let until = root.not_after;
    Refusal::RootOutOfDate {
        subject: root.subject.clone(),
        expired: until < now,
        date: if until < now { until } else { from },
    }
}

fn carries(certificate: &EndEntityCert<'_>, leaf: &CertificateDer<'_>, expected: &ExpectedName) -> bool {
    let is_for = |name: ServerName<'_>| certificate.verify_is_valid_for_subject_name(&name).is_ok();
    match expected {
        ExpectedName::Dns(name) => is_for(ServerName::DnsName(name.borrow())),
        ExpectedName::Ip(ip) => is_for(ServerName::IpAddress((*ip).into())),
        ExpectedName::Uri(uri) => certificate.valid_uri_names().any(|presented| presented == uri),
        ExpectedName::CommonName(_) | ExpectedName::OrganizationalUnit(_) => exact::subject_has(leaf, expected),
    }
}

fn is_pinned(path: &VerifiedPath<'_>, pins: &[Sha256]) -> bool {
    let pinned = |spki: &[u8]| pins.contains(&sha256(spki));
    pinned(&path.end_entity().subject_public_key_info())
        || path.intermediate_certificates().any(|issuer| pinned(&issuer.subject_public_key_info()))
        || pinned(&sequence(&path.anchor().subject_public_key_info))
}

/// A trust anchor keeps the content of its SubjectPublicKeyInfo; pins are over all of it.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let mut der = vec![0x30];
    if content.len() >= 0x80 {
        der.push(0x80 | length.len() as u8); // at most 8
    }
    der.extend_from_slice(length);
    der.extend_from_slice(content);
    der
}

/// The earliest expiry among the certificates of the path and the revocation lists that were checked.
fn end_of(path: &VerifiedPath<'_>, crls: &[Crl]) -> Date {
    let mut until = Date(i64::MAX);
    let leaf = path.end_entity();
    for certificate in std::iter::once(&**leaf).chain(path.intermediate_certificates()) {
        let not_after = CertificateFacts::read(&certificate.der()).map_or(Date(0), |facts| facts.not_after);
        let lists = crls.iter().filter(|crl| crl.list.issuer() == certificate.issuer());
        until = lists.filter_map(|crl| crl.next_update).chain([not_after, until]).min().unwrap_or(until);
    }
    until
}

fn explain(
    error: webpki::Error,
    leaf: Option<&CertificateFacts>,
    intermediates: &[CertificateDer<'_>],
    authorities: Authorities<'_>,
) -> Refusal {
    use webpki::Error as E;
    // It is self-signed, whatever else was sent with it.
    let self_signed = leaf.is_some_and(|leaf| leaf.self_signed);
    match error {
        E::UnknownIssuer if self_signed => Refusal::SelfSigned { among_roots: false },
        E::UnknownIssuer => Refusal::UnknownIssuer,
        // A key too short to check a signature with fails like a wrong one. If none is, a root of the issuer's
        // name is there with another key: an authority was made anew, or is another.
        E::InvalidSignatureForPublicKey => weakness(leaf, intermediates).unwrap_or(Refusal::UnknownIssuer),
        E::CaUsedAsEndEntity | E::UnsupportedCertVersion if self_signed => {
            let key = |leaf: &CertificateFacts| {
                authorities
                    .anchors
                    .iter()
                    .any(|anchor| sha256(&sequence(&anchor.subject_public_key_info)) == leaf.spki_sha256)
            };
            Refusal::SelfSigned { among_roots: leaf.is_some_and(key) }
        }
        E::CaUsedAsEndEntity => Refusal::NotAnEndEntity("an authority's certificate"),
        E::UnsupportedCertVersion => Refusal::NotAnEndEntity("X.509 version 1"),
        E::CertExpired { not_after, .. } => Refusal::Expired { not_after: not_after.into() },
        E::CertNotValidYet { not_before, .. } => Refusal::NotYetValid { not_before: not_before.into() },
        E::CertRevoked => Refusal::Revoked,
        E::CrlExpired { next_update, .. } => Refusal::CrlExpired { next_update: next_update.into() },
        // Something in the chain is signed in a way that cannot be checked: the weakest part is to blame.
        other => weakness(leaf, intermediates).unwrap_or_else(|| Refusal::Invalid(in_words(&other))),
    }
}

fn weakness(leaf: Option<&CertificateFacts>, intermediates: &[CertificateDer<'_>]) -> Option<Refusal> {
    let issuers: Vec<_> = intermediates.iter().filter_map(|der| CertificateFacts::read(der)).collect();
    leaf.into_iter().chain(&issuers).find_map(|facts| match facts.weak_signature {
        Some(algorithm) => Some(Refusal::WeakSignature { subject: facts.subject.clone(), algorithm: algorithm.into() }),
        None if facts.has_weak_key() => Some(Refusal::WeakKey { subject: facts.subject.clone(), bits: facts.key_bits }),
        None => None,
    })
}

fn in_words(error: &webpki::Error) -> String {
    use webpki::Error as E;
    match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) | E::MalformedExtensions | E::ExtensionValueInvalid => {
            "it is not encoded as X.509 demands".into()
        }
        E::InvalidCertValidity => "it ends before it begins".into(),
        E::InvalidSignatureForPublicKey | E::SignatureAlgorithmMismatch => {
            "a signature in its chain was not made by the issuer's key".into()
        }
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "a signature in its chain is by an algorithm that is not supported".into()
        }
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
            "its extended key usage does not include server authentication".into()
        }
        E::UnsupportedCriticalExtension => "it has a critical extension that is not supported".into(),
        E::EndEntityUsedAsCa => "an issuer in its chain is not an authority".into(),
        E::PathLenConstraintViolated | E::MaximumPathDepthExceeded => "its chain is too long".into(),
        E::NameConstraintViolation => "an issuer in its chain may not vouch for this name".into(),
        E::InvalidCrlSignatureForPublicKey => "a revocation list was not signed by the issuer".into(),
        E::IssuerNotCrlSigner => "its issuer may not sign revocation lists".into(),
        E::CertDistrusted => "a key in its chain is distrusted".into(),
        E::MaximumSignatureChecksExceeded | E::MaximumPathBuildCallsExceeded => {
            "its chain takes too many signature checks: the server sends many certificates of the same names".into()
        }
        E::MaximumNameConstraintComparisonsExceeded => "an issuer in its chain has too many name constraints".into(),
        E::UnsupportedCertVersion => "it is of an X.509 version that is not supported".into(),
        E::UnknownRevocationStatus => "no revocation list covers it or an issuer in its chain".into(),
        other => wording::variant(other),
    }
}

#[cfg(test)]
mod tests {
    use webpki::Error as E;

    use super::*;

    #[test]
    fn no_error_of_a_chain_reaches_a_person_by_the_name_of_its_variant() {
        #[rustfmt::skip]
        let all = [
            E::BadDer, E::BadDerTime, E::CaUsedAsEndEntity, E::CertDistrusted, E::CertRevoked, E::EmptyEkuExtension,
            E::EndEntityUsedAsCa, E::ExtensionValueInvalid, E::InvalidCertValidity, E::InvalidCrlNumber,
            E::InvalidNetworkMaskConstraint, E::InvalidSerialNumber, E::InvalidCrlSignatureForPublicKey,
            E::InvalidSignatureForPublicKey, E::IssuerNotCrlSigner, E::MalformedDnsIdentifier, E::MalformedExtensions,
            E::MalformedNameConstraint, E::MaximumNameConstraintComparisonsExceeded, E::MaximumPathBuildCallsExceeded,
            E::MaximumPathDepthExceeded, E::MaximumSignatureChecksExceeded, E::NameConstraintViolation,
            E::PathLenConstraintViolated, E::SignatureAlgorithmMismatch, E::TrailingData(webpki::DerTypeId::Certificate),
            E::UnknownIssuer, E::UnknownRevocationStatus, E::UnsupportedCertVersion, E::UnsupportedCriticalExtension,
            E::UnsupportedCrlIssuingDistributionPoint, E::UnsupportedCrlVersion, E::UnsupportedDeltaCrl,
            E::UnsupportedIndirectCrl, E::UnsupportedNameType, E::UnsupportedRevocationReason,
            E::UnsupportedRevocationReasonsPartitioning,
        ];
        for error in all {
            let text = in_words(&error);
            let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
            assert_eq!(words.find(|word| wording::is_identifier(word)), None, "{error:?}: {text}");
            assert!(text.contains(' '), "{error:?}: {text}");
        }
    }
}
