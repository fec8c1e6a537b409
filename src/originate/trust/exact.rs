//! Trust in exactly one certificate, or in pinned keys, without a chain.
//!
//! webpki refuses at a chain's end what a stock `openssl req -x509` makes: a certificate that says it is
//! an authority, or X.509 v1. Where the certificate itself is trusted none of that matters. Name and dates
//! still do: a pinned certificate on the wrong host is a wrong host.

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names;
use crate::config::values::ExpectedName;
use crate::originate::certificate::{CertificateFacts, Date, common_name, subject_names};
use crate::originate::fingerprint::Sha256;
use crate::originate::refusal::Refusal;

/// Checks a certificate that has to be the one with the digest `exactly`, or else to have a pinned key.
pub(super) fn check(
    exactly: Option<&Sha256>,
    pins: &[Sha256],
    leaf: &CertificateDer<'_>,
    expected: &[ExpectedName],
    now: UnixTime,
) -> Result<Date, Refusal> {
    let unreadable = || Refusal::Invalid("it cannot be read".into());
    let facts = CertificateFacts::read(leaf).ok_or_else(unreadable)?;
    if exactly.is_some_and(|sha256| *sha256 != facts.sha256) {
        return Err(Refusal::NotTheExactOne);
    }
    if (exactly.is_none() || !pins.is_empty()) && !pins.contains(&facts.spki_sha256) {
        return Err(Refusal::PinMismatch);
    }
    check_dates(&facts, now)?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
    if !carries(&parsed, expected, exactly.is_some()) {
        return Err(Refusal::NameMismatch { expected: expected.iter().map(names::text).collect() });
    }
    if facts.has_weak_key() {
        return Err(Refusal::WeakKey { subject: facts.subject, bits: facts.key_bits });
    }
    Ok(facts.not_after)
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

/// With `by_common_name`, a certificate without any subject alternative name is matched by its common
/// name: the certificates of old appliances have nothing else, and here it is not free text of a
/// stranger, since the certificate as a whole was chosen.
fn carries(certificate: &X509Certificate<'_>, expected: &[ExpectedName], by_common_name: bool) -> bool {
    let presented = subject_names(certificate);
    if presented.iter().any(|name| expected.iter().any(|expected| names::is(name, expected))) {
        return true;
    }
    let has_no_names = matches!(certificate.subject_alternative_name(), Ok(None));
    by_common_name
        && has_no_names
        && common_name(certificate).is_some_and(|cn| expected.iter().any(|name| names::common_name_is(cn, name)))
}
