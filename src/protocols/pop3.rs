//! POP3 (RFC 1939) with STLS (RFC 2595 section 4).
//!
//! The server's banner is shown to the client: it may hold the time stamp that APOP hashes.

use std::borrow::Cow;

use bytes::Bytes;

use super::Protocol;
use super::answers::AnswerFormat;
use super::exchange::{ServerRefusal, Step};
use super::lines::{Dialogue, LineServer};
use super::text::{begins, error, shown};

pub(super) const PROTOCOL: Protocol = Protocol {
    word: "pop3",
    name: "POP3",
    port: 110,
    tls_port: Some(995),
    max_idle_age: super::PATIENT,
    schemes: &["pop3", "pop"],
    stunnel: &["pop3"],
    client: None,
    server: |_| Box::new(LineServer::new(Server::default())),
    login: None,
    is_answer: |bytes| begins(bytes, "+OK"),
    limits: None,
    answer: Some(AnswerFormat::POP3),
    cancellation: None,
    alpn: None,
    server_with_tls: super::imap::PROTOCOL.server_with_tls,
};

const STLS: &[u8] = b"STLS\r\n";

#[derive(Default)]
struct Server {
    /// `None` before the banner.
    banner: Option<Bytes>,
}

impl Dialogue for Server {
    fn may_begin(&self, first: u8) -> bool {
        matches!(first, b'+' | b'-')
    }

    /// Its replies are lines.
    fn is_whole(&self, _: &[u8]) -> bool {
        true
    }

    fn next(&mut self, reply: &[u8]) -> Step<Bytes, ServerRefusal> {
        let is = |status: &str| begins(reply, status) && matches!(reply.get(status.len()), Some(b' ' | b'\r' | b'\n'));
        // Response codes of a server that could at another time (RFC 2449 section 8, RFC 3206).
        let is_passing =
            ["[SYS/", "[IN-USE", "[LOGIN-DELAY"].iter().any(|code| begins(&reply[5.min(reply.len())..], code));
        match &mut self.banner {
            None if is("+OK") => {
                self.banner = Some(Bytes::copy_from_slice(reply));
                Step::Send(Cow::Borrowed(STLS))
            }
            Some(banner) if is("+OK") => Step::Done(std::mem::take(banner)),
            Some(_) if is("-ERR") && !is_passing => Step::Refuse(ServerRefusal::Declined(shown(reply))),
            _ if is("-ERR") => Step::Refuse(error(reply)),
            _ => Step::Refuse(ServerRefusal::Unexpected(shown(reply))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::conversation::{Case, End, check};

    #[test]
    fn banner_with_its_time_stamp_is_shown_and_every_refusal_has_its_class() {
        let banner = &b"+OK ready <1896.697170952@mail.example.com>\r\n"[..];
        let asked = &[STLS][..];
        check(
            PROTOCOL,
            &[
                Case(&[banner, b"+OK begin TLS\r\n"], asked, End::Done(banner)),
                Case(&[b"+OK\n", b"+ok\n"], asked, End::Done(b"+OK\n")),
                Case(&[banner, b"-ERR unknown command\r\n"], asked, End::Declined("-ERR unknown command")),
                Case(&[banner, b"-ERR [SYS/TEMP] later\x1b\r\n"], asked, End::Error("-ERR [SYS/TEMP] later\\u{1b}")),
                Case(&[banner, b"+OKAY\r\n"], asked, End::Unexpected("+OKAY")),
                Case(&[b"-ERR [SYS/PERM] closed\r\n"], &[], End::Error("-ERR [SYS/PERM] closed")),
                Case(&[b"* OK IMAP\r\n"], &[], End::NotTheProtocol(b'*')),
                Case(&[banner, b"+OK go\r\n+OK 0 messages\r\n"], asked, End::Injection),
            ],
        );
    }
}
