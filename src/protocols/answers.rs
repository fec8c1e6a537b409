//! What a client reads, in the words of its own protocol, when its stream cannot be served: pure functions, one for
//! each protocol.
//!
//! An answer holds the class of the log line and the name of the listener. It holds nothing that a server said before
//! it was verified, no path and no secret.

use std::fmt;

use crate::escape;

/// Why a stream cannot be served, in the grain of the protocols' own codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No server could be connected to.
    Unreachable,
    /// No server is available now, and none was tried.
    Unavailable,
    /// A server is there, and no verified TLS connection to it.
    Tls,
    /// The server demands a client certificate, or refuses the one that it got.
    ClientCertificate,
    /// The files of an identity or a trust cannot be used.
    Credentials,
    /// The connection ended before the server's first byte.
    Ended,
    /// The process ends.
    Stopping,
    /// The client did not start a session in time.
    Silent,
    /// The client does not speak the listener's protocol.
    NotTheProtocol,
    /// The client speaks TLS on a listener that takes plaintext.
    SpeaksTls,
    /// The client wants what this listener does not do.
    Client,
}

impl Fault {
    /// The client has spoken, although its bytes are not at hand any more.
    pub(crate) fn is_about_first_bytes(self) -> bool {
        matches!(self, Self::NotTheProtocol | Self::SpeaksTls)
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => "the server cannot be reached",
            Self::Unavailable => "no server is available now",
            Self::Tls => "there is no verified TLS connection to the server",
            Self::ClientCertificate => "the server demands a client certificate that it accepts",
            Self::Credentials => "the identity or trust of the upstream cannot be used",
            Self::Ended => "the connection ended before the server's first byte",
            Self::Stopping => "egret stops",
            Self::Silent => "the client did not start a session in time",
            Self::NotTheProtocol => "the client does not speak the listener's protocol",
            Self::SpeaksTls => "the client speaks TLS, but the listener takes plaintext",
            Self::Client => "the client's login is not possible here",
        }
    }
}

/// The facts of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Decides the protocol's own code.
    pub fault: Fault,
    /// The class of the log and the metrics.
    pub reason: &'static str,
    /// The class of the failures that made servers unavailable.
    pub after: Option<&'static str>,
    /// The name of the listener.
    pub listener: &'a str,
    /// The client's first bytes, as far as they were read and not forwarded.
    pub request: &'a [u8],
    /// In a protocol that numbers packets: the number of the answer. `None`: the client has read nothing yet.
    pub next_packet: Option<u8>,
}

/// One line of printable characters.
impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut listener = String::new();
        self.listener.chars().for_each(|letter| escape::push(&mut listener, letter));
        write!(f, "egret: {}", self.reason)?;
        self.after.iter().try_for_each(|after| write!(f, " after {after}"))?;
        write!(f, ": {} (listener {listener})", self.fault.sentence())
    }
}

/// Where the details are, for protocols that have a place for it.
const HINT: &str = "See egret's log for this class and listener, or run: egret explain HOST:PORT";

/// How clients of one protocol are answered.
#[derive(Clone, Copy)]
pub struct AnswerFormat {
    /// The value of `answer` in the configuration.
    pub(crate) word: &'static str,
    /// No bytes: the client reads no answer at this point.
    pub(crate) write: fn(&Answer<'_>) -> Vec<u8>,
    /// The client speaks first: an answer before its request could be taken for no answer to it.
    pub(crate) after_request: bool,
}

impl AnswerFormat {
    pub(crate) const POSTGRES: Self = Self { word: "postgres", write: postgres, after_request: false };
    pub(crate) const MYSQL: Self = Self { word: "mysql", write: mysql, after_request: false };
    pub(crate) const FTP: Self = Self { word: "ftp", write: |answer| line("421 ", answer), after_request: false };
    const HTTP: Self = Self { word: "http", write: http, after_request: true };
    pub(crate) const IMAP: Self = Self { word: "imap", write: |answer| line("* BYE ", answer), after_request: false };
    pub(crate) const LDAP: Self = Self { word: "ldap", write: ldap, after_request: true };
    pub(crate) const NNTP: Self = Self { word: "nntp", write: |answer| line("400 ", answer), after_request: false };
    pub(crate) const POP3: Self = Self { word: "pop3", write: |answer| line("-ERR ", answer), after_request: false };
    const REDIS: Self = Self { word: "redis", write: |answer| line("-ERR ", answer), after_request: true };
    pub(crate) const SIEVE: Self = Self { word: "sieve", write: sieve, after_request: false };
    pub(crate) const SMTP: Self =
        Self { word: "smtp", write: |answer| line("421 4.3.0 ", answer), after_request: false };
    pub(crate) const XMPP: Self = Self { word: "xmpp", write: xmpp, after_request: true };

