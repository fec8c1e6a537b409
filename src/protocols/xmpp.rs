//! XMPP streams of clients and of servers with STARTTLS (RFC 6120 section 5.4).
//!
//! egret opens a stream of its own, whose `to` is the name that the certificate is verified for, and asks for TLS. The
//! client's own stream header is forwarded inside TLS, where a new stream begins.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};

use super::answers::AnswerFormat;
use super::exchange::{Exchange, ServerError, ServerRefusal, Step};
use super::opening::Opening;
use super::text::{contains, shown};
use super::{ClientFirst, Protocol};

pub(super) const CLIENT: Protocol = Protocol {
    word: "xmpp",
    name: "XMPP",
    port: 5222,
    tls_port: Some(5223),
    max_idle_age: super::PATIENT,
    schemes: &["xmpp"],
    stunnel: &[],
    client: Some(ClientFirst {
        side: || Box::new(Opening::new(is_header)),
        not_spoken: "downstream_not_xmpp",
        without_tls: "in its settings, choose a connection without TLS (not \"direct TLS\")",
        tls_request: None,
    }),
    server: |name| Box::new(Server::new("jabber:client", name)),
    login: None,
    is_answer: |bytes| is_stream(bytes) && !contains(bytes, "jabber:server"),
    limits: None,
    answer: Some(AnswerFormat::XMPP),
    cancellation: None,
    alpn: None,
    server_with_tls: "Prosody, in its prosody.cfg.lua:\n    c2s_require_encryption = true\n    \
                      ssl = { certificate = \"server.crt\", key = \"server.key\" }",
};

pub(super) const SERVER: Protocol = Protocol {
    word: "xmpp-server",
    name: "XMPP between servers",
    port: 5269,
    tls_port: Some(5270),
    schemes: &[],
    server: |name| Box::new(Server::new("jabber:server", name)),
    login: None,
    is_answer: |bytes| is_stream(bytes) && contains(bytes, "jabber:server"),
    server_with_tls: "Prosody, in its prosody.cfg.lua:\n    s2s_require_encryption = true\n    \
                      ssl = { certificate = \"server.crt\", key = \"server.key\" }",
    ..CLIENT
};

/// An XML declaration or a stream header, perhaps behind white space; `None`: more bytes are needed.
fn is_header(bytes: &[u8]) -> Option<bool> {
    bytes.trim_ascii_start().first().map(|first| *first == b'<')
}

/// What a server says to a ClientHello: a stream of its own, with an error.
fn is_stream(bytes: &[u8]) -> bool {
    bytes.starts_with(b"<?xml") || bytes.starts_with(b"<stream:")
}

/// Bytes. Features before TLS are some hundred; a stanza may have 10,000 (section 13.12).
const LONGEST: usize = 10_000;

const STARTTLS: &[u8] = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

struct Server {
    header: String,
    state: State,
    /// Bytes of the server that were used.
    read: usize,
    /// How many elements are open inside the stream.
    open: usize,
    /// Of the stanza that is being read.
    stanza: Stanza,
}

#[derive(PartialEq, Eq)]
enum State {
    Start,
    /// The server's stream header is awaited.
    Opening,
    Features,
    Asked,
}

#[derive(Default)]
struct Stanza {
    name: Vec<u8>,
    /// Names of its children.
    children: Vec<Vec<u8>>,
    text: Vec<u8>,
}

