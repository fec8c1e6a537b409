//! Errors of libraries in words: rustls, webpki, the DER readers and the resolver name many of their errors by the
//! identifier of an enum's variant, which an operator cannot read.

use std::fmt::{Debug, Display, Write};

use rustls::AlertDescription;

/// Most characters of a library's text that are shown: it may hold bytes of a peer.
const LONGEST: usize = 120;

/// Abbreviations inside the identifiers of these libraries, and what they are short for.
const ABBREVIATIONS: &[(&str, &str)] = &[
    ("ca", "CA"),
    ("ccs", "change cipher spec"),
    ("cert", "certificate"),
    ("crl", "CRL"),
    ("der", "DER"),
    ("dh", "DH"),
    ("dns", "DNS"),
    ("ec", "EC"),
    ("ech", "ECH"),
    ("eku", "extended key usage"),
    ("ems", "extended master secret"),
    ("ext", "extension"),
    ("id", "ID"),
    ("ids", "IDs"),
    ("kx", "key exchange"),
    ("len", "length"),
    ("ocsp", "OCSP"),
    ("psk", "PSK"),
    ("quic", "QUIC"),
    ("sct", "SCT"),
    ("sig", "signature"),
    ("tls", "TLS"),
    ("tls12", "TLS 1.2"),
    ("tls13", "TLS 1.3"),
];

/// The name of a variant, without what it holds: `MissingData("x")` is "missing data".
pub(crate) fn variant(error: &dyn Debug) -> String {
    let shown = format!("{error:?}");
    let name = shown.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or_default();
    words(name)
}

/// A library's sentence, with its identifiers written as words; the content of a variant with named fields is left out.
pub(crate) fn sentence(error: &dyn Display) -> String {
    let shown = error.to_string();
    let shown = shown.split(" { ").next().unwrap_or_default();
    let mut text = String::with_capacity(shown.len());
    for token in shown.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric()) {
        let word = token.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
        text.push_str(&if is_identifier(word) { words(word) } else { word.to_owned() });
        text.push_str(&token[word.len()..]);
    }
    text.chars().take(LONGEST).collect()
}

pub(crate) fn alert(alert: AlertDescription) -> String {
    let number = u8::from(alert);
    match alert.as_str() {
        // The spelling of RFC 6066.
        Some("UnrecognisedName") => format!("{number} unrecognized_name"),
        Some(name) => format!("{number} {}", parts(name).join("_")),
        None => number.to_string(),
    }
}

/// Begins with a letter, as a date does not, and has a capital letter behind a small one or a digit.
pub(crate) fn is_identifier(word: &str) -> bool {
    let begins = word.starts_with(|letter: char| letter.is_ascii_alphabetic());
    begins && word.as_bytes().windows(2).any(|pair| !pair[0].is_ascii_uppercase() && pair[1].is_ascii_uppercase())
}

fn words(identifier: &str) -> String {
    let mut text = String::new();
    for part in parts(identifier) {
        let known = ABBREVIATIONS.iter().find(|(short, _)| *short == part);
        let separator = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{separator}{}", known.map_or(part.as_str(), |(_, long)| long));
    }
    text
}

/// `UnknownPSKIdentity` is "unknown", "psk", "identity".
fn parts(identifier: &str) -> Vec<String> {
    let letters: Vec<char> = identifier.chars().collect();
    let mut parts = vec![String::new()];
    for (at, letter) in letters.iter().enumerate() {
        let behind_small = at > 0 && !letters[at - 1].is_uppercase();
        let before_small = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if at > 0 && letter.is_uppercase() && (behind_small || before_small) {
            parts.push(String::new());
        }
        parts.last_mut().expect("there is a first part").push(letter.to_ascii_lowercase());
    }
    parts
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, InvalidMessage, PeerMisbehaved};

    use super::*;

    #[test]
    fn identifiers_become_words() {
        for (identifier, words) in [
            (&PeerMisbehaved::SelectedUnofferedKxGroup as &dyn Debug, "selected unoffered key exchange group"),
            (
                &PeerMisbehaved::SelectedTls12UsingTls13VersionExtension,
                "selected TLS 1.2 using TLS 1.3 version extension",
            ),
            (&InvalidMessage::MissingData("EncryptedExtensions"), "missing data"),
            (&webpki::Error::BadDer, "bad DER"),
            (&webpki::Error::CaUsedAsEndEntity, "CA used as end entity"),
        ] {
            assert_eq!(variant(identifier), words);
        }
    }

    #[test]
    fn sentences_keep_what_is_no_identifier() {
        let corrupt = rustls::Error::InvalidMessage(InvalidMessage::MissingData("ServerHello"));
        let unsupported = CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: vec![6, 9],
            supported_algorithms: Vec::new(),
        };
        for (error, expected) in [
            (&corrupt as &dyn Display, "received corrupt message of type missing data(\"server hello\")"),
            (&rustls::Error::from(unsupported), "invalid peer certificate: unsupported signature algorithm context"),
            (&"io error: Connection refused (os error 111)", "io error: Connection refused (os error 111)"),
            (&"expired on 1970-01-01T00:00:01Z", "expired on 1970-01-01T00:00:01Z"),
            (
                &"no DNS server of PLAIN.EXAMPLE.COM answers TLS 1.3",
                "no DNS server of PLAIN.EXAMPLE.COM answers TLS 1.3",
            ),
        ] {
            assert_eq!(sentence(error), expected);
        }
        assert_eq!(sentence(&"long ".repeat(1_000)).len(), LONGEST);
    }

    #[test]
    fn every_alert_has_the_name_of_its_registry() {
        for (number, name) in [
            (40, "40 handshake_failure"),
            (42, "42 bad_certificate"),
            (48, "48 unknown_ca"),
            (112, "112 unrecognized_name"),
            (115, "115 unknown_psk_identity"),
            (200, "200"),
        ] {
            assert_eq!(alert(AlertDescription::from(number)), name);
        }
        for number in 0..=u8::MAX {
            let name = alert(AlertDescription::from(number));
            assert!(!name.contains(|letter: char| letter.is_uppercase()), "{name}");
        }
    }
}
