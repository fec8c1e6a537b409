//! LDAP (RFC 4511) with the StartTLS extended operation (section 4.14).
//!
//! Exactly one message is read. The client's own messages are forwarded inside TLS; a client that itself asks for
//! StartTLS is answered by the server.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::answers::AnswerFormat;
use super::exchange::{Exchange, ServerError, ServerRefusal, Step};
use super::opening::Opening;
use super::text::shown;
use super::{ClientFirst, Protocol};

pub(super) const PROTOCOL: Protocol = Protocol {
    word: "ldap",
    name: "LDAP",
    port: 389,
    tls_port: Some(636),
    max_idle_age: super::PATIENT,
    schemes: &["ldap"],
    stunnel: &["ldap"],
    client: Some(ClientFirst {
        side: || Box::new(Opening::new(is_request)),
        not_spoken: "downstream_not_ldap",
        without_tls: "in its URL (without TLS):\n    ldap://, not ldaps://",
        tls_request: None,
    }),
    server: |_| Box::new(Server::default()),
    login: None,
    is_answer,
    limits: None,
    answer: Some(AnswerFormat::LDAP),
    cancellation: None,
    alpn: None,
    server_with_tls: "OpenLDAP, in cn=config:\n    olcTLSCertificateFile: /etc/ldap/server.crt\n    \
                      olcTLSCertificateKeyFile: /etc/ldap/server.key",
};

/// ExtendedRequest 1.3.6.1.4.1.1466.20037 with message 1.
const REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

/// The message that the request was.
const MESSAGE: u64 = 1;

/// Bytes of the content of a message: a code and a line of text.
const LONGEST: usize = 4096;

// Tags (RFC 4511 section 4).
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;
const EXTENDED_RESPONSE: u8 = 0x78;

// Results (appendix A).
const SUCCESS: u64 = 0;
/// Of a server that does not know the operation.
const PROTOCOL_ERROR: u64 = 2;

#[derive(Default)]
struct Server {
    asked: bool,
}

impl Exchange for Server {
    type Outcome = Bytes;
    type Refusal = ServerRefusal;

    fn step(&mut self, input: &mut BytesMut) -> Step<Bytes, ServerRefusal> {
        if !self.asked {
            self.asked = true;
            return Step::Send(Cow::Borrowed(REQUEST));
        }
        match missing(input) {
            Err(refusal) => Step::Refuse(refusal),
            Ok(0) => judge(&input.split()),
            Ok(most) => Step::Read(most),
        }
    }
}

/// The number of bytes that the first message lacks, as far as its head shows it.
fn missing(bytes: &[u8]) -> Result<usize, ServerRefusal> {
    let length = match *bytes {
        [] => return Ok(2),
        [SEQUENCE] => return Ok(1),
        [SEQUENCE, short @ 0..=0x7f, ..] => usize::from(short) + 2,
        // Lengths are definite (section 5.1); four bytes of them are more than enough.
        [SEQUENCE, long @ 0x81..=0x84, ref rest @ ..] => {
            let count = usize::from(long & 0x7f);
            let Some(length) = rest.get(..count) else { return Ok(count - rest.len()) };
            length.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte)).saturating_add(2 + count)
        }
        [SEQUENCE, byte, ..] | [byte, ..] => return Err(ServerRefusal::NotTheProtocol(byte)),
    };
    if length > LONGEST {
        return Err(ServerRefusal::TooLong);
    }
    Ok(length - bytes.len())
}

fn judge(message: &[u8]) -> Step<Bytes, ServerRefusal> {
    let refusal = match response(message) {
        Some(Response { id: MESSAGE, code: SUCCESS, .. }) => return Step::Done(Bytes::new()),
        Some(response @ Response { id: MESSAGE, code: PROTOCOL_ERROR, .. }) => {
            ServerRefusal::Declined(response.shown())
        }
        // Message 0 is a notice of disconnection (section 4.4.1).
        Some(response @ Response { id: MESSAGE | 0, .. }) => {
            ServerRefusal::Error(ServerError { text: response.shown(), message: Bytes::new() })
        }
        _ => ServerRefusal::Unexpected("a message that is no response to StartTLS".to_owned()),
    };
    Step::Refuse(refusal)
}

struct Response<'a> {
    id: u64,
    code: u64,
    diagnostic: &'a [u8],
}

impl Response<'_> {
    fn shown(&self) -> String {
        format!("{} (result code {})", shown(self.diagnostic), self.code)
    }
}

/// What follows the diagnostic message (referral, name, value, controls) is not looked at.
fn response(message: &[u8]) -> Option<Response<'_>> {
    let (content, []) = element(message, SEQUENCE)? else { return None };
    let (id, rest) = element(content, INTEGER)?;
    let (response, _) = element(rest, EXTENDED_RESPONSE)?;
    let (code, rest) = element(response, ENUMERATED)?;
    let (_matched_dn, rest) = element(rest, OCTET_STRING)?;
    let (diagnostic, _) = element(rest, OCTET_STRING)?;
    Some(Response { id: number(id)?, code: number(code)?, diagnostic })
}