    /// Sorted by word.
    const ALL: &[Self] = &[
        Self::FTP,
        Self::HTTP,
        Self::IMAP,
        Self::LDAP,
        Self::MYSQL,
        Self::NNTP,
        Self::POP3,
        Self::POSTGRES,
        Self::REDIS,
        Self::SIEVE,
        Self::SMTP,
        Self::XMPP,
    ];

    pub(crate) const WORDS: &[&str] = &{
        let mut words = [""; Self::ALL.len()];
        let mut at = 0;
        while at < words.len() {
            words[at] = Self::ALL[at].word;
            at += 1;
        }
        words
    };

    /// The format of a word of the configuration.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|format| format.word == word).copied()
    }

    /// The bytes for the client.
    pub fn bytes(self, answer: &Answer<'_>) -> Vec<u8> {
        (self.write)(answer)
    }
}

impl PartialEq for AnswerFormat {
    fn eq(&self, other: &Self) -> bool {
        self.word == other.word
    }
}

impl Eq for AnswerFormat {}

impl fmt::Debug for AnswerFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)
    }
}

fn line(head: &str, answer: &Answer<'_>) -> Vec<u8> {
    format!("{head}{answer}\r\n").into_bytes()
}

/// Length and code of a CancelRequest begin with these after four bytes. Its sender reads no answer.
const POSTGRES_CANCEL: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];

/// ErrorResponse (PostgreSQL, "Message Formats"). Class 08 is "connection exception", 08P01 "protocol violation", 28
/// "invalid authorization".
fn postgres(answer: &Answer<'_>) -> Vec<u8> {
    if answer.request.get(4..8) == Some(&POSTGRES_CANCEL) {
        return Vec::new();
    }
    let code = match answer.fault {
        Fault::Unreachable | Fault::Unavailable => "08001",
        Fault::ClientCertificate => "28000",
        Fault::NotTheProtocol | Fault::SpeaksTls => "08P01",
        Fault::Tls | Fault::Credentials | Fault::Ended | Fault::Stopping | Fault::Silent | Fault::Client => "08006",
    };
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{answer}\0H{HINT}\0\0");
    let length = u32::try_from(fields.len() + 4).expect("some hundred bytes");
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}

/// ERR_Packet. In place of the greeting it has the number 0, and no SQL state: that form, of MySQL 4.1, is not agreed on
/// yet.
fn mysql(answer: &Answer<'_>) -> Vec<u8> {
    // ER_HANDSHAKE_ERROR, ER_ACCESS_DENIED_ERROR, ER_NET_READ_ERROR. Not 2026 and 2013, which clients have for such faults:
    // MariaDB Connector/C takes 2000 to 2999 in a packet for a malformed packet, and MySQL's C library prints its own text
    // for 2013.
    let (number, state): (u16, _) = match answer.fault {
        Fault::Tls | Fault::Credentials | Fault::NotTheProtocol | Fault::SpeaksTls | Fault::Client => (1043, "08S01"),
        Fault::ClientCertificate => (1045, "28000"),
        Fault::Unreachable | Fault::Unavailable | Fault::Ended | Fault::Stopping | Fault::Silent => (1158, "08S01"),
    };
    let state = if answer.next_packet.is_some() { format!("#{state}") } else { String::new() };
    let body = [b"\xff", &number.to_le_bytes()[..], format!("{state}{answer}").as_bytes()].concat();
    let length = u32::try_from(body.len()).expect("some hundred bytes").to_le_bytes();
    [&length[..3], &[answer.next_packet.unwrap_or(0)], &body].concat()
}