impl Server {
    fn new(namespace: &str, name: &str) -> Self {
        // A name of DNS or an address: nothing that XML would read.
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{name}' version='1.0' xmlns='{namespace}' \
             xmlns:stream='http://etherx.jabber.org/streams'>"
        );
        Self { header, state: State::Start, read: 0, open: 0, stanza: Stanza::default() }
    }

    /// Uses up one token.
    fn token(&mut self, token: &[u8]) -> Result<Option<Stanza>, ServerRefusal> {
        let unexpected = || Err(ServerRefusal::Unexpected(shown(token)));
        let Some(tag) = token.strip_prefix(b"<") else {
            self.stanza.text.extend_from_slice(token);
            return Ok(None);
        };
        let inside = tag.strip_suffix(b">").unwrap_or(tag);
        let ends = inside.first() == Some(&b'/');
        let closed = inside.last() == Some(&b'/');
        let name = local_name(inside);
        match (&self.state, inside.first()) {
            (State::Opening, Some(b'?')) => Ok(None),
            (State::Opening, _) if name == b"stream" && !ends && !closed => {
                self.state = State::Features;
                Ok(None)
            }
            // Comments, instructions and declarations are not allowed (section 11.1).
            (State::Opening, _) | (_, None | Some(b'?' | b'!')) => unexpected(),
            // The end of the stream.
            _ if ends && self.open == 0 => unexpected(),
            _ if ends => {
                self.open -= 1;
                Ok(self.whole())
            }
            _ => {
                match self.open {
                    0 => self.stanza.name = name.to_vec(),
                    1 => self.stanza.children.push(name.to_vec()),
                    _ => {}
                }
                self.open += 1;
                self.open -= usize::from(closed);
                Ok(self.whole())
            }
        }
    }

    fn whole(&mut self) -> Option<Stanza> {
        (self.open == 0).then(|| std::mem::take(&mut self.stanza))
    }

    fn judge(&mut self, stanza: &Stanza, is_last: bool) -> Step<Bytes, ServerRefusal> {
        let offers = stanza.children.iter().any(|child| child == b"starttls");
        match (&self.state, &stanza.name[..]) {
            (State::Features, b"features") if !offers => Step::Refuse(ServerRefusal::NoTls),
            (State::Features, b"features") | (State::Asked, b"proceed") if !is_last => {
                Step::Refuse(ServerRefusal::Injection)
            }
            (State::Features, b"features") => {
                self.state = State::Asked;
                Step::Send(Cow::Borrowed(STARTTLS))
            }
            (State::Asked, b"proceed") => Step::Done(Bytes::new()),
            (State::Asked, b"failure") => Step::Refuse(ServerRefusal::Declined("<failure/>".to_owned())),
            (_, b"error") => {
                Step::Refuse(ServerRefusal::Error(ServerError { text: stanza.error(), message: Bytes::new() }))
            }
            (_, name) => Step::Refuse(ServerRefusal::Unexpected(shown(&[b"<", name, b">"].concat()))),
        }
    }
}

impl Stanza {
    /// The condition, and the text if there is one (section 4.9.1).
    fn error(&self) -> String {
        let conditions = self.children.iter().filter(|child| child[..] != *b"text");
        let words: Vec<&[u8]> = conditions.map(Vec::as_slice).chain([&self.text[..]]).collect();
        shown(&words.join(&b" "[..]))
    }
}

impl Exchange for Server {
    type Outcome = Bytes;
    type Refusal = ServerRefusal;

    fn step(&mut self, input: &mut BytesMut) -> Step<Bytes, ServerRefusal> {
        if self.state == State::Start {
            self.state = State::Opening;
            return Step::Send(Cow::Owned(std::mem::take(&mut self.header).into_bytes()));
        }
        loop {
            let length = match input.first() {
                None => None,
                Some(b'<') => tag_length(input),
                Some(_) if self.open > 0 => Some(input.iter().position(|byte| *byte == b'<').unwrap_or(input.len())),
                // White space between stanzas keeps a connection alive (section 4.6.1).
                Some(space) if space.is_ascii_whitespace() => {
                    input.advance(1);
                    self.read += 1;
                    continue;
                }
                Some(other) => return Step::Refuse(ServerRefusal::NotTheProtocol(*other)),
            };
            let Some(length) = length.filter(|length| self.read + length <= LONGEST) else {
                let left = LONGEST.saturating_sub(self.read + input.len());
                return if left == 0 { Step::Refuse(ServerRefusal::TooLong) } else { Step::Read(left) };
            };
            self.read += length;
            let token = input.split_to(length);
            match self.token(&token) {
                Ok(None) => {}
                Ok(Some(stanza)) => return self.judge(&stanza, !input.has_remaining()),
                Err(refusal) => return Step::Refuse(refusal),
            }
        }
    }
}

