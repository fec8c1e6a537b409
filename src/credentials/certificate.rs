//! The facts of a certificate, for people and for the checks that webpki does not make.
//!
//! Text in a certificate comes from another party: everything shown is cut to a bounded length and
//! its invisible characters are escaped, so that it can neither flood a log nor forge a line of it.

use std::fmt;
use std::net::IpAddr;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{SubjectPublicKeyInfoDer, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::credentials::fingerprint::{Sha256, labelled_hex, sha256};
use crate::escape;

/// Shorter RSA keys are not checked by the provider (and are factored by now; NIST SP 800-131A).
pub(crate) const MIN_RSA_BITS: usize = 2048;

/// A second of UTC, as Unix time; shown in the manner of RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub i64);

/// The facts that a certificate states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// Subject alternative names as `dns:...`, `ip:...`, `uri:...`; at most [`MAX_NAMES`].
    pub(crate) names: Vec<String>,
    /// The last common name of the subject.
    pub common_name: Option<String>,
    pub(crate) not_before: Date,
    /// Inclusive.
    pub(crate) not_after: Date,
    /// Of the DER encoding.
    pub sha256: Sha256,
    /// Of the SubjectPublicKeyInfo: pins are compared with it.
    pub spki_sha256: Sha256,
    /// Kind of key, such as `RSA` or `EC`.
    pub(crate) key: &'static str,
    /// Size of the key; 0 if unknown.
    pub(crate) key_bits: usize,
    /// The name of a broken signature algorithm, if the certificate is signed with one.
    pub(crate) weak_signature: Option<&'static str>,
    /// Subject and issuer are the same, and the signature is by its own key (or cannot be checked at all).
    pub(crate) self_signed: bool,
    /// 1, 2 or 3.
    pub(crate) version: u32,
    /// Basic constraints say that it may sign others.
    pub(crate) authority: bool,
    /// Its extended key usage, if it has one, includes client authentication (RFC 5280 section 4.2.1.12).
    pub(crate) for_clients: bool,
}

/// Names that are kept; a certificate of a shared host may carry hundreds.
pub(crate) const MAX_NAMES: usize = 32;
/// Characters of a name that are kept: a DNS name has at most 253, a distinguished name in use fewer.
const MAX_TEXT: usize = 256;

impl CertificateFacts {
    /// Reads a DER certificate; `None` if it is not one.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let (key, key_bits) = key(&parsed);
        Some(Self {
            subject: clean(&parsed.subject().to_string()),
            issuer: clean(&parsed.issuer().to_string()),
            names: subject_names(&parsed).iter().take(MAX_NAMES).map(ToString::to_string).collect(),
            common_name: common_name(&parsed).map(clean),
            not_before: Date(parsed.validity().not_before.timestamp()),
            not_after: Date(parsed.validity().not_after.timestamp()),
            sha256: sha256(der),
            spki_sha256: sha256(parsed.public_key().raw),
            key,
            key_bits,
            weak_signature: weak_algorithm(&parsed.signature_algorithm.algorithm.to_id_string()),
            self_signed: is_self_signed(&parsed, der),
            version: parsed.version().0 + 1,
            authority: parsed.is_ca(),
            for_clients: is_for_clients(&parsed),
        })
    }

    pub(crate) fn has_weak_key(&self) -> bool {
        is_weak(self.key, self.key_bits)
    }

    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut names = self.names.join(", ");
        if names.is_empty() {
            names = "none".into();
        }
        vec![
            ("subject", self.subject.clone()),
            ("issuer", self.issuer.clone()),
            ("names", names),
            ("not_before", self.not_before.to_string()),
            ("not_after", self.not_after.to_string()),
            ("sha256", labelled_hex(&self.sha256)),
            ("key", if self.key_bits == 0 { self.key.into() } else { format!("{} {}", self.key, self.key_bits) }),
        ]
    }
}

/// When to start warning about expiry: after two thirds of the lifetime, as ACME clients renew (90 days: 30 before),
/// and at most 30 days before, so that an authority of ten years is not reported for three of them. One rule for
/// `check` and `trust expiry`.
pub(crate) fn soon_from(not_before: Date, not_after: Date) -> Date {
    const LONGEST: i64 = 30 * 24 * 60 * 60;
    let life = not_after.0.saturating_sub(not_before.0).max(0);
    Date(not_after.0 - (life / 3).min(LONGEST))
}

/// No extended key usage is every usage; not so an empty list, or one that cannot be read.
fn is_for_clients(certificate: &X509Certificate<'_>) -> bool {
    match certificate.extended_key_usage() {
        Ok(Some(usage)) => usage.value.any || usage.value.client_auth,
        Ok(None) => true,
        Err(_) => false,
    }
}

pub(crate) fn has_weak_key(certificate: &X509Certificate<'_>) -> bool {
    let (kind, bits) = key(certificate);
    is_weak(kind, bits)
}