/// HTTP/1.1 (RFC 9110 section 15.6.3). A client that begins with HTTP/2 cannot read it.
fn http(answer: &Answer<'_>) -> Vec<u8> {
    let body = format!("{answer}\n{HINT}\n");
    let head = format!(
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let is_head = answer.request.starts_with(b"HEAD ");
    if is_head { head.into_bytes() } else { (head + &body).into_bytes() }
}

/// BYE of ManageSieve (RFC 5804 section 1.2) with a quoted string.
fn sieve(answer: &Answer<'_>) -> Vec<u8> {
    let quoted = answer.to_string().replace('\\', "\\\\").replace('"', "\\\"");
    format!("BYE \"{quoted}\"\r\n").into_bytes()
}

/// A stream error (RFC 6120 section 4.9), behind the stream header that an entity sends before its first error.
fn xmpp(answer: &Answer<'_>) -> Vec<u8> {
    let of_server = answer.request.windows(JABBER_SERVER.len()).any(|part| part == JABBER_SERVER.as_bytes());
    let namespace = if of_server { JABBER_SERVER } else { "jabber:client" };
    let text = answer.to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let condition = if answer.fault.is_about_first_bytes() { "not-well-formed" } else { "remote-connection-failed" };
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='{namespace}' xmlns:stream='http://etherx.jabber.org/streams' \
         id='egret' version='1.0'><stream:error><{condition} xmlns='{STREAM_ERRORS}'/>\
         <text xmlns='{STREAM_ERRORS}' xml:lang='en'>{text}</text></stream:error></stream:stream>"
    )
    .into_bytes()
}

const JABBER_SERVER: &str = "jabber:server";
const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";

/// The response to the client's request with the result `unavailable` (RFC 4511 section 4.1.9), with `protocolError` to
/// what is no request, or a Notice of
/// Disconnection (section 4.4.1) to a client whose request is not known.
fn ldap(answer: &Answer<'_>) -> Vec<u8> {
    let code = if answer.fault.is_about_first_bytes() { PROTOCOL_ERROR } else { UNAVAILABLE };
    let result = [&[0x0a, 1, code, 0x04, 0][..], &ber(0x04, answer.to_string().as_bytes())].concat();
    let (id, response) = match ldap_request(answer.request) {
        Some((id, response)) => (id, ber(response, &result)),
        None => (&[0][..], ber(0x78, &[result, ber(0x8a, NOTICE_OF_DISCONNECTION)].concat())),
    };
    ber(0x30, &[ber(0x02, id), response].concat())
}

const PROTOCOL_ERROR: u8 = 2;
const UNAVAILABLE: u8 = 52;
const NOTICE_OF_DISCONNECTION: &[u8] = b"1.3.6.1.4.1.1466.20036";

/// The message id of a request, and the tag of the response that answers it. Lengths are in one byte, or in the four
/// that OpenLDAP's clients write; a request whose id is further back has none.
fn ldap_request(request: &[u8]) -> Option<(&[u8], u8)> {
    let body = match request {
        [0x30, length, body @ ..] if *length < 0x80 => body,
        [0x30, form, rest @ ..] if (0x81..=0x84).contains(form) => rest.get(usize::from(form & 0x7f)..)?,
        _ => return None,
    };
    let [0x02, length @ 1..=4, rest @ ..] = body else { return None };
    let (id, rest) = rest.split_at_checked(usize::from(*length))?;
    let response = match rest.first()? {
        // bind, search (its closing response), modify, add, delete, modify DN, compare, extended: RFC 4511 section 4.
        0x60 => 0x61,
        0x63 => 0x65,
        0x66 => 0x67,
        0x68 => 0x69,
        0x4a => 0x6b,
        0x6c => 0x6d,
        0x6e => 0x6f,
        0x77 => 0x78,
        _ => return None,
    };
    Some((id, response))
}

