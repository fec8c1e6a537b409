//! Digests: pins of public keys, and a certificate named by its fingerprint.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::config::formats::word::Location;
use crate::config::problems::quote;
use crate::config::read::{Fault, Text};

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `sha256:HEX`, the form that `trust.NAME.certificate` takes.
pub fn labelled_hex(digest: &[u8; 32]) -> String {
    format!("sha256:{}", hex(digest))
}

/// The SHA-256 of a SubjectPublicKeyInfo, in the form of RFC 7469 without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin(pub [u8; 32]);

impl Text for Pin {
    const EXAMPLES: &'static [&'static str] = &["sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="];

    fn parse(text: &str) -> Result<Self, Fault> {
        let digest = text.strip_prefix("sha256/").and_then(|base64| BASE64_STANDARD.decode(base64).ok());
        digest.and_then(|digest| digest.try_into().ok()).map(Self).ok_or_else(|| {
            let title = format!("{} is not a pin", quote(text));
            let repair = "write \"sha256/\" and the base64 of the SHA-256 of the server's public key (44 characters)";
            Fault::new(title, "not a pin", repair)
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateText {
    File(Location),
    /// The SHA-256 of its DER encoding.
    Sha256([u8; 32]),
}

impl Text for CertificateText {
    const EXAMPLES: &'static [&'static str] =
        &["server.pem", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"];

    fn parse(text: &str) -> Result<Self, Fault> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            return Location::parse(text).map(Self::File);
        };
        // `openssl x509 -fingerprint` puts colons between the bytes.
        unhex(&hex.replace(':', "")).map(Self::Sha256).ok_or_else(|| {
            let title = format!("{} is not a SHA-256 fingerprint", quote(hex));
            let repair =
                "write 64 hexadecimal digits after `sha256:` (`openssl x509 -noout -fingerprint -sha256` prints them)";
            Fault::new(title, "not 64 hexadecimal digits", repair)
        })
    }
}

fn unhex(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_may_have_colons() {
        let colons = format!("sha256:{}AB", "ab:".repeat(31));
        assert_eq!(CertificateText::parse(&colons), Ok(CertificateText::Sha256([0xab; 32])));
        assert!(CertificateText::parse("sha256:é").is_err());
    }

    #[test]
    fn pins_have_the_length_of_the_digest() {
        assert!(Pin::parse(Pin::EXAMPLES[0]).is_ok());
        assert!(Pin::parse("sha256/AAAA").is_err());
        assert!(Pin::parse("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=").is_err());
    }
}