fn is_weak(key: &str, bits: usize) -> bool {
    key == "RSA" && bits < MIN_RSA_BITS
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubjectName {
    Dns(String),
    Ip(IpAddr),
    Uri(String),
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{}", clean(name)),
            Self::Ip(ip) => write!(f, "ip:{ip}"),
            Self::Uri(uri) => write!(f, "uri:{}", clean(uri)),
        }
    }
}

pub(crate) fn subject_names(certificate: &X509Certificate<'_>) -> Vec<SubjectName> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    extension.value.general_names.iter().filter_map(subject_name).collect()
}

fn subject_name(name: &GeneralName<'_>) -> Option<SubjectName> {
    match name {
        GeneralName::DNSName(name) => Some(SubjectName::Dns((*name).into())),
        GeneralName::URI(uri) => Some(SubjectName::Uri((*uri).into())),
        GeneralName::IPAddress(octets) => {
            let four = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from)).ok().map(SubjectName::Ip)
        }
        _ => None,
    }
}

/// The most specific common name of the subject.
pub(crate) fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    certificate.subject().iter_common_name().last()?.as_str().ok()
}

/// The first critical extension that is none of those of RFC 5280: a certificate with one must not be used (section 4.2).
pub(crate) fn unknown_critical_extension(certificate: &X509Certificate<'_>) -> Option<String> {
    // Subject key identifier (14) to inhibit anyPolicy (54), all below 2.5.29.
    const KNOWN: [&str; 13] = ["14", "15", "16", "17", "18", "19", "30", "31", "32", "33", "35", "36", "37"];
    let unknown = |oid: &str| !oid.strip_prefix("2.5.29.").is_some_and(|arc| KNOWN.contains(&arc) || arc == "54");
    let critical = certificate.extensions().iter().filter(|extension| extension.critical);
    critical.map(|extension| extension.oid.to_id_string()).find(|oid| unknown(oid))
}

/// The SubjectPublicKeyInfo of a certificate of any version (RFC 5280 section 4.1). Parses only what precedes it: every
/// handshake asks for it.
pub(crate) fn public_key(der: &[u8]) -> Option<SubjectPublicKeyInfoDer<'_>> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    if rest.first() == Some(&EXPLICIT_VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, signature algorithm, issuer, validity, subject.
    for _ in 0..5 {
        rest = element(rest)?.2;
    }
    let (key, _, _) = element(rest).filter(|_| rest.first() == Some(&SEQUENCE))?;
    Some(SubjectPublicKeyInfoDer::from(key))
}

/// Tag `[0]`, constructed: the version, which X.509 v1 leaves out.
const EXPLICIT_VERSION: u8 = 0xa0;
const SEQUENCE: u8 = 0x30;

pub(crate) fn distinguished_name(der: &[u8]) -> Option<String> {
    let (_, name) = x509_parser::x509::X509Name::from_der(der).ok()?;
    Some(clean(&name.to_string()))
}

fn key(certificate: &X509Certificate<'_>) -> (&'static str, usize) {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(rsa)) => ("RSA", rsa.key_size()),
        Ok(PublicKey::EC(point)) => ("EC", point.key_size()),
        Ok(PublicKey::DSA(_)) => ("DSA", 0),
        _ => match certificate.public_key().algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => ("Ed25519", 256),
            "1.3.101.113" => ("Ed448", 456),
            _ => ("unknown", 0),
        },
    }
}

/// The name of a signature algorithm that is broken by collisions; `None` for any other.
pub(crate) fn weak_algorithm(oid: &str) -> Option<&'static str> {
    match oid {
        "1.2.840.113549.1.1.2" => Some("MD2 with RSA"),
        "1.2.840.113549.1.1.4" => Some("MD5 with RSA"),
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => Some("SHA-1 with RSA"),
        "1.2.840.10045.4.1" => Some("SHA-1 with ECDSA"),
        "1.2.840.10040.4.3" => Some("SHA-1 with DSA"),
        _ => None,
    }
}

fn is_self_signed(certificate: &X509Certificate<'_>, der: &[u8]) -> bool {
    if certificate.subject().as_raw() != certificate.issuer().as_raw() {
        return false;
    }
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    // With an algorithm that cannot be checked, the names have to do.
    signed_by(certificate, der, certificate, &algorithms).unwrap_or(true)
}

/// Whether a certificate was issued by another: by name, and by signature as far as it can be checked.
pub(crate) fn is_issued_by(der: &[u8], issuer_der: &[u8]) -> bool {
    let (Ok((_, certificate)), Ok((_, issuer))) =
        (X509Certificate::from_der(der), X509Certificate::from_der(issuer_der))
    else {
        return false;
    };
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && signed_by(&certificate, der, &issuer, &algorithms).unwrap_or(true)
}

