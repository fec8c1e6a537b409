//! SMTP (RFC 5321) and LMTP (RFC 2033) with STARTTLS (RFC 3207).
//!
//! The server's greeting is shown to the client. The EHLO before TLS is egret's own; the client's follows inside TLS, as
//! section 4.2 of RFC 3207 demands.

use std::borrow::Cow;

use bytes::Bytes;

use super::Protocol;
use super::answers::AnswerFormat;
use super::exchange::{ServerRefusal, Step};
use super::lines::{Dialogue, LineServer, code, lines};
use super::text::{begins, contains, error, shown};

const SERVER_WITH_TLS: &str = "Postfix, in its main.cf:\n    smtpd_tls_security_level = encrypt\n    \
                               smtpd_tls_chain_files = /etc/postfix/key.pem, /etc/postfix/chain.pem";

pub(super) const SMTP: Protocol = Protocol {
    word: "smtp",
    name: "SMTP",
    port: 25,
    tls_port: Some(465),
    max_idle_age: super::HASTY,
    schemes: &["smtp", "submission"],
    stunnel: &["smtp"],
    client: None,
    server: |_| Box::new(LineServer::new(Server::new("EHLO"))),
    login: None,
    is_answer: |bytes| greets(bytes) && !is_ftp(bytes) && !contains(bytes, "LMTP"),
    limits: None,
    answer: Some(AnswerFormat::SMTP),
    cancellation: None,
    alpn: None,
    server_with_tls: SERVER_WITH_TLS,
};

pub(super) const LMTP: Protocol = Protocol {
    word: "lmtp",
    name: "LMTP",
    port: 24,
    tls_port: None,
    schemes: &["lmtp"],
    stunnel: &[],
    server: |_| Box::new(LineServer::new(Server::new("LHLO"))),
    login: None,
    is_answer: |bytes| greets(bytes) && contains(bytes, "LMTP"),
    ..SMTP
};

fn greets(bytes: &[u8]) -> bool {
    matches!(code(bytes), Some(220 | 421 | 554))
}

/// FTP greets with the same code.
pub(super) fn is_ftp(bytes: &[u8]) -> bool {
    matches!(code(bytes), Some(220 | 421))
        && contains(bytes, "FTP")
        && !contains(bytes, "SMTP")
        && !contains(bytes, "LMTP")
}

/// The host behind EHLO. Servers that look at it want a qualified name or an address literal; they see the client's own
/// EHLO inside TLS.
const OWN_NAME: &str = "localhost.localdomain";

struct Server {
    hello: &'static str,
    state: State,
    greeting: Bytes,
}

enum State {
    Greeting,
    Hello,
    Asked,
}

impl Server {
    fn new(hello: &'static str) -> Self {
        Self { hello, state: State::Greeting, greeting: Bytes::new() }
    }
}

impl Dialogue for Server {
    fn next(&mut self, reply: &[u8]) -> Step<Bytes, ServerRefusal> {
        match (&self.state, code(reply)) {
            (State::Greeting, Some(220)) => {
                self.greeting = Bytes::copy_from_slice(reply);
                self.state = State::Hello;
                Step::Send(Cow::Owned(format!("{} {OWN_NAME}\r\n", self.hello).into_bytes()))
            }
            (State::Hello, Some(250)) if offers_starttls(reply) => {
                self.state = State::Asked;
                Step::Send(Cow::Borrowed(b"STARTTLS\r\n"))
            }
            (State::Hello, Some(250)) => Step::Refuse(ServerRefusal::NoTls),
            (State::Asked, Some(220)) => Step::Done(std::mem::take(&mut self.greeting)),
            // Command unknown or not implemented (RFC 5321 section 4.2.2): of EHLO, a server without extensions.
            (State::Hello | State::Asked, Some(500 | 502 | 504)) => Step::Refuse(ServerRefusal::Declined(shown(reply))),
            (_, Some(400..=599)) => Step::Refuse(error(reply)),
            _ => Step::Refuse(ServerRefusal::Unexpected(shown(reply))),
        }
    }
}

