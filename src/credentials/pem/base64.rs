//! Base64 (RFC 4648 section 4) in pieces, without white space, into memory that is wiped.
//!
//! The crate decodes; what comes before it is ours: a wrong byte is reported with its line, and the text of a key stays in
//! memory that is wiped.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// The text of one section, without white space.
pub(super) struct Base64 {
    text: Zeroizing<Vec<u8>>,
}

/// More than any key has (RSA of 8192 bits: 6.4 KiB as text): a vector that grows leaves copies behind.
const ROOM: usize = 11 << 10;

/// As other readers of PEM, it ignores bits after the last byte.
const ENGINE: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

impl Base64 {
    pub(super) fn new() -> Self {
        Self { text: Zeroizing::new(Vec::with_capacity(ROOM)) }
    }

    /// Nothing but white space has come so far.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// `None`: a byte that base64 does not have, or one after its end.
    pub(super) fn push(&mut self, text: &[u8]) -> Option<()> {
        for byte in text.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            let has_ended = self.text.last() == Some(&b'=');
            if *byte != b'=' && (has_ended || !(byte.is_ascii_alphanumeric() || b"+/".contains(byte))) {
                return None;
            }
            self.text.push(*byte);
        }
        Some(())
    }

    pub(super) fn finish(self) -> Option<Vec<u8>> {
        let mut decoded = Zeroizing::new(vec![0; self.text.len() / 4 * 3 + 3]);
        let length = ENGINE.decode_slice(&*self.text, &mut decoded).ok()?;
        decoded.truncate(length);
        Some(std::mem::take(&mut *decoded))
    }
}
