//! PKCS#7 bundles (RFC 2315, RFC 5652 section 5): certificates and lists without a message, as Windows exports them.

use super::super::certificate::element;

/// The contents of a bundle, each in DER, in no order.
pub(super) struct Bundle {
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) crls: Vec<Vec<u8>>,
}

/// 1.2.840.113549.1.7.2, as DER.
const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const SEQUENCE: u8 = 0x30;
/// Tags of SignedData's optional sets: `[0]` holds the certificates, `[1]` the lists.
const CERTIFICATES: u8 = 0xa0;
const CRLS: u8 = 0xa1;

pub(super) fn is_signed_data(der: &[u8]) -> bool {
    element(der).is_some_and(|(_, content, _)| der[0] == SEQUENCE && content.starts_with(SIGNED_DATA))
}

/// `None`: it is not well-formed, or not DER (BER of indefinite length).
pub(super) fn read(der: &[u8]) -> Option<Bundle> {
    let (_, content, behind) = element(der)?;
    let (_, _, explicit) = element(content)?;
    let (_, signed_data, _) = element(explicit)?;
    let (_, mut rest, _) = element(signed_data)?;
    // Version, digest algorithms, content.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let mut bundle = Bundle { certificates: Vec::new(), crls: Vec::new() };
    while let Some((_, content, next)) = element(rest) {
        match rest[0] {
            CERTIFICATES => bundle.certificates = elements(content)?,
            CRLS => bundle.crls = elements(content)?,
            _ => {}
        }
        rest = next;
    }
    (rest.is_empty() && behind.trim_ascii().is_empty()).then_some(bundle)
}

fn elements(mut content: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    while !content.is_empty() {
        let (whole, _, rest) = element(content)?;
        found.push(whole.to_vec());
        content = rest;
    }
    Some(found)
}