/// The content of the first element, which has this tag, and the bytes behind it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    if head[0] != tag {
        return None;
    }
    let (length, rest) = match head[1] {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (usize::try_from(number(length)?).ok()?, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Not negative, and of at most eight bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    let fits = (1..=8).contains(&bytes.len());
    fits.then(|| bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

/// A server that gets a ClientHello closes, or gives a notice of disconnection.
/// Every message is a SEQUENCE that begins with an INTEGER; `None`: more bytes are needed.
fn is_request(bytes: &[u8]) -> Option<bool> {
    match *bytes {
        [] | [SEQUENCE] => None,
        [SEQUENCE, 0..=0x7f, ref rest @ ..] => rest.first().map(|tag| *tag == INTEGER),
        [SEQUENCE, long @ 0x81..=0x84, ref rest @ ..] => rest.get(usize::from(long & 0x7f)).map(|tag| *tag == INTEGER),
        _ => Some(false),
    }
}

fn is_answer(bytes: &[u8]) -> bool {
    let notice = [INTEGER, 1, 0, EXTENDED_RESPONSE];
    bytes.first() == Some(&SEQUENCE) && bytes.windows(notice.len()).take(8).any(|window| window == notice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::conversation::{Case, End, check};

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap();
        match length {
            0..0x80 => [&[tag, length as u8][..], content].concat(),
            _ => [&[tag, 0x82][..], &length.to_be_bytes(), content].concat(),
        }
    }

    fn answer(id: u8, code: u8, text: &[u8], more: &[u8]) -> Vec<u8> {
        let body = [tlv(ENUMERATED, &[code]), tlv(OCTET_STRING, b""), tlv(OCTET_STRING, text), more.to_vec()].concat();
        tlv(SEQUENCE, &[tlv(INTEGER, &[id]), tlv(EXTENDED_RESPONSE, &body)].concat())
    }

    #[test]
    fn every_form_of_a_success_is_read_and_not_a_byte_more() {
        let asked = &[REQUEST][..];
        let named = tlv(0x8a, b"1.3.6.1.4.1.1466.20037");
        // As Active Directory encodes it: lengths of four bytes.
        let wide = b"\x30\x84\0\0\0\x10\x02\x01\x01\x78\x84\0\0\0\x07\x0a\x01\0\x04\0\x04\0";
        check(
            PROTOCOL,
            &[
                Case(&[&answer(1, 0, b"", b"")], asked, End::Done(b"")),
                Case(&[&answer(1, 0, b"", &named)], asked, End::Done(b"")),
                Case(&[&answer(1, 0, &[b'x'; 300], b"")], asked, End::Done(b"")),
                Case(&[wide], asked, End::Done(b"")),
            ],
        );
    }

    #[test]
    fn every_refusal_has_its_class_and_the_servers_text() {
        let asked = &[REQUEST][..];
        let unexpected = || End::Unexpected("a message that is no response to StartTLS");
        let unsupported = answer(1, 2, b"unsupported extended operation", b"");
        check(
            PROTOCOL,
            &[
                Case(&[&unsupported], asked, End::Declined("unsupported extended operation (result code 2)")),
                Case(&[&answer(1, 52, b"later\x1b[2J", b"")], asked, End::Error("later\\u{1b}[2J (result code 52)")),
                Case(&[&answer(1, 1, b"", b"")], asked, End::Error("no text (result code 1)")),
                Case(&[&answer(0, 52, b"shutting down", b"")], asked, End::Error("shutting down (result code 52)")),
                Case(&[&answer(0, 0, b"", b"")], asked, End::Error("no text (result code 0)")),
                Case(&[&answer(2, 0, b"", b"")], asked, unexpected()),
                // A bind response, an empty message, a length that reaches behind its message.
                Case(&[b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\0\x04\0\x04\0"], asked, unexpected()),
                Case(&[b"\x30\0"], asked, unexpected()),
                Case(&[b"\x30\x0c\x02\x01\x01\x78\x08\x0a\x01\0\x04\0\x04\0"], asked, unexpected()),
                Case(&[b"\x30\x80"], asked, End::NotTheProtocol(0x80)),
                Case(&[b"\x30\x82\x20\0"], asked, End::TooLong),
                Case(&[b"\x30\x84\xff\xff\xff\xff"], asked, End::TooLong),
                Case(&[b"HTTP/1.1 400"], asked, End::NotTheProtocol(b'H')),
                Case(&[b"\x15\x03\x03\0\x02\x02\x0a"], asked, End::NotTheProtocol(0x15)),
                Case(&[&[answer(1, 0, b"", b""), answer(2, 0, b"", b"")].concat()], asked, End::Injection),
            ],
        );
    }

    #[test]
    fn notice_of_disconnection_is_recognised() {
        assert!(is_answer(&answer(0, 2, b"protocol error", b"")));
        assert!(!is_answer(b"0 is no length") && !is_answer(b""));
    }
}