/// The first line of the reply to EHLO is the server's name.
fn offers_starttls(reply: &[u8]) -> bool {
    lines(reply).skip(1).filter_map(|line| line.get(4..)).any(|keyword| {
        begins(keyword, "STARTTLS") && matches!(keyword.get("STARTTLS".len()), None | Some(b' ' | b'\t'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::conversation::{Case, End, check};

    const GREETING: &[u8] = b"220-mail.example.com ESMTP\r\n220 ready\r\n";
    const HELLO: &[u8] = b"250-mail.example.com\r\n250-SIZE 10240000\r\n250-StartTLS\r\n250 8BITMIME\r\n";
    const GO: &[u8] = b"220 2.0.0 Ready to start TLS\r\n";

    #[test]
    fn greeting_of_several_lines_reaches_the_client_and_tls_is_asked_for() {
        let sent = [&b"EHLO localhost.localdomain\r\n"[..], b"STARTTLS\r\n"];
        check(SMTP, &[Case(&[GREETING, HELLO, GO], &sent, End::Done(GREETING))]);
        let sent = [&b"LHLO localhost.localdomain\r\n"[..], b"STARTTLS\r\n"];
        check(LMTP, &[Case(&[GREETING, HELLO, GO], &sent, End::Done(GREETING))]);
    }

    #[test]
    fn every_refusal_has_its_class_and_the_servers_text() {
        let ehlo = &b"EHLO localhost.localdomain\r\n"[..];
        let both = [ehlo, b"STARTTLS\r\n"];
        let busy = b"454 4.7.0 TLS not available\x1b due to local problem\r\n";
        check(
            SMTP,
            &[
                Case(&[b"554-no service\r\n554 for you\r\n"], &[], End::Error("554-no service; 554 for you")),
                Case(&[b"421 4.3.2 too busy\r\n"], &[], End::Error("421 4.3.2 too busy")),
                Case(&[GREETING, b"250 mail.example.com\r\n"], &[ehlo], End::NoTls),
                Case(&[GREETING, b"250-STARTTLS\r\n250 STARTTLSX\r\n"], &[ehlo], End::NoTls),
                Case(&[GREETING, b"502 5.5.2 what\r\n"], &[ehlo], End::Declined("502 5.5.2 what")),
                Case(&[GREETING, b"550 go away\r\n"], &[ehlo], End::Error("550 go away")),
                Case(
                    &[GREETING, HELLO, busy],
                    &both,
                    End::Error("454 4.7.0 TLS not available\\u{1b} due to local problem"),
                ),
                Case(&[GREETING, HELLO, b"502 no\r\n"], &both, End::Declined("502 no")),
                Case(&[GREETING, HELLO, b"250 ok\r\n"], &both, End::Unexpected("250 ok")),
                Case(&[b"220\tx\r\n"], &[], End::Unexpected("220\\tx")),
                Case(&[b"HTTP/1.1 400 Bad Request\r\n"], &[], End::NotTheProtocol(b'H')),
                Case(&[GREETING, HELLO, b"220 go\r\n250 mail.example.com\r\n"], &both, End::Injection),
            ],
        );
    }

    #[test]
    fn greetings_with_the_same_code_are_distinguished() {
        for (greeting, word) in [
            (&b"220 mail.example.com ESMTP Postfix\r\n"[..], "smtp"),
            (b"220 ftp.example.com ESMTP\r\n", "smtp"),
            (b"220-mail.example.com\r\n", "smtp"),
            (b"220 mail.example.com LMTP ready\r\n", "lmtp"),
            (b"220 (vsFTPd 3.0.3)\r\n", "ftp"),
            (b"220---------- Welcome to Pure-FTPd ----------\r\n", "ftp"),
        ] {
            assert_eq!(crate::protocols::Upgrade::of_answer(greeting).unwrap().word, word);
        }
    }
}
