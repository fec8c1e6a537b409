//! PostgreSQL (protocol 3.0, "Start-up" and "SSL Session Encryption").
//!
//! A client's first packet is eight bytes or begins with them: a length and a code. SSLRequest and GSSENCRequest are
//! nothing but these eight, and are answered by one byte.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};

use super::answers::AnswerFormat;
use super::exchange::{ClientRefusal, Exchange, ServerError, ServerRefusal, Step};
use super::postgres_keys::CANCELLATION;
use super::text::shown;
use super::{ClientFirst, Protocol, TlsRequest};

pub(super) const PROTOCOL: Protocol = Protocol {
    word: "postgres",
    name: "PostgreSQL",
    port: 5432,
    tls_port: None,
    max_idle_age: super::PATIENT,
    schemes: &["postgres", "postgresql"],
    stunnel: &["pgsql"],
    client: Some(ClientFirst {
        side: || Box::new(Client::default()),
        not_spoken: "downstream_not_postgres",
        without_tls: "in its connection string:\n    sslmode=disable sslnegotiation=postgres",
        tls_request: Some(TlsRequest {
            bytes: &SSL_REQUEST,
            content_with_plaintext: "in its connection string:\n    sslmode=disable gssencmode=disable",
        }),
    }),
    server: |_| Box::new(Server::default()),
    login: None,
    is_answer,
    limits: None,
    server_with_tls: "in its postgresql.conf, then reload it:\n    ssl = on\n    ssl_cert_file = 'server.crt'\n    \
                      ssl_key_file = 'server.key'",
    answer: Some(AnswerFormat::POSTGRES),
    cancellation: Some(CANCELLATION),
    alpn: None,
};

/// Servers from PostgreSQL 17 on also take TLS from the first byte, if ALPN says so: a round trip less. Clients notice no
/// difference.
pub(super) const DIRECT: Protocol = Protocol {
    word: "postgres-direct",
    schemes: &[],
    stunnel: &[],
    server: |_| Box::new(Direct),
    is_answer: |_| false,
    server_with_tls: "it has to be PostgreSQL 17 or newer; for others:\n    upgrade = \"postgres\"",
    alpn: Some("postgresql"),
    ..PROTOCOL
};

/// Length and code.
pub(super) const HEAD: usize = 8;

/// Codes of requests have 1234 where a version has its major number.
const SSL_CODE: u32 = (1234 << 16) | 5679;
const GSSENC_CODE: u32 = (1234 << 16) | 5680;
pub(super) const CANCEL_CODE: u32 = (1234 << 16) | 5678;

