//! Text of a server that is not authenticated yet.

use bytes::Bytes;

use super::exchange::{ServerError, ServerRefusal};
use crate::escape;

/// Characters of it that are shown.
pub(super) const MAX_SHOWN: usize = 200;

/// Bounded, with invisible characters escaped; lines are joined.
pub(super) fn shown(bytes: &[u8]) -> String {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join(&b"; "[..]);
    let mut shown = String::new();
    String::from_utf8_lossy(&text).chars().take(MAX_SHOWN).for_each(|letter| escape::push(&mut shown, letter));
    if shown.is_empty() { "no text".to_owned() } else { shown }
}

/// A reply that is an error: clients of the protocol understand it in place of a greeting too.
pub(super) fn error(reply: &[u8]) -> ServerRefusal {
    ServerRefusal::Error(ServerError { text: shown(reply), message: Bytes::copy_from_slice(reply) })
}

/// As `windows(..).any(..)`, without regard to the case of ASCII letters.
pub(super) fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// Without regard to the case of ASCII letters.
pub(super) fn begins(bytes: &[u8], word: &str) -> bool {
    bytes.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
}
