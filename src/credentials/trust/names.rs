//! Names: what is expected of a certificate, and whether it carries it (RFC 9525).

use std::net::IpAddr;

use rustls::pki_types::{DnsName, ServerName};

use crate::config::values::ExpectedName;
use crate::credentials::certificate::SubjectName;
use crate::credentials::fingerprint::{Fields, Sha256};

pub(crate) fn expected(server_name: &ServerName<'_>) -> Option<ExpectedName> {
    match server_name {
        ServerName::DnsName(name) => Some(ExpectedName::Dns(name.to_owned())),
        ServerName::IpAddress(ip) => Some(ExpectedName::Ip((*ip).into())),
        _ => None,
    }
}

/// Distinguishes expected names; DNS names in lower case, since their case does not matter.
pub(super) fn digest(name: &ExpectedName) -> Sha256 {
    let mut fields = Fields::new();
    match name {
        ExpectedName::Dns(name) => fields.add("dns", name.as_ref().to_ascii_lowercase().as_bytes()),
        ExpectedName::Ip(ip) => fields.add("ip", ip.to_string().as_bytes()),
        ExpectedName::Uri(uri) => fields.add("uri", uri.as_bytes()),
        ExpectedName::CommonName(name) => fields.add("cn", name.as_bytes()),
        ExpectedName::OrganizationalUnit(name) => fields.add("ou", name.as_bytes()),
    }
    fields.finish()
}

pub(super) fn is(presented: &SubjectName, expected: &ExpectedName) -> bool {
    match (presented, expected) {
        (SubjectName::Dns(presented), ExpectedName::Dns(expected)) => covers(presented, expected),
        (SubjectName::Ip(presented), ExpectedName::Ip(expected)) => presented == expected,
        (SubjectName::Uri(presented), ExpectedName::Uri(expected)) => presented == expected,
        _ => false,
    }
}

/// Whether a common name is the expected name. Only where the certificate itself is trusted: a common
/// name is free text, and no authority promises that it is a host's name.
pub(super) fn common_name_is(common_name: &str, expected: &ExpectedName) -> bool {
    match expected {
        ExpectedName::Dns(expected) => covers(common_name, expected),
        ExpectedName::Ip(expected) => common_name.parse::<IpAddr>().is_ok_and(|ip| ip == *expected),
        ExpectedName::Uri(_) | ExpectedName::CommonName(_) | ExpectedName::OrganizationalUnit(_) => false,
    }
}

/// Whether the DNS name of a certificate covers a host. A wildcard is the whole leftmost label, stands
/// for exactly one label, and at least two follow it.
pub(crate) fn covers(presented: &str, host: &DnsName<'_>) -> bool {
    // The root's dot at the end of a host says "no search list", and is no part of its name here.
    let host = host.as_ref().strip_suffix('.').unwrap_or_else(|| host.as_ref());
    match presented.strip_prefix("*.") {
        None => !presented.contains('*') && presented.eq_ignore_ascii_case(host),
        Some(rest) => {
            let is_domain = rest.contains('.') && !rest.starts_with('.') && !rest.contains('*');
            let host_rest = host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, rest)| rest);
            is_domain && host_rest.is_some_and(|host_rest| host_rest.eq_ignore_ascii_case(rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use webpki::EndEntityCert;

    use super::*;

    fn host(name: &str) -> DnsName<'static> {
        DnsName::try_from(name.to_owned()).expect("a host name")
    }

    #[test]
    fn a_wildcard_is_one_whole_leftmost_label() {
        assert!(covers("*.example.com", &host("a.example.com")));
        assert!(covers("*.EXAMPLE.com", &host("A.example.com.")));
        assert!(covers("a_b.example.com", &host("a_b.example.com")));
        for (presented, name) in [
            ("*.example.com", "example.com"),
            ("*.example.com", "a.b.example.com"),
            ("a*.example.com", "ab.example.com"),
            ("a.*.example.com", "a.b.example.com"),
            ("*.*.example.com", "a.b.example.com"),
            ("*.com", "example.com"),
            ("*", "example"),
            ("*.", "example"),
        ] {
            assert!(!covers(presented, &host(name)), "{presented} covers {name}");
        }
    }

    fn label() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{1,2}", Just("*".to_owned()), Just("A".to_owned()), Just("a*".to_owned())]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// For a pinned certificate, names are matched as webpki matches them for a chain.
        #[test]
        fn names_are_matched_as_webpki_does(
            presented in proptest::collection::vec(label(), 1..5),
            name in proptest::collection::vec("[abAB]{1,2}", 1..5),
        ) {
            let presented = presented.join(".");
            let name = host(&name.join("."));
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::default();
            params.subject_alt_names = vec![rcgen::SanType::DnsName(presented.clone().try_into().expect("ASCII"))];
            let certificate = params.self_signed(&key).expect("a certificate");
            let webpki = EndEntityCert::try_from(certificate.der()).expect("it is read");
            let oracle = webpki.verify_is_valid_for_subject_name(&ServerName::DnsName(name.clone())).is_ok();
            prop_assert_eq!(covers(&presented, &name), oracle, "{} for {:?}", presented, name);
        }

        #[test]
        fn no_name_makes_the_matcher_panic(presented in any::<String>(), name in "[a-z.]{1,9}") {
            if let Ok(name) = DnsName::try_from(name) {
                covers(&presented, &name);
            }
        }
    }
}