/// SSLRequest: length 8, then its code.
const SSL_REQUEST: [u8; HEAD] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Servers take no more (MAX_STARTUP_PACKET_LENGTH in PostgreSQL's pqcomm.h, and the length itself).
const MAX_STARTUP: u32 = 10_000 + 4;

/// A CancelRequest has a process id and a key of 4 to 256 bytes (variable since protocol 3.2).
pub(super) const CANCEL_LENGTHS: std::ops::RangeInclusive<u32> = 16..=12 + 256;

/// Majors that were ever in use; a server refuses the old ones in words that its client understands.
const MAJORS: std::ops::RangeInclusive<u32> = 1..=3;

/// Bytes of a server's error that are read: errors at this point are one short line.
const MAX_ERROR: usize = 1024;

/// The side towards the client: declines requests for encryption, and hands on the head of the first other packet, or a
/// whole CancelRequest, whose key decides where it goes.
#[derive(Debug, Default)]
pub struct Client {
    /// A CancelRequest as far as it came, and the length that it will have.
    cancel: Option<(BytesMut, usize)>,
    head: [u8; HEAD],
    have: usize,
    asked_ssl: bool,
    asked_gss: bool,
}

impl Exchange for Client {
    type Outcome = Bytes;
    type Refusal = ClientRefusal;

    fn step(&mut self, input: &mut BytesMut) -> Step<Bytes, ClientRefusal> {
        if self.cancel.is_some() {
            return self.whole_cancel(input);
        }
        while self.have < HEAD {
            if input.is_empty() {
                return Step::Read(HEAD - self.have);
            }
            self.head[self.have] = input.get_u8();
            self.have += 1;
            if let Some(refusal) = impossible(&self.head[..self.have]) {
                return Step::Refuse(refusal);
            }
        }
        self.whole_head(input)
    }
}

impl Client {
    fn whole_head(&mut self, input: &mut BytesMut) -> Step<Bytes, ClientRefusal> {
        let [a, b, c, d, e, f, g, h] = self.head;
        let length = u32::from_be_bytes([a, b, c, d]);
        let code = u32::from_be_bytes([e, f, g, h]);
        match code {
            SSL_CODE | GSSENC_CODE if length != HEAD as u32 => refuse("an encryption request of a wrong length"),
            SSL_CODE if self.asked_ssl => refuse("a second SSLRequest"),
            GSSENC_CODE if self.asked_gss => refuse("a second GSSENCRequest"),
            SSL_CODE | GSSENC_CODE => {
                self.have = 0;
                self.asked_ssl |= code == SSL_CODE;
                self.asked_gss |= code == GSSENC_CODE;
                Step::Send(Cow::Borrowed(b"N"))
            }
            CANCEL_CODE if !CANCEL_LENGTHS.contains(&length) => refuse("a CancelRequest of a wrong length"),
            CANCEL_CODE => {
                self.cancel = Some((BytesMut::from(&self.head[..]), length as usize));
                self.whole_cancel(input)
            }
            version if MAJORS.contains(&(version >> 16)) => Step::Done(Bytes::copy_from_slice(&self.head)),
            _ => refuse("an unknown protocol version"),
        }
    }
}

impl Client {
    fn whole_cancel(&mut self, input: &mut BytesMut) -> Step<Bytes, ClientRefusal> {
        let (packet, length) = self.cancel.as_mut().expect("called once it has begun");
        let missing = *length - packet.len();
        packet.extend_from_slice(&input.split_to(missing.min(input.len())));
        match *length - packet.len() {
            0 => Step::Done(std::mem::take(packet).freeze()),
            missing => Step::Read(missing),
        }
    }
}

fn refuse(why: &'static str) -> Step<Bytes, ClientRefusal> {
    Step::Refuse(ClientRefusal::NotTheProtocol(why))
}

/// Checks a head as soon as possible, so that a client that will never send eight bytes is refused early.
fn impossible(head: &[u8]) -> Option<ClientRefusal> {
    match *head {
        // A TLS record of type handshake: its first byte alone is no length, and only the second byte shows TLS.
        [0x16] | [0] | [0, 0] | [0, 0, _] => None,
        [0x16, 0x03, ..] => Some(ClientRefusal::SpeaksTls),
        [0, 0, c, d, ..] => {
            let length = u32::from_be_bytes([0, 0, c, d]);
            let possible = (HEAD as u32..=MAX_STARTUP).contains(&length);
            (!possible).then_some(ClientRefusal::NotTheProtocol("a packet length that servers refuse"))
        }
        _ => Some(ClientRefusal::NotTheProtocol("the first bytes are no packet length")),
    }
}

/// The side towards the server: SSLRequest, and the one byte that answers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Server {
    /// Nothing was said.
    #[default]
    Start,
    /// The request is sent; the next byte answers it.
    Asked,
    /// The server sends an error, whose text is read.
    Complaining,
}

impl Exchange for Server {
    type Outcome = Bytes;
    type Refusal = ServerRefusal;

    fn step(&mut self, input: &mut BytesMut) -> Step<Bytes, ServerRefusal> {
        match self {
            Self::Start => {
                *self = Self::Asked;
                Step::Send(Cow::Borrowed(&SSL_REQUEST))
            }
            // Exactly one byte: what follows an `S` is TLS.
            Self::Asked if input.is_empty() => Step::Read(1),
            Self::Asked => match input.get_u8() {
                b'S' => Step::Done(Bytes::new()),
                b'N' => Step::Refuse(ServerRefusal::NoTls),
                b'E' => {
                    *self = Self::Complaining;
                    Step::ReadReason(MAX_ERROR)
                }
                other => Step::Refuse(ServerRefusal::NotTheProtocol(other)),
            },
            Self::Complaining => Step::Refuse(ServerRefusal::Error(ServerError {
                text: error_text(input),
                message: error_message(input),
            })),
        }
    }
}

