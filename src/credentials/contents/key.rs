//! Private keys by what they are, whatever label they came under.

use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use x509_parser::asn1_rs::Sequence;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AlgorithmIdentifier;

use crate::credentials::certificate::element;
use crate::secret::Secret;
use crate::wording;

#[derive(Debug)]
pub(crate) struct Key {
    /// Of its PEM section; empty in DER.
    pub(crate) label: String,
    pub(crate) der: Secret,
    /// Sealed in OpenSSL's old format (RFC 1421 headers).
    pub(crate) old_encryption: bool,
}

/// Why a key cannot be used: what it is instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unusable(pub(crate) String);

impl Key {
    /// It is sealed as PKCS#8 does it (RFC 5958 section 3), whatever its label.
    pub(crate) fn is_sealed(&self) -> bool {
        is_encrypted(self.der.expose())
    }

    /// The key, by its structure: tools write PKCS#8 under the labels of PKCS#1 and SEC1, and the other way round.
    ///
    /// # Errors
    /// What it is, if it is of a kind that cannot sign here.
    pub(crate) fn open(&self) -> Result<PrivateKeyDer<'_>, Unusable> {
        let der = self.der.expose();
        let by_label = match self.label.as_str() {
            "DSA PRIVATE KEY" => Some("a DSA key, which TLS has no signatures for"),
            "OPENSSH PRIVATE KEY" => Some("in OpenSSH's own format: convert it with `ssh-keygen -p -m PKCS8 -f FILE`"),
            _ => None,
        };
        if let Some(what) = by_label {
            return Err(Unusable(format!("it is {what}")));
        }
        let key = PrivateKeyDer::try_from(der).map_err(|_| Unusable("it is no key that is known here".into()))?;
        match any_supported_type(&key) {
            Ok(_) => Ok(key),
            Err(error) => Err(Unusable(described(&key).unwrap_or_else(|| wording::sentence(&error)))),
        }
    }
}

pub(super) fn is_encrypted(der: &[u8]) -> bool {
    EncryptedPrivateKeyInfoRef::try_from(der).is_ok() || algorithm(der).is_some()
}

/// The algorithm that an EncryptedPrivateKeyInfo is sealed with, for those that the library does not even parse: the
/// password-based ones of PKCS#12 and of OpenSSL before 1.1.
pub(crate) fn algorithm(der: &[u8]) -> Option<String> {
    let (_, outer) = Sequence::from_der(der).ok()?;
    let (sealed, algorithm) = AlgorithmIdentifier::from_der(&outer.content).ok()?;
    (sealed.first() == Some(&OCTET_STRING)).then(|| algorithm.algorithm.to_id_string())
}

const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// Tag of the parameters of an ECPrivateKey (RFC 5915).
const EC_PARAMETERS: u8 = 0xa0;

fn described(key: &PrivateKeyDer<'_>) -> Option<String> {
    match key {
        PrivateKeyDer::Pkcs1(_) => {
            Some("it is an RSA key of fewer than 2048 bits or more than 8192, or damaged".into())
        }
        PrivateKeyDer::Sec1(key) => curve(sec1_parameters(key.secret_sec1_der())?),
        PrivateKeyDer::Pkcs8(key) => pkcs8(key.secret_pkcs8_der()),
        _ => None,
    }
}

fn pkcs8(der: &[u8]) -> Option<String> {
    let (_, content, _) = element(der)?;
    let (_, _, rest) = element(content)?;
    let (whole, algorithm, _) = element(rest)?;
    let (_, identifier) = AlgorithmIdentifier::from_der(whole).ok()?;
    let name = match identifier.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => "an RSA key of fewer than 2048 bits or more than 8192, or damaged",
        "1.2.840.113549.1.1.10" => {
            "an RSA-PSS key (id-RSASSA-PSS): have a certificate issued for a plain RSA key, which signs by PSS too"
        }
        "1.2.840.10040.4.1" => "a DSA key, which TLS has no signatures for",
        "1.3.101.113" => "an Ed448 key, which is not supported",
        "1.3.101.110" | "1.3.101.111" => "a key for key agreement (X25519 or X448), which cannot sign",
        "1.2.840.10045.2.1" => return curve(element(algorithm)?.2),
        oid => return Some(format!("it is a key of the algorithm {oid}, which is not supported")),
    };
    Some(format!("it is {name}"))
}

fn sec1_parameters(der: &[u8]) -> Option<&[u8]> {
    let (_, mut rest, _) = element(der)?;
    // Version, private key.
    for _ in 0..2 {
        rest = element(rest)?.2;
    }
    element(rest).filter(|_| rest[0] == EC_PARAMETERS).map(|(_, parameters, _)| parameters)
}

/// A curve by name, or its numbers (`-param_enc explicit`), which no TLS library of today takes (RFC 5480, 2.1.1).
fn curve(parameters: &[u8]) -> Option<String> {
    let name = match *parameters.first()? {
        SEQUENCE => {
            return Some(
                "it is an EC key whose curve is given by its numbers, and not by name: convert it with \
                 `openssl ec -param_enc named_curve -in OLD -out NEW`, and have the certificate issued anew"
                    .into(),
            );
        }
        OID => x509_parser::asn1_rs::Oid::from_der(parameters).ok()?.1.to_id_string(),
        _ => return None,
    };
    let name = match name.as_str() {
        "1.2.840.10045.3.1.7" | "1.3.132.0.34" | "1.3.132.0.35" => return Some("it is a damaged EC key".into()),
        "1.3.132.0.10" => "secp256k1".to_owned(),
        "1.3.132.0.33" => "P-224".to_owned(),
        "1.2.840.10045.3.1.1" => "P-192".to_owned(),
        oid if oid.starts_with("1.3.36.3.3.2.8.1.1.") => "a Brainpool curve".to_owned(),
        oid => format!("the curve {oid}"),
    };
    Some(format!("it is an EC key on {name}; P-256, P-384 and P-521 are supported"))
}
