//! Servers that speak first, in lines: reads one reply after another.

use bytes::{Bytes, BytesMut};

use super::exchange::{Exchange, ServerRefusal, Step};

/// Bytes. Reply lines have at most 512 in SMTP, NNTP and POP3 (RFC 5321 section 4.5.3.1.5, RFC 3977 section 3.1,
/// RFC 2449 section 4); lists of capabilities in IMAP are longer.
pub(super) const LONGEST_LINE: usize = 2048;

/// Bytes. Banners of several lines and replies to EHLO have about 1 KiB.
pub(super) const LONGEST_REPLY: usize = 8192;

/// What a protocol makes of whole replies.
/// Replies have a code unless a dialogue says otherwise.
pub(super) trait Dialogue {
    /// Whether a reply may begin with this byte. A server of another protocol may send a byte and no line.
    fn may_begin(&self, first: u8) -> bool {
        matches!(first, b'2'..=b'5')
    }

    /// Whether these whole lines, at least one, are a whole reply.
    fn is_whole(&self, lines: &[u8]) -> bool {
        is_whole_with_code(lines)
    }

    /// The next request, or the end.
    fn next(&mut self, reply: &[u8]) -> Step<Bytes, ServerRefusal>;
}

/// The side towards a server that speaks first, in lines.
pub(super) struct LineServer<D> {
    dialogue: D,
    /// Bytes of the input in which the end of the reply was not found.
    searched: usize,
}

impl<D: Dialogue> LineServer<D> {
    pub(super) fn new(dialogue: D) -> Self {
        Self { dialogue, searched: 0 }
    }

    /// The length of the reply at the start of `input`; `None` if it is not whole.
    fn reply(&mut self, input: &[u8]) -> Result<Option<usize>, ServerRefusal> {
        if let Some(first) = input.first().filter(|first| !self.dialogue.may_begin(**first)) {
            return Err(ServerRefusal::NotTheProtocol(*first));
        }
        loop {
            let line = &input[self.searched..];
            let end = line.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n');
            let reached = self.searched + end.map_or(line.len(), |end| end + 1);
            if (end.is_none() && line.len() >= LONGEST_LINE) || reached > LONGEST_REPLY {
                return Err(ServerRefusal::TooLong);
            }
            match end {
                Some(_) => self.searched = reached,
                // One more byte would be too much.
                None if reached == LONGEST_REPLY => return Err(ServerRefusal::TooLong),
                None => return Ok(None),
            }
            if self.dialogue.is_whole(&input[..reached]) {
                self.searched = 0;
                return Ok(Some(reached));
            }
        }
    }
}

impl<D: Dialogue> Exchange for LineServer<D> {
    type Outcome = Bytes;
    type Refusal = ServerRefusal;

    fn step(&mut self, input: &mut BytesMut) -> Step<Bytes, ServerRefusal> {
        let length = match self.reply(input) {
            Ok(Some(length)) => length,
            Ok(None) => return Step::Read(LONGEST_REPLY - input.len()),
            Err(refusal) => return Step::Refuse(refusal),
        };
        let reply = input.split_to(length);
        match self.dialogue.next(&reply) {
            Step::Refuse(refusal) => Step::Refuse(refusal),
            // A server waits for the next request, so bytes behind its reply are injected. Mail clients took them for the
            // first reply of the protected session (CVE-2020-14954).
            _ if !input.is_empty() => Step::Refuse(ServerRefusal::Injection),
            step => step,
        }
    }
}

/// The code of three digits that begins a reply of SMTP, FTP and NNTP.
pub(super) fn code(reply: &[u8]) -> Option<u16> {
    let digits = reply.get(..3)?.iter().all(u8::is_ascii_digit);
    let ends = matches!(reply.get(3), None | Some(b' ' | b'-' | b'\r' | b'\n'));
    std::str::from_utf8(&reply[..3]).ok().filter(|_| digits && ends)?.parse().ok()
}

/// As [`Dialogue::is_whole`], for replies with a code: several lines begin with the code and a hyphen, and end with the
/// line that begins with the same code and a space (RFC 959 section 4.2; RFC 5321 section 4.2.1 is narrower).
fn is_whole_with_code(lines: &[u8]) -> bool {
    let body = lines.strip_suffix(b"\n").unwrap_or(lines);
    let last = body.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    code(lines).is_none() || lines.get(3) != Some(&b'-') || (last[..].get(..3) == lines.get(..3) && is_last(last))
}

fn is_last(line: &[u8]) -> bool {
    matches!(line.get(3), None | Some(b' ' | b'\r'))
}

/// Lines without their ends.
pub(super) fn lines(reply: &[u8]) -> impl Iterator<Item = &[u8]> {
    reply.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}