/// Nothing is said before TLS.
struct Direct;

impl Exchange for Direct {
    type Outcome = Bytes;
    type Refusal = ServerRefusal;

    fn step(&mut self, _: &mut BytesMut) -> Step<Bytes, ServerRefusal> {
        Step::Done(Bytes::new())
    }
}

/// A server that gets a ClientHello where it expects a packet answers with an error message, or with the byte that
/// would answer an SSLRequest.
fn is_answer(bytes: &[u8]) -> bool {
    matches!(bytes, [b'E', 0, 0, _, _, ..] | [b'E', b'F' | b'S', ..] | [b'S' | b'N' | b'E'])
}

/// The text behind an `E`: an ErrorResponse (length, then fields of a letter and a string each), or a bare string, as
/// servers send it that are out of memory.
fn error_text(rest: &[u8]) -> String {
    let text = match rest {
        // No text begins with NUL, and every length of a short message does.
        [0, _, _, _, fields @ ..] => {
            let of = |letter: u8| fields.split(|b| *b == 0).find(|f| f.first() == Some(&letter)).map(|f| &f[1..]);
            match (of(b'M'), of(b'C')) {
                (Some(message), Some(code)) => [message, b" (SQLSTATE ", code, b")"].concat(),
                (Some(message), None) => message.to_vec(),
                (None, _) => Vec::new(),
            }
        }
        text => text.split(|b| *b == 0).next().unwrap_or_default().to_vec(),
    };
    shown(&text)
}