/// Whether the issuer's key made a certificate's signature; `None` if the algorithm is not one of `algorithms`.
fn signed_by(
    certificate: &X509Certificate<'_>,
    der: &[u8],
    issuer: &X509Certificate<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Option<bool> {
    let (tbs, algorithm) = signed_parts(der)?;
    let spki = SubjectPublicKeyInfoDer::from(issuer.public_key().raw);
    let key = webpki::RawPublicKeyEntity::try_from(&spki).ok()?;
    let mut candidates =
        algorithms.all.iter().filter(|known| known.signature_alg_id().as_ref() == algorithm).peekable();
    candidates.peek()?;
    let signature = certificate.signature_value.data.as_ref();
    Some(candidates.any(|known| key.verify_signature(*known, tbs, signature).is_ok()))
}

/// The signed bytes of a certificate and the content of its AlgorithmIdentifier (RFC 5280 section 4.1).
fn signed_parts(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, certificate, _) = element(der)?;
    let (tbs, _, rest) = element(certificate)?;
    let (_, algorithm, _) = element(rest)?;
    Some((tbs, algorithm))
}

/// The first DER element: all of it, its content, and what follows.
pub(crate) fn element(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let first = *der.get(1)?;
    let (header, length) = if first < 0x80 {
        (2, usize::from(first))
    } else {
        // Four octets of length are more than any certificate needs.
        let octets = usize::from(first & 0x7f);
        let length = der.get(2..2 + octets).filter(|_| (1..=4).contains(&octets))?;
        (2 + octets, length.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)))
    };
    let end = header.checked_add(length)?;
    Some((der.get(..end)?, der.get(header..end)?, der.get(end..)?))
}

/// Text of another party, made safe for a log line.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(MAX_TEXT));
    text.chars().take(MAX_TEXT).for_each(|letter| escape::push(&mut clean, letter));
    if text.chars().nth(MAX_TEXT).is_some() {
        clean.push('…');
    }
    clean
}

impl Date {
    /// The present, by the system's clock.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }
}

impl From<UnixTime> for Date {
    fn from(time: UnixTime) -> Self {
        Self(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Date {
    /// Days to a civil date by the proleptic Gregorian calendar: 400 years have 146097 days.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.div_euclid(86_400);
        let second = self.0.rem_euclid(86_400);
        let shifted = days + 719_468; // days from 0000-03-01: the leap day ends the year
        let era = shifted.div_euclid(146_097);
        let day = shifted.rem_euclid(146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let date = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + i64::from(month <= 2);
        let hour = second / 3_600;
        let minute = second / 60 % 60;
        let second = second % 60;
        write!(f, "{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let dates = [(0, "1970-01-01T00:00:00Z"), (951_782_400, "2000-02-29T00:00:00Z"), (-1, "1969-12-31T23:59:59Z")];
        for (unix, text) in dates {
            assert_eq!(Date(unix).to_string(), text);
        }
    }

    #[test]
    fn warnings_come_at_a_third_of_the_life_and_at_most_thirty_days_before_the_end() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (life, before) in [
            (HOUR, HOUR / 3),
            (6 * DAY, 2 * DAY),
            (45 * DAY, 15 * DAY),
            (90 * DAY, 30 * DAY),
            (3650 * DAY, 30 * DAY),
            (0, 0),
        ] {
            assert_eq!(soon_from(Date(1_000), Date(1_000 + life)), Date(1_000 + life - before), "{life}");
        }
    }

    #[test]
    fn text_of_a_stranger_cannot_forge_a_log_line() {
        assert_eq!(clean("CN=a\nlevel=info"), "CN=a\\nlevel=info");
        assert_eq!(clean(&"x".repeat(1_000)).chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn self_signed_means_by_its_own_key() {
        let own = rcgen::KeyPair::generate().expect("a key");
        let other = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["a.example.com".into()]).expect("a name");
        let itself = params.self_signed(&own).expect("a certificate");
        assert!(CertificateFacts::read(itself.der()).expect("it is read").self_signed);
        // The same name as subject and issuer, but another key: an authority that was renewed.
        let issuer = rcgen::Issuer::from_params(&params, &other);
        let issued = params.signed_by(&own, &issuer).expect("a certificate");
        assert!(!CertificateFacts::read(issued.der()).expect("it is read").self_signed);
    }

    #[test]
    fn the_public_key_is_found_without_reading_the_rest() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = (0..40).map(|number| format!("a{number}.example.com")).collect::<Vec<_>>();
        for names in [Vec::new(), names] {
            let certificate =
                rcgen::CertificateParams::new(names).expect("names").self_signed(&key).expect("it is made");
            let (_, parsed) = X509Certificate::from_der(certificate.der()).expect("it is read");
            assert_eq!(public_key(certificate.der()).as_deref(), Some(parsed.public_key().raw));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = CertificateFacts::read(&bytes);
            let _ = (signed_parts(&bytes), public_key(&bytes));
            let _ = crate::credentials::pem::sections(&bytes);
        }
    }
}