/// A BER element with a definite length of less than 64 KiB.
fn ber(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("an answer has some hundred bytes");
    let [high, low] = length.to_be_bytes();
    let head = if length < 0x80 { vec![tag, low] } else { vec![tag, 0x82, high, low] };
    [&head, content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fault: Fault) -> Answer<'static> {
        Answer { fault, reason: "untrusted_issuer", after: None, listener: "db", request: b"", next_packet: None }
    }

    const FAULTS: [Fault; 11] = [
        Fault::Unreachable,
        Fault::Unavailable,
        Fault::Tls,
        Fault::ClientCertificate,
        Fault::Credentials,
        Fault::Ended,
        Fault::Stopping,
        Fault::Silent,
        Fault::NotTheProtocol,
        Fault::SpeaksTls,
        Fault::Client,
    ];

    #[test]
    fn every_answer_names_class_and_listener_in_printable_text() {
        for format in AnswerFormat::ALL {
            for fault in FAULTS {
                let hostile = Answer { listener: "a\r\n250 ok\0<\"", ..answer(fault) };
                for answer in [answer(fault), hostile] {
                    let bytes = format.bytes(&answer);
                    let text = String::from_utf8_lossy(&bytes);
                    assert!(text.contains("egret: untrusted_issuer: "), "{format:?}: {text:?}");
                    assert!(!text.contains("\r\n250"), "{format:?}: {text:?}");
                    assert!(bytes.len() < 1024, "{format:?}");
                }
            }
        }
    }

    #[test]
    fn an_open_circuit_is_named_with_what_opened_it() {
        let answer = Answer { reason: "circuit_open", after: Some("connect_refused"), ..answer(Fault::Unavailable) };
        let text = "egret: circuit_open after connect_refused: no server is available now (listener db)";
        assert_eq!(answer.to_string(), text);
    }

    #[test]
    fn formats_are_sorted_by_their_words() {
        assert!(AnswerFormat::WORDS.is_sorted());
        assert!(
            AnswerFormat::WORDS.iter().all(|word| AnswerFormat::of(word).is_some_and(|format| format.word == *word))
        );
    }

    #[test]
    fn codes_follow_the_fault() {
        let text = |format: AnswerFormat, fault| String::from_utf8_lossy(&format.bytes(&answer(fault))).into_owned();
        for (fault, sqlstate, number) in [
            (Fault::Unreachable, "C08001\0", 1158u16),
            (Fault::Tls, "C08006\0", 1043),
            (Fault::ClientCertificate, "C28000\0", 1045),
            (Fault::Ended, "C08006\0", 1158),
            (Fault::NotTheProtocol, "C08P01\0", 1043),
            (Fault::SpeaksTls, "C08P01\0", 1043),
        ] {
            assert!(text(AnswerFormat::POSTGRES, fault).contains(sqlstate), "{fault:?}");
            assert_eq!(AnswerFormat::MYSQL.bytes(&answer(fault))[5..7], number.to_le_bytes(), "{fault:?}");
        }
    }

    #[test]
    fn lengths_are_those_of_the_message() {
        let packet = AnswerFormat::POSTGRES.bytes(&answer(Fault::Tls));
        assert_eq!(packet[0], b'E');
        assert_eq!(u32::from_be_bytes(packet[1..5].try_into().unwrap()) as usize, packet.len() - 1);
        assert!(packet.ends_with(b"\0\0"));
        let packet = AnswerFormat::MYSQL.bytes(&answer(Fault::Tls));
        assert_eq!(u32::from_le_bytes([packet[0], packet[1], packet[2], 0]) as usize, packet.len() - 4);
        let page = String::from_utf8(AnswerFormat::HTTP.bytes(&answer(Fault::Tls))).unwrap();
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{page}");
    }

    #[test]
    fn mysql_packet_has_the_number_that_its_client_expects() {
        let packet = AnswerFormat::MYSQL.bytes(&answer(Fault::ClientCertificate));
        assert!(packet[3] == 0 && packet[7..].starts_with(b"egret"), "no SQL state before the greeting: {packet:?}");
        let greeted = Answer { next_packet: Some(2), ..answer(Fault::ClientCertificate) };
        let packet = AnswerFormat::MYSQL.bytes(&greeted);
        assert!(packet[3] == 2 && packet[7..].starts_with(b"#28000egret"), "{packet:?}");
    }

    #[test]
    fn cancel_request_is_not_answered() {
        let cancel = [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e];
        let answer = Answer { request: &cancel, ..answer(Fault::Tls) };
        assert!(AnswerFormat::POSTGRES.bytes(&answer).is_empty());
    }

    #[test]
    fn head_of_http_gets_no_body() {
        let answer = Answer { request: b"HEAD / HTTP/1.1\r\n", ..answer(Fault::Tls) };
        assert!(AnswerFormat::HTTP.bytes(&answer).ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn ldap_answers_the_request_it_has_read() {
        let with = |request| AnswerFormat::LDAP.bytes(&Answer { request, ..answer(Fault::Unreachable) });
        // LDAPMessage, its id, the tag of the answer.
        let (bind, long, search) = (
            &b"\x30\x0c\x02\x01\x01\x60\x07"[..],
            &b"\x30\x84\0\0\0\x0c\x02\x01\x07\x60"[..],
            &b"\x30\x0c\x02\x02\x01\0\x63"[..],
        );
        for (request, head) in [
            (bind, &b"\x02\x01\x01\x61"[..]),
            (long, b"\x02\x01\x07\x61"),
            (search, b"\x02\x02\x01\0\x65"),
            (b"", b"\x02\x01\0\x78"),
            (b"\x30\x84\0", b"\x02\x01\0\x78"),
            (b"GET / HTTP/1.1", b"\x02\x01\0\x78"),
        ] {
            let bytes = with(request);
            let body = if bytes[1] < 0x80 { &bytes[2..] } else { &bytes[4..] };
            assert!(body.starts_with(head), "{request:?}: {bytes:?}");
        }
    }
}
