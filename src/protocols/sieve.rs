//! ManageSieve (RFC 5804) with STARTTLS (section 2.2).
//!
//! A server announces its capabilities twice: as its greeting, and again inside TLS. The first announcement is not shown
//! to the client, which gets the second.

use std::borrow::Cow;

use bytes::Bytes;

use super::Protocol;
use super::answers::AnswerFormat;
use super::exchange::{ServerRefusal, Step};
use super::lines::{Dialogue, LineServer};
use super::text::{begins, error, shown};

pub(super) const PROTOCOL: Protocol = Protocol {
    word: "sieve",
    name: "ManageSieve",
    port: 4190,
    tls_port: None,
    max_idle_age: super::PATIENT,
    schemes: &["sieve"],
    stunnel: &[],
    client: None,
    server: |_| Box::new(LineServer::new(Server::default())),
    login: None,
    is_answer: |bytes| begins(bytes, "\"IMPLEMENTATION\""),
    limits: None,
    answer: Some(AnswerFormat::SIEVE),
    cancellation: None,
    alpn: None,
    server_with_tls: super::imap::PROTOCOL.server_with_tls,
};

const STARTTLS: &[u8] = b"STARTTLS\r\n";

#[derive(Default)]
struct Server {
    asked: bool,
}

impl Dialogue for Server {
    fn may_begin(&self, first: u8) -> bool {
        // A capability, as quoted string or literal; or the last line.
        matches!(first, b'"' | b'{' | b'O' | b'o' | b'N' | b'n' | b'B' | b'b')
    }

    fn is_whole(&self, lines: &[u8]) -> bool {
        let mut rest = lines;
        while let Some((line, behind)) = line(rest) {
            if is(line, "OK") || is(line, "NO") || is(line, "BYE") || !matches!(line.first(), Some(b'"' | b'{')) {
                return true;
            }
            rest = behind;
        }
        false
    }

    fn next(&mut self, reply: &[u8]) -> Step<Bytes, ServerRefusal> {
        let mut rest = reply;
        let mut offers = false;
        while let Some((line, behind)) = line(rest) {
            offers |= begins(line, "\"STARTTLS\"");
            if is(line, "OK") {
                return self.agreed(offers);
            } else if is(line, "NO") && self.asked {
                return Step::Refuse(ServerRefusal::Declined(shown(line)));
            } else if is(line, "NO") || is(line, "BYE") {
                return Step::Refuse(error(line));
            } else if !matches!(line.first(), Some(b'"' | b'{')) {
                return Step::Refuse(ServerRefusal::Unexpected(shown(line)));
            }
            rest = behind;
        }
        Step::Refuse(ServerRefusal::Unexpected(shown(reply)))
    }
}

impl Server {
    fn agreed(&mut self, offers: bool) -> Step<Bytes, ServerRefusal> {
        match (self.asked, offers) {
            (true, _) => Step::Done(Bytes::new()),
            (false, false) => Step::Refuse(ServerRefusal::NoTls),
            (false, true) => {
                self.asked = true;
                Step::Send(Cow::Borrowed(STARTTLS))
            }
        }
    }
}

fn is(line: &[u8], status: &str) -> bool {
    begins(line, status) && matches!(line.get(status.len()), Some(b' ' | b'\r' | b'\n'))
}

/// The first line with the literals in it, and the bytes behind it; `None` if it is not whole.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let end = from + bytes.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        match literal(&bytes[from..end]) {
            Some(length) => from = (end + 1).checked_add(length)?,
            None => return Some(bytes.split_at(end + 1)),
        }
    }
}

/// The length of the literal that begins behind this line: `{12}` or `{12+}` (RFC 5804 section 4).
fn literal(line: &[u8]) -> Option<usize> {
    let inside = line.strip_suffix(b"\r").unwrap_or(line).strip_suffix(b"}")?;
    let inside = inside.strip_suffix(b"+").unwrap_or(inside);
    let open = inside.iter().rposition(|byte| *byte == b'{')?;
    std::str::from_utf8(&inside[open + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::conversation::{Case, End, check};

    const GREETING: &[u8] =
        b"\"IMPLEMENTATION\" \"Dovecot Pigeonhole\"\r\n\"SASL\" \"\"\r\n\"STARTTLS\"\r\nOK \"ready.\"\r\n";

    #[test]
    fn capabilities_before_tls_are_not_shown() {
        let with_literals = b"\"IMPLEMENTATION\" {4}\r\nOK \n\r\n\"STARTTLS\"\r\nOK {5+}\r\nready\r\n";
        check(
            PROTOCOL,
            &[
                Case(&[GREETING, b"OK \"go\"\r\n"], &[STARTTLS], End::Done(b"")),
                Case(&[with_literals, b"ok {2}\r\ngo\r\n"], &[STARTTLS], End::Done(b"")),
            ],
        );
    }

    #[test]
    fn every_refusal_has_its_class() {
        let asked = &[STARTTLS][..];
        check(
            PROTOCOL,
            &[
                Case(&[b"\"IMPLEMENTATION\" \"x\"\r\nOK\r\n"], &[], End::NoTls),
                Case(&[b"\"IMPLEMENTATION\" \"STARTTLS\"\r\nOK\r\n"], &[], End::NoTls),
                Case(&[b"BYE \"too many\x1b\"\r\n"], &[], End::Error("BYE \"too many\\u{1b}\"")),
                Case(&[GREETING, b"NO \"not now\"\r\n"], asked, End::Declined("NO \"not now\"")),
                Case(&[GREETING, b"BYE\r\n"], asked, End::Error("BYE")),
                Case(&[GREETING, b"OKAY\r\n"], asked, End::Unexpected("OKAY")),
                Case(&[b"* OK IMAP\r\n"], &[], End::NotTheProtocol(b'*')),
                Case(&[GREETING, b"OK\r\n\"IMPLEMENTATION\" \"x\"\r\n"], asked, End::Injection),
                Case(&[b"\"X\" {9999999}\r\n", b"x"], &[], End::Waits),
                Case(&[&[b"\"X\" {9999}\r\n", &[b'x'; 100][..], b"\r\n"].concat().repeat(90)], &[], End::TooLong),
            ],
        );
    }
}
