//! NNTP (RFC 3977) with STARTTLS (RFC 4642).

use std::borrow::Cow;

use bytes::Bytes;

use super::Protocol;
use super::answers::AnswerFormat;
use super::exchange::{ServerRefusal, Step};
use super::lines::{Dialogue, LineServer, code};
use super::text::{error, shown};

pub(super) const PROTOCOL: Protocol = Protocol {
    word: "nntp",
    name: "NNTP",
    port: 119,
    tls_port: Some(563),
    max_idle_age: super::HASTY,
    schemes: &["nntp", "news"],
    stunnel: &["nntp"],
    client: None,
    server: |_| Box::new(LineServer::new(Server::default())),
    login: None,
    is_answer: |bytes| matches!(code(bytes), Some(200 | 201)),
    limits: None,
    answer: Some(AnswerFormat::NNTP),
    cancellation: None,
    alpn: None,
    server_with_tls: "INN, in its inn.conf:\n    tlscertfile: /etc/news/cert.pem\n    tlskeyfile: /etc/news/key.pem",
};

const STARTTLS: &[u8] = b"STARTTLS\r\n";

#[derive(Default)]
struct Server {
    /// `None` before the greeting.
    greeting: Option<Bytes>,
}

impl Dialogue for Server {
    fn next(&mut self, reply: &[u8]) -> Step<Bytes, ServerRefusal> {
        match (&mut self.greeting, code(reply)) {
            // 201: no posting.
            (None, Some(200 | 201)) => {
                self.greeting = Some(Bytes::copy_from_slice(reply));
                Step::Send(Cow::Borrowed(STARTTLS))
            }
            (Some(greeting), Some(382)) => Step::Done(std::mem::take(greeting)),
            // Unknown, not permitted, or no TLS (RFC 4642 section 2.2.1).
            (Some(_), Some(500..=502 | 580)) => Step::Refuse(ServerRefusal::Declined(shown(reply))),
            (_, Some(400..=599)) => Step::Refuse(error(reply)),
            _ => Step::Refuse(ServerRefusal::Unexpected(shown(reply))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::conversation::{Case, End, check};

    #[test]
    fn greeting_is_shown_and_every_refusal_has_its_class() {
        let asked = &[STARTTLS][..];
        let greeting = &b"201 news.example.com ready (no posting)\r\n"[..];
        check(
            PROTOCOL,
            &[
                Case(&[greeting, b"382 go on\r\n"], asked, End::Done(greeting)),
                Case(&[b"200 ready\n", b"382\n"], asked, End::Done(b"200 ready\n")),
                Case(&[greeting, b"580 cannot\r\n"], asked, End::Declined("580 cannot")),
                Case(&[greeting, b"500 What?\r\n"], asked, End::Declined("500 What?")),
                Case(&[greeting, b"403 key lost\x1b\r\n"], asked, End::Error("403 key lost\\u{1b}")),
                Case(&[greeting, b"200 hm\r\n"], asked, End::Unexpected("200 hm")),
                Case(&[b"400 overloaded\r\n"], &[], End::Error("400 overloaded")),
                Case(&[b"502 no access for you\r\n"], &[], End::Error("502 no access for you")),
                Case(&[b"HTTP/1.1 200\r\n"], &[], End::NotTheProtocol(b'H')),
                Case(&[greeting, b"382 go on\r\n200 injected\r\n"], asked, End::Injection),
            ],
        );
    }
}
