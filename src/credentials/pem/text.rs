//! Text as editors and shells of other systems write it: byte order marks, UTF-16, other ends of lines.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::Error;

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text in UTF-8, without the byte order mark in front. It may be a key or a password: what is decoded is wiped.
pub(crate) fn decoded(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        // Without a mark: five dashes begin a section, and no other encoding has a zero octet beside each.
        [b'-', 0, b'-', 0, ..] => utf16(bytes, u16::from_le_bytes),
        [0, b'-', 0, b'-', ..] => utf16(bytes, u16::from_be_bytes),
        _ => Ok(Cow::Borrowed(unmarked(bytes))),
    }
}

fn utf16<'a>(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<Cow<'a, [u8]>, Error> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text: Result<Zeroizing<String>, _> =
        char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect::<Result<String, _>>().map(Zeroizing::new);
    match text {
        Ok(text) if rest.is_empty() => Ok(Cow::Owned(text.as_bytes().to_vec())),
        _ => Err(Error::NotUtf16),
    }
}

/// Without the mark that a file began with, before it was appended to another.
pub(super) fn unmarked(line: &[u8]) -> &[u8] {
    line.strip_prefix(UTF8_MARK).unwrap_or(line)
}

/// Lines with their numbers from 1. They end with LF (Unix), CR LF (Windows) or CR.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = Some(text);
    let lines = std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            rest = None;
            return Some(text);
        };
        let width = if text[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = Some(&text[end + width..]);
        Some(&text[..end])
    });
    lines.enumerate().map(|(index, line)| (index + 1, line))
}
