//! PEM (RFC 7468, read leniently): which sections a file holds, and their bytes.
//!
//! Read here and not by a library, since the label of every section matters: a key that is encrypted in
//! OpenSSL's old way, or a certificate where a key should be, has to be told by name.

use zeroize::Zeroizing;

use crate::secret::Secret;

/// One `-----BEGIN LABEL-----` section.
#[derive(Debug)]
pub struct Section {
    /// The text after BEGIN.
    pub label: String,
    /// The decoded bytes: they may be a key.
    pub body: Secret,
    /// Has a `Proc-Type: 4,ENCRYPTED` header (RFC 1421): the body is ciphertext in OpenSSL's old format.
    pub old_encryption: bool,
}

/// Why a text is not PEM, with the line (from 1) where it stops being so.
#[allow(missing_docs, reason = "the text that it displays is the documentation")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {0}: this section has no END line")]
    Unended(usize),
    #[error("line {0}: the END line names another section than its BEGIN line")]
    Mismatched(usize),
    #[error("line {0}: not base64")]
    NotBase64(usize),
}

/// Every section in the order of the file; text around them is skipped.
pub fn sections(text: &[u8]) -> Result<Vec<Section>, Error> {
    let mut lines = text.split(|byte| *byte == b'\n').enumerate();
    let mut found = Vec::new();
    while let Some((index, line)) = lines.next() {
        if let Some(label) = marker(line, b"-----BEGIN ") {
            found.push(section(label, index + 1, &mut lines)?);
        }
    }
    Ok(found)
}

/// Whether there is a PEM section in these bytes at all.
pub fn is_pem(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').any(|line| marker(line, b"-----BEGIN ").is_some())
}

type Lines<'a> = dyn Iterator<Item = (usize, &'a [u8])> + 'a;

fn section(label: &[u8], begin: usize, lines: &mut Lines<'_>) -> Result<Section, Error> {
    let mut base64 = Base64::new();
    let mut old_encryption = false;
    for (index, line) in lines {
        if let Some(end) = marker(line, b"-----END ") {
            if end != label {
                return Err(Error::Mismatched(index + 1));
            }
            let label = String::from_utf8_lossy(label).into_owned();
            let body = Secret::new(base64.finish().ok_or(Error::NotBase64(index + 1))?);
            return Ok(Section { label, body, old_encryption });
        }
        if line.contains(&b':') {
            old_encryption |= line.starts_with(b"Proc-Type:") && line.windows(9).any(|word| word == b"ENCRYPTED");
        } else {
            base64.push(line).ok_or(Error::NotBase64(index + 1))?;
        }
    }
    Err(Error::Unended(begin))
}

fn marker<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    line.trim_ascii().strip_prefix(start)?.strip_suffix(b"-----")
}

/// A decoder of base64 (RFC 4648 section 4) that takes the text in pieces and skips white space.
struct Base64 {
    decoded: Zeroizing<Vec<u8>>,
    bits: u32,
    sextets: u8,
    padding: u8,
}

/// More than any key has (RSA of 8192 bits: 4.8 KiB): a vector that grows leaves copies behind.
const ROOM: usize = 8 << 10;

impl Base64 {
    fn new() -> Self {
        Self { decoded: Zeroizing::new(Vec::with_capacity(ROOM)), bits: 0, sextets: 0, padding: 0 }
    }

    fn push(&mut self, text: &[u8]) -> Option<()> {
        for byte in text.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            if *byte == b'=' {
                self.padding = self.padding.checked_add(1).filter(|padding| *padding <= 2)?;
                continue;
            }
            if self.padding > 0 {
                return None;
            }
            self.bits = self.bits << 6 | u32::from(sextet(*byte)?);
            self.sextets += 1;
            if self.sextets == 4 {
                self.decoded.extend_from_slice(&self.bits.to_be_bytes()[1..]);
                (self.bits, self.sextets) = (0, 0);
            }
        }
        Some(())
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        let rest = match (self.sextets, self.padding) {
            (0, 0) => 0,
            (2, 2) => 1,
            (3, 1) => 2,
            _ => return None,
        };
        let bits = self.bits << (6 * (4 - u32::from(self.sextets)) % 24);
        self.decoded.extend_from_slice(&bits.to_be_bytes()[1..1 + rest]);
        Some(std::mem::take(&mut *self.decoded))
    }
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_in_order_and_text_between_is_skipped() {
        let text = b"subject=x\r\n-----BEGIN A-----\r\nZm9v\r\nYmE=\r\n-----END A-----\r\n\n-----BEGIN B-----\nZg==\n-----END B-----";
        let found = sections(text).expect("it is PEM");
        let found: Vec<_> = found.iter().map(|section| (section.label.as_str(), section.body.expose())).collect();
        assert_eq!(found, [("A", &b"fooba"[..]), ("B", b"f")]);
    }

    #[test]
    fn damage_is_told_by_line() {
        assert_eq!(sections(b"\n-----BEGIN A-----\nZm9v").unwrap_err(), Error::Unended(2));
        assert_eq!(sections(b"-----BEGIN A-----\nZm9v\n-----END B-----").unwrap_err(), Error::Mismatched(3));
        assert_eq!(sections(b"-----BEGIN A-----\nZm_v\n-----END A-----").unwrap_err(), Error::NotBase64(2));
        assert_eq!(sections(b"-----BEGIN A-----\nZm9vZ\n-----END A-----").unwrap_err(), Error::NotBase64(3));
    }

    #[test]
    fn old_encryption_is_seen() {
        let text = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nZm9v\n-----END RSA PRIVATE KEY-----\n";
        assert!(sections(text).expect("it is PEM")[0].old_encryption);
    }
}
