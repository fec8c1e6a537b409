//! IMAP (RFC 9051) with STARTTLS (section 6.2.1).
//!
//! The client sees the server's greeting without the list of capabilities in it: that list is about the time before
//! TLS, with STARTTLS and LOGINDISABLED, and the client has to ask for the one that holds inside TLS.

use std::borrow::Cow;

use bytes::Bytes;

use super::Protocol;
use super::answers::AnswerFormat;
use super::exchange::{ServerRefusal, Step};
use super::lines::{Dialogue, LineServer, lines};
use super::text::{begins, error, shown};

pub(super) const PROTOCOL: Protocol = Protocol {
    word: "imap",
    name: "IMAP",
    port: 143,
    tls_port: Some(993),
    max_idle_age: super::PATIENT,
    schemes: &["imap"],
    stunnel: &["imap"],
    client: None,
    server: |_| Box::new(LineServer::new(Server::default())),
    login: None,
    is_answer: |bytes| ["* OK", "* PREAUTH", "* BYE"].into_iter().any(|greeting| begins(bytes, greeting)),
    limits: None,
    answer: Some(AnswerFormat::IMAP),
    cancellation: None,
    alpn: None,
    server_with_tls: "Dovecot, in its dovecot.conf:\n    ssl = required\n    ssl_cert = </etc/dovecot/chain.pem\n    \
                      ssl_key = </etc/dovecot/key.pem",
};

const TAG: &str = "S0";
const STARTTLS: &[u8] = b"S0 STARTTLS\r\n";

#[derive(Default)]
struct Server {
    /// `None` before the greeting.
    shown: Option<Bytes>,
}

impl Dialogue for Server {
    fn may_begin(&self, first: u8) -> bool {
        first == b'*' || self.shown.is_some() && TAG.as_bytes().first() == Some(&first)
    }

    /// Untagged lines may come before the tagged one.
    fn is_whole(&self, lines: &[u8]) -> bool {
        let line = last(lines);
        self.shown.is_none() || !line.starts_with(b"* ") || begins(line, "* BYE")
    }

    fn next(&mut self, reply: &[u8]) -> Step<Bytes, ServerRefusal> {
        let line = last(reply);
        let is = |status: &str| begins(line, status) && matches!(line.get(status.len()), None | Some(b' '));
        let tagged = |status: &str| is(&format!("{TAG} {status}"));
        match &mut self.shown {
            None if is("* OK") => {
                self.shown = Some(without_capabilities(line));
                Step::Send(Cow::Borrowed(STARTTLS))
            }
            None if is("* PREAUTH") => Step::Refuse(ServerRefusal::Impossible(
                "its greeting is PREAUTH: the session is authenticated already, and STARTTLS cannot follow (RFC 9051 \
                 section 6.2.1)",
            )),
            Some(greeting) if tagged("OK") => Step::Done(std::mem::take(greeting)),
            Some(_) if tagged("NO") || tagged("BAD") => Step::Refuse(ServerRefusal::Declined(shown(line))),
            _ if is("* BYE") => Step::Refuse(error(&[line, b"\r\n"].concat())),
            _ => Step::Refuse(ServerRefusal::Unexpected(shown(line))),
        }
    }
}

/// Of whole lines, without its end.
fn last(whole: &[u8]) -> &[u8] {
    lines(whole.strip_suffix(b"\n").unwrap_or(whole)).last().unwrap_or_default()
}

/// The greeting without the response code CAPABILITY (section 7.1); other codes stay.
fn without_capabilities(line: &[u8]) -> Bytes {
    let text = line.get("* OK ".len()..).unwrap_or_default();
    let rest = if begins(text, "[CAPABILITY ") {
        let end = text.iter().position(|byte| *byte == b']').map_or(text.len(), |end| end + 1);
        text[end..].trim_ascii_start()
    } else {
        text
    };
    // The grammar wants a text.
    let rest = if rest.is_empty() { b"IMAP ready" } else { rest };
    Bytes::from([b"* OK ", rest, b"\r\n"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::conversation::{Case, End, check};

    const GREETING: &[u8] = b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] Dovecot ready.\r\n";
    const SHOWN: &[u8] = b"* OK Dovecot ready.\r\n";

    #[test]
    fn capabilities_before_tls_are_not_shown() {
        for (greeting, shown) in [
            (GREETING, SHOWN),
            (b"* ok [capability IMAP4 STARTTLS]\r\n", b"* OK IMAP ready\r\n"),
            (b"* OK [ALERT] down at noon\n", b"* OK [ALERT] down at noon\r\n"),
            (b"* OK\r\n", b"* OK IMAP ready\r\n"),
            (b"* OK [CAPABILITY IMAP4 ready\r\n", b"* OK IMAP ready\r\n"),
        ] {
            check(PROTOCOL, &[Case(&[greeting, b"S0 OK begin\r\n"], &[STARTTLS], End::Done(shown))]);
        }
    }

    #[test]
    fn untagged_lines_are_tolerated_and_every_refusal_has_its_class() {
        let asked = &[STARTTLS][..];
        check(
            PROTOCOL,
            &[
                Case(
                    &[GREETING, b"* CAPABILITY IMAP4rev1\r\n* OK still here\r\nS0 ok go\r\n"],
                    asked,
                    End::Done(SHOWN),
                ),
                Case(&[GREETING, b"S0 NO busy\r\n"], asked, End::Declined("S0 NO busy")),
                Case(
                    &[GREETING, b"S0 BAD TLS support isn't enabled.\r\n"],
                    asked,
                    End::Declined("S0 BAD TLS support isn't enabled."),
                ),
                Case(&[GREETING, b"* BYE shutting down\r\n"], asked, End::Error("* BYE shutting down")),
                Case(&[GREETING, b"S0 OKAY\r\n"], asked, End::Unexpected("S0 OKAY")),
                Case(&[GREETING, b"S1 OK\r\n"], asked, End::Unexpected("S1 OK")),
                Case(&[GREETING, b"+ go on\r\n"], asked, End::NotTheProtocol(b'+')),
                Case(&[b"* PREAUTH welcome root\r\n"], &[], End::Impossible),
                Case(&[b"* BYE overloaded\x07\r\n"], &[], End::Error("* BYE overloaded\\u{7}")),
                Case(&[b"* NO\r\n"], &[], End::Unexpected("* NO")),
                Case(&[b"220 mail.example.com\r\n"], &[], End::NotTheProtocol(b'2')),
                Case(&[GREETING, b"S0 OK go\r\nS1 OK\r\n"], asked, End::Injection),
                Case(&[&[b"* OK ", &[b'x'; 3000][..]].concat()], &[], End::TooLong),
                Case(&[GREETING, &b"* OK wait\r\n".repeat(1000)], asked, End::TooLong),
            ],
        );
    }
}
