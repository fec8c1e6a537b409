//! Base64 (RFC 4648 section 4) in pieces, without white space, into memory that is wiped.

use zeroize::Zeroizing;

/// A decoder that takes the text in pieces and skips white space.
pub(super) struct Base64 {
    decoded: Zeroizing<Vec<u8>>,
    bits: u32,
    sextets: u8,
    padding: u8,
}

/// More than any key has (RSA of 8192 bits: 4.8 KiB): a vector that grows leaves copies behind.
const ROOM: usize = 8 << 10;

impl Base64 {
    pub(super) fn new() -> Self {
        Self { decoded: Zeroizing::new(Vec::with_capacity(ROOM)), bits: 0, sextets: 0, padding: 0 }
    }

    /// Nothing but white space has come so far.
    pub(super) fn is_empty(&self) -> bool {
        self.decoded.is_empty() && self.sextets == 0 && self.padding == 0
    }

    pub(super) fn push(&mut self, text: &[u8]) -> Option<()> {
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

    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
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
