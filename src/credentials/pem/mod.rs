//! PEM (RFC 7468, read leniently): which sections a file holds, and their bytes.
//!
//! Read here and not by a library, since the label and the line of every section matter: a key that is encrypted in
//! OpenSSL's old way, or a certificate where a key should be, is reported by name. A marker that is not quite one is an
//! error and never text between sections: the text after it would be lost in silence.

mod base64;
mod text;

use self::base64::Base64;
pub(crate) use self::text::decoded;
use crate::secret::Secret;

/// One `-----BEGIN LABEL-----` section.
#[derive(Debug)]
pub struct Section {
    pub(crate) label: String,
    /// The decoded bytes: they may be a key.
    pub body: Secret,
    /// Has a `Proc-Type: 4,ENCRYPTED` header (RFC 1421): the body is ciphertext in OpenSSL's old format.
    pub(crate) old_encryption: bool,
    /// The line of its BEGIN, from 1.
    pub(crate) line: usize,
}

/// Why a text is not PEM, with the number of the line (from 1) at fault.
#[allow(missing_docs, reason = "the text that it displays is the documentation")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {0}: this section has no END line")]
    Unended(usize),
    #[error("line {0}: this END line has no BEGIN line before it")]
    Unbegun(usize),
    #[error("line {0}: the END line names another section than its BEGIN line")]
    Mismatched(usize),
    #[error("line {0}: not base64")]
    NotBase64(usize),
    #[error("line {0}: neither a BEGIN nor an END line: both have five dashes, capitals, and five dashes")]
    BadMarker(usize),
    #[error("it begins like UTF-16, and is not: save it as UTF-8")]
    NotUtf16,
}

/// Every section in the order of the file; text around them is skipped.
pub fn sections(bytes: &[u8]) -> Result<Vec<Section>, Error> {
    let text = decoded(bytes)?;
    let mut reader = Reader::default();
    for (number, line) in text::lines(&text) {
        reader.line(number, line)?;
    }
    match reader.open {
        Some(open) => Err(Error::Unended(open.line)),
        None => Ok(reader.found),
    }
}

/// Whether these bytes are a text with a PEM section in it, or with something that is meant as one.
pub(crate) fn is_pem(bytes: &[u8]) -> bool {
    match decoded(bytes) {
        Ok(text) => text::lines(&text).any(|(_, line)| {
            let line = text::unmarked(line).trim_ascii();
            !line.starts_with(b"#") && (next_marker(line).is_some() || is_like_a_marker(line))
        }),
        Err(_) => true,
    }
}

#[derive(Default)]
struct Reader {
    found: Vec<Section>,
    open: Option<Open>,
}

struct Open {
    label: Vec<u8>,
    line: usize,
    base64: Base64,
    old_encryption: bool,
}

impl Reader {
    /// Markers may be glued together (files without a newline at their end, appended to each other), and a whole section
    /// may be one line (a variable of the environment).
    fn line(&mut self, number: usize, line: &[u8]) -> Result<(), Error> {
        let mut rest = text::unmarked(line).trim_ascii();
        if self.open.is_none() && rest.starts_with(b"#") {
            return Ok(());
        }
        while let Some(marker) = next_marker(rest) {
            self.text(number, &rest[..marker.start])?;
            self.marker(number, &marker)?;
            rest = text::unmarked(&rest[marker.end..]);
        }
        self.text(number, rest)
    }

    fn text(&mut self, number: usize, text: &[u8]) -> Result<(), Error> {
        if is_like_a_marker(text.trim_ascii()) {
            return Err(Error::BadMarker(number));
        }
        match &mut self.open {
            Some(open) => open.text(text).ok_or(Error::NotBase64(number)),
            None => Ok(()),
        }
    }

    fn marker(&mut self, number: usize, marker: &Marker<'_>) -> Result<(), Error> {
        match (self.open.take(), marker.begins) {
            (Some(open), true) => Err(Error::Unended(open.line)),
            (None, true) => {
                self.open = Some(Open::new(marker.label, number));
                Ok(())
            }
            (None, false) => Err(Error::Unbegun(number)),
            (Some(open), false) if open.label != marker.label => Err(Error::Mismatched(number)),
            (Some(open), false) => {
                self.found.push(open.section().ok_or(Error::NotBase64(number))?);
                Ok(())
            }
        }
    }
}

impl Open {
    fn new(label: &[u8], line: usize) -> Self {
        Self { label: label.to_vec(), line, base64: Base64::new(), old_encryption: false }
    }

    /// Headers (RFC 1421) stand before the base64, which has no colon.
    fn text(&mut self, text: &[u8]) -> Option<()> {
        if !(self.base64.is_empty() && text.contains(&b':')) {
            return self.base64.push(text);
        }
        self.old_encryption |= text.starts_with(b"Proc-Type:") && text.windows(9).any(|word| word == b"ENCRYPTED");
        Some(())
    }

    fn section(self) -> Option<Section> {
        let Self { label, line, base64, old_encryption } = self;
        let label = String::from_utf8_lossy(&label).into_owned();
        Some(Section { label, body: Secret::new(base64.finish()?), old_encryption, line })
    }
}

struct Marker<'a> {
    begins: bool,
    label: &'a [u8],
    start: usize,
    end: usize,
}

const DASHES: &[u8] = b"-----";

fn next_marker(line: &[u8]) -> Option<Marker<'_>> {
    (0..line.len()).filter(|start| line[*start..].starts_with(DASHES)).find_map(|start| marker_at(line, start))
}

/// Labels are words of printable ASCII with single blanks or dashes between them (RFC 7468 section 3).
fn marker_at(line: &[u8], start: usize) -> Option<Marker<'_>> {
    let rest = &line[start + DASHES.len()..];
    let (begins, rest) = match (rest.strip_prefix(b"BEGIN "), rest.strip_prefix(b"END ")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return None,
    };
    let length = rest.windows(DASHES.len()).position(|window| window == DASHES)?;
    let label = &rest[..length];
    let is_label = !label.is_empty() && label.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let end = line.len() - rest.len() + length + DASHES.len();
    is_label.then_some(Marker { begins, label, start, end })
}

/// Two dashes or more (also those that a word processor makes of them), then BEGIN or END: a marker that lost a dash,
/// or its capitals.
fn is_like_a_marker(text: &[u8]) -> bool {
    let Some(word) = text.iter().position(u8::is_ascii_alphanumeric) else { return false };
    let (dashes, rest) = text.split_at(word);
    let is_dash = |byte: &&u8| **byte == b'-' || !byte.is_ascii();
    let first = rest.split(|byte| !byte.is_ascii_alphanumeric()).next().unwrap_or_default();
    let is_word = [&b"BEGIN"[..], b"END"].iter().any(|word| first.eq_ignore_ascii_case(word));
    dashes.iter().filter(is_dash).count() >= 2 && is_word
}

#[cfg(test)]
mod tests;