/// Of the tag at the start; `None` if it is not whole. A `>` in a quoted value does not end it.
fn tag_length(bytes: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'\'' | b'"') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

/// Without prefix.
fn local_name(inside: &[u8]) -> &[u8] {
    let tag = inside.strip_prefix(b"/").unwrap_or(inside);
    let name = tag.split(|byte| byte.is_ascii_whitespace() || *byte == b'/').next().unwrap_or_default();
    name.rsplit(|byte| *byte == b':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::conversation::{Case, End, check};

    const HEADER: &[u8] = b"<?xml version='1.0'?><stream:stream to='server.example.com' version='1.0' \
xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    const OPENED: &str = "<?xml version='1.0'?>\n<stream:stream id='a>b' from=\"server.example.com\" version='1.0' \
                          xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    const OFFER: &str = "<stream:features>\n <starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
                         <mechanisms><mechanism>PLAIN</mechanism></mechanisms></stream:features>";

    fn opened(features: &str) -> Vec<u8> {
        [OPENED, features].concat().into_bytes()
    }

    #[test]
    fn every_form_of_an_offer_is_read() {
        let prefixed =
            "<s:features xmlns:s='http://etherx.jabber.org/streams'><t:starttls xmlns:t='urn:x'/></s:features>";
        for offer in [OFFER, " \n <stream:features><starttls\nxmlns=\"x\"/></stream:features>", prefixed] {
            for proceed in [
                &b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"[..],
                b"  <t:proceed xmlns:t=\"urn:ietf:params:xml:ns:xmpp-tls\"></t:proceed>",
            ] {
                check(CLIENT, &[Case(&[&opened(offer), proceed], &[HEADER, STARTTLS], End::Done(b""))]);
            }
        }
        let header = String::from_utf8(HEADER.to_vec()).unwrap().replace("jabber:client", "jabber:server");
        let answers = [&opened(OFFER)[..], b"<proceed/>"];
        check(SERVER, &[Case(&answers, &[header.as_bytes(), STARTTLS], End::Done(b""))]);
    }

    #[test]
    fn every_refusal_has_its_class_and_the_servers_text() {
        let both = &[HEADER, STARTTLS][..];
        let one = &[HEADER][..];
        let offer = &opened(OFFER)[..];
        let error = "<stream:error><host-unknown xmlns='x'/><text>not \x1b here</text></stream:error></stream:stream>";
        let long = format!("<stream:features><a>{}", "x".repeat(LONGEST));
        check(
            CLIENT,
            &[
                Case(&[&opened("<stream:features/>")], one, End::NoTls),
                Case(&[&opened("<stream:features><x><starttls/></x></stream:features>")], one, End::NoTls),
                Case(&[offer, b"<failure xmlns='x'/></stream:stream>"], both, End::Declined("<failure/>")),
                Case(&[&opened(error)], one, End::Error("host-unknown not \\u{1b} here")),
                Case(&[offer, b"<message/>"], both, End::Unexpected("<message>")),
                Case(&[offer, b"</stream:stream>"], both, End::Unexpected("</stream:stream>")),
                Case(&[b"<html>"], one, End::Unexpected("<html>")),
                Case(&[&opened("<!-- comment -->")], one, End::Unexpected("<!-- comment -->")),
                Case(&[b"HTTP/1.1 400 Bad Request\r\n"], one, End::NotTheProtocol(b'H')),
                Case(&[offer, b"<proceed/><stream:features/>"], both, End::Injection),
                Case(&[&opened(&long)], one, End::TooLong),
            ],
        );
    }
}