/// The whole ErrorResponse whose first byte was read; empty if it is not whole, or is a bare string.
fn error_message(rest: &[u8]) -> Bytes {
    let Some((length, _)) = rest.split_first_chunk() else { return Bytes::new() };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    match rest.get(..length) {
        Some(message) if length > size_of::<u32>() => [b"E", message].concat().into(),
        _ => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocols::text::MAX_SHOWN;

    fn packet(length: u32, code: u32) -> Vec<u8> {
        [length.to_be_bytes(), code.to_be_bytes()].concat()
    }

    const DECLINED: Step<Bytes, ClientRefusal> = Step::Send(Cow::Borrowed(b"N"));

    /// The steps for bytes that arrive in these pieces, and the bytes left in the input.
    fn answers(pieces: &[&[u8]]) -> (Vec<Step<Bytes, ClientRefusal>>, Vec<u8>) {
        let mut client = Client::default();
        let mut steps = Vec::new();
        let mut input = BytesMut::new();
        let mut pieces = pieces.iter();
        loop {
            match client.step(&mut input) {
                Step::Read(_) => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return (steps, input.to_vec()),
                },
                answer @ Step::Send(_) => steps.push(answer),
                end => {
                    steps.push(end);
                    pieces.for_each(|piece| input.extend_from_slice(piece));
                    return (steps, input.to_vec());
                }
            }
        }
    }

    #[test]
    fn encryption_is_declined_and_the_session_passed_on() {
        let session = [packet(40, 3 << 16), b"user\0app\0".to_vec()].concat();
        let all = [packet(8, GSSENC_CODE), packet(8, SSL_CODE), session].concat();
        let (steps, left) = answers(&[&all]);
        assert_eq!(steps, [DECLINED, DECLINED, Step::Done(Bytes::from(packet(40, 3 << 16)))]);
        assert_eq!(left, b"user\0app\0");
    }

    #[test]
    fn cancel_request_is_passed_on() {
        for key in [4, 32, 256] {
            let cancel = [packet(12 + key as u32, CANCEL_CODE), vec![1; 4 + key]].concat();
            assert_eq!(answers(&[&cancel, b"more"]), (vec![Step::Done(Bytes::from(cancel.clone()))], b"more".to_vec()));
            assert!(answers(&[&cancel[..cancel.len() - 1]]).0.is_empty(), "not without its last byte");
        }
    }

    #[test]
    fn what_is_no_start_of_a_session_is_refused() {
        let refused = |steps: &[_]| matches!(steps, [Step::Refuse(ClientRefusal::NotTheProtocol(_))]);
        let twice = [packet(8, SSL_CODE), packet(8, SSL_CODE)].concat();
        let steps = answers(&[&twice]).0;
        assert!(steps[0] == DECLINED && refused(&steps[1..]));
        for bad in [&b"GET / HTTP/1.1\r\n"[..], &packet(7, 3 << 16), &packet(20_000, 3 << 16), &packet(8, 9 << 16)] {
            assert!(refused(&answers(&[bad]).0), "{bad:?}");
        }
        assert_eq!(answers(&[b"\x16\x03"]).0, [Step::Refuse(ClientRefusal::SpeaksTls)]);
    }

    /// Packets with likely codes, cut and followed by noise.
    fn plausible() -> impl Strategy<Value = Vec<u8>> {
        let code = prop_oneof![
            Just(SSL_CODE),
            Just(GSSENC_CODE),
            Just(CANCEL_CODE),
            Just(3 << 16),
            Just((3 << 16) | 2),
            any::<u32>()
        ];
        let length = prop_oneof![4 => Just(8u32), 2 => 0u32..300, 1 => any::<u32>()];
        let packets = prop::collection::vec((length, code).prop_map(|(length, code)| packet(length, code)), 0..4);
        (packets, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(packets, noise)| [packets.concat(), noise].concat())
    }

    fn answered(answer: &[u8]) -> (Server, Step<Bytes, ServerRefusal>) {
        let mut server = Server::default();
        assert_eq!(server.step(&mut BytesMut::new()), Step::Send(Cow::Borrowed(&SSL_REQUEST)));
        assert_eq!(server.step(&mut BytesMut::new()), Step::Read(1));
        let step = server.step(&mut BytesMut::from(answer));
        (server, step)
    }

    #[test]
    fn one_byte_decides() {
        assert_eq!(answered(b"S").1, Step::Done(Bytes::new()));
        assert_eq!(answered(b"N").1, Step::Refuse(ServerRefusal::NoTls));
        assert_eq!(answered(b"H").1, Step::Refuse(ServerRefusal::NotTheProtocol(b'H')));
        assert_eq!(answered(b"E").1, Step::ReadReason(MAX_ERROR));
    }

    #[test]
    fn both_forms_of_an_error_are_read() {
        let v3 = &b"\0\0\0\x34SFATAL\0C53300\0Msorry, too many clients already\0\0"[..];
        let v2 = &b"could not fork new process for connection: \x1b[2J\n\0"[..];
        let table = [
            (v3, "sorry, too many clients already (SQLSTATE 53300)", [b"E", v3].concat()),
            (&v3[..40], "sorry, too many clien (SQLSTATE 53300)", Vec::new()),
            (v2, "could not fork new process for connection: \\u{1b}[2J", Vec::new()),
            (b"", "no text", Vec::new()),
        ];
        for (bytes, shown, message) in table {
            let (mut server, _) = answered(b"E");
            let error = ServerError { text: shown.to_owned(), message: Bytes::from(message) };
            assert_eq!(server.step(&mut BytesMut::from(bytes)), Step::Refuse(ServerRefusal::Error(error)));
        }
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_answers(bytes in plausible(), cuts in prop::collection::vec(0usize..60, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(answers(&pieces), answers(&[&bytes[..]]));
        }

        #[test]
        fn any_bytes_end_within_two_answers(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(answers(&[&bytes]).0.len() <= 3);
        }

        #[test]
        fn only_an_s_is_a_yes(byte in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..2048)) {
            let (mut server, step) = answered(&[byte]);
            prop_assert_eq!(step == Step::Done(Bytes::new()), byte == b'S');
            if byte == b'E' {
                let Step::Refuse(ServerRefusal::Error(ServerError { text, message })) = server.step(&mut BytesMut::from(&rest[..])) else {
                    panic!("an error is an error")
                };
                prop_assert!(!text.chars().any(char::is_control));
                prop_assert!(text.chars().count() <= MAX_SHOWN * 10);
                prop_assert!(message.is_empty() || [b"E", &rest[..]].concat().starts_with(&message));
            }
        }
    }
}
