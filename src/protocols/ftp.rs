//! The control connection of FTP (RFC 959) with AUTH TLS (RFC 4217).
//!
//! Data connections are not egret's: client and server open them beside the control connection.

use std::borrow::Cow;

use bytes::Bytes;

use super::Protocol;
use super::answers::AnswerFormat;
use super::exchange::{ServerRefusal, Step};
use super::lines::{Dialogue, LineServer, code};
use super::smtp::is_ftp;
use super::text::{error, shown};

pub(super) const PROTOCOL: Protocol = Protocol {
    word: "ftp",
    name: "FTP",
    port: 21,
    tls_port: Some(990),
    max_idle_age: super::PATIENT,
    schemes: &["ftp"],
    stunnel: &[],
    client: None,
    server: |_| Box::new(LineServer::new(Server::default())),
    login: None,
    is_answer: is_ftp,
    limits: Some("data connections do not pass through egret: listings and files travel in plaintext, or not at all"),
    answer: Some(AnswerFormat::FTP),
    cancellation: None,
    alpn: None,
    server_with_tls: "vsftpd, in its vsftpd.conf:\n    ssl_enable=YES\n    rsa_cert_file=/etc/ssl/ftp.pem\n    \
                      rsa_private_key_file=/etc/ssl/private/ftp.key",
};

const AUTH_TLS: &[u8] = b"AUTH TLS\r\n";

#[derive(Default)]
struct Server {
    /// `None` before the greeting.
    greeting: Option<Bytes>,
}

impl Dialogue for Server {
    fn may_begin(&self, first: u8) -> bool {
        matches!(first, b'1'..=b'6')
    }

    fn next(&mut self, reply: &[u8]) -> Step<Bytes, ServerRefusal> {
        match (&mut self.greeting, code(reply)) {
            (None, Some(220)) => {
                self.greeting = Some(Bytes::copy_from_slice(reply));
                Step::Send(Cow::Borrowed(AUTH_TLS))
            }
            (Some(greeting), Some(234)) => Step::Done(std::mem::take(greeting)),
            // Unknown command, unknown mechanism, not permitted (RFC 2228 section 3); 530 is usual where AUTH is unknown.
            (Some(_), Some(500 | 502 | 503 | 504 | 530 | 534)) => Step::Refuse(ServerRefusal::Declined(shown(reply))),
            // 120: ready in some minutes.
            (None, Some(120)) | (_, Some(400..=599)) => Step::Refuse(error(reply)),
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
        let asked = &[AUTH_TLS][..];
        // Lines in between need no code (RFC 959 section 4.2).
        let greeting = &b"220-Welcome\r\n 220 not the last\r\nno code\r\n220 (vsFTPd 3.0.3)\r\n"[..];
        check(
            PROTOCOL,
            &[
                Case(&[greeting, b"234 Proceed with negotiation.\r\n"], asked, End::Done(greeting)),
                Case(&[b"220\n", b"234\n"], asked, End::Done(b"220\n")),
                Case(
                    &[greeting, b"530 Please login with USER and PASS.\r\n"],
                    asked,
                    End::Declined("530 Please login with USER and PASS."),
                ),
                Case(&[greeting, b"504 unknown\r\n"], asked, End::Declined("504 unknown")),
                Case(&[greeting, b"431 no key\x1b\r\n"], asked, End::Error("431 no key\\u{1b}")),
                Case(&[greeting, b"334 challenge\r\n"], asked, End::Unexpected("334 challenge")),
                Case(&[b"421 too many users\r\n"], &[], End::Error("421 too many users")),
                Case(&[b"120 ready in 5 minutes\r\n"], &[], End::Error("120 ready in 5 minutes")),
                Case(&[b"SSH-2.0-x\r\n"], &[], End::NotTheProtocol(b'S')),
                Case(&[greeting, b"234 go\r\n230 logged in\r\n"], asked, End::Injection),
                Case(&[&b"220-again\r\n".repeat(1000)], &[], End::TooLong),
            ],
        );
    }
}
