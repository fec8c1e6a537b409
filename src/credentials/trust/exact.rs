//! Trust in exactly one certificate, or in pinned keys, without a chain.
//!
//! webpki refuses at a chain's end what a stock `openssl req -x509` makes: a certificate that says it is
//! an authority, or X.509 v1. Where the certificate itself is trusted none of that matters, nor does its name unless
//! `names` asks for one. Dates still do.

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names;
use crate::config::values::ExpectedName;
use crate::credentials::certificate::{CertificateFacts, Date, common_name, subject_names};
use crate::credentials::fingerprint::Sha256;
use crate::credentials::refusal::Refusal;

/// Checks a certificate that must have the digest `exactly`, or else a pinned key. Without `expected` names, its own do
/// not matter: the certificate, or its key, was chosen, and only one party has the key.
pub(super) fn check(
    exactly: Option<&Sha256>,
    pins: &[Sha256],
    leaf: &CertificateDer<'_>,
    expected: &[ExpectedName],
    now: UnixTime,
) -> Result<Date, Refusal> {
    let facts = CertificateFacts::read(leaf).ok_or_else(unreadable)?;
    if exactly.is_some_and(|sha256| *sha256 != facts.sha256) {
        return Err(Refusal::NotTheExactOne);
    }
    if (exactly.is_none() || !pins.is_empty()) && !pins.contains(&facts.spki_sha256) {
        return Err(Refusal::PinMismatch);
    }
    check_dates(&facts, now)?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
    if !expected.is_empty() && !carries(&parsed, expected, exactly.is_some()) {
        return Err(Refusal::NameMismatch { expected: expected.iter().map(ToString::to_string).collect() });
    }
    if facts.has_weak_key() {
        return Err(Refusal::WeakKey { subject: facts.subject, bits: facts.key_bits });
    }
    Ok(facts.not_after)
}

pub(super) fn subject_has(leaf: &CertificateDer<'_>, expected: &ExpectedName) -> bool {
    X509Certificate::from_der(leaf).is_ok_and(|(_, parsed)| in_subject(&parsed, expected))
}

fn in_subject(certificate: &X509Certificate<'_>, expected: &ExpectedName) -> bool {
    match expected {
        ExpectedName::CommonName(name) => common_name(certificate) == Some(name),
        ExpectedName::OrganizationalUnit(name) => {
            certificate.subject().iter_organizational_unit().any(|unit| unit.as_str().is_ok_and(|unit| unit == name))
        }
        ExpectedName::Dns(_) | ExpectedName::Ip(_) | ExpectedName::Uri(_) => false,
    }
}

fn unreadable() -> Refusal {
    Refusal::Invalid("it cannot be read".into())
}

fn check_dates(facts: &CertificateFacts, now: UnixTime) -> Result<(), Refusal> {
    let now = Date::from(now);
    if now > facts.not_after {
        return Err(Refusal::Expired { not_after: facts.not_after });
    }
    if now < facts.not_before {
        return Err(Refusal::NotYetValid { not_before: facts.not_before });
    }
    Ok(())
}

/// With `by_common_name`, a certificate without subject alternative names is matched by its common name: certificates
/// of old appliances have nothing else, and the certificate as a whole was chosen, so that this is not free text of
/// another party.
fn carries(certificate: &X509Certificate<'_>, expected: &[ExpectedName], by_common_name: bool) -> bool {
    if expected.iter().any(|name| in_subject(certificate, name)) {
        return true;
    }
    let presented = subject_names(certificate);
    if presented.iter().any(|name| expected.iter().any(|expected| names::is(name, expected))) {
        return true;
    }
    let has_no_names = matches!(certificate.subject_alternative_name(), Ok(None));
    by_common_name
        && has_no_names
        && common_name(certificate).is_some_and(|cn| expected.iter().any(|name| names::common_name_is(cn, name)))
}
