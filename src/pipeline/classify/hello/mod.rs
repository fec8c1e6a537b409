//! A TLS client's first flight: what its ClientHello asks for (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).
//!
//! Only the parts that routing needs are parsed. The bytes go to the server unchanged, which checks the rest; GREASE
//! values (RFC 8701) are ignored. With an encrypted ClientHello this is the outer one, whose server name is that of the
//! provider.

use std::fmt;
use std::io::IoSlice;

use bytes::{Bytes, BytesMut};

use crate::net;
use crate::protocols::Upgrade;
use crate::protocols::exchange::{Exchange, Step};
use crate::tls::hello::{self, ALPN, CLIENT_HELLO, HANDSHAKE, MESSAGE_HEAD, RECORD_HEAD, SERVER_NAME};
use crate::tls::record::MAX_PLAINTEXT;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The host name of the SNI extension (RFC 6066), in lower case and without a closing dot.
    pub server_name: Option<Box<str>>,
    /// The protocols of the ALPN extension (RFC 7301), in the client's order.
    pub alpn: Vec<Box<[u8]>>,
}

impl fmt::Display for ClientHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server_name {
            Some(name) => write!(f, "the name {name}")?,
            None => f.write_str("clients that send no name")?,
        }
        if self.alpn.is_empty() {
            return Ok(());
        }
        let shown: Vec<_> = self.alpn.iter().take(SHOWN).map(|protocol| protocol.escape_ascii().to_string()).collect();
        let more = if self.alpn.len() > SHOWN { ", ..." } else { "" };
        write!(f, " with the protocols {}{more}", shown.join(", "))
    }
}

/// Most protocols that a message names; browsers offer two.
const SHOWN: usize = 8;

/// Sends the alert unrecognized_name (RFC 6066 section 3), so that the client reports more than "connection reset".
/// Best effort: the alert is dropped if the socket has no room at once.
pub(crate) fn send_unrecognized_name(downstream: &net::Stream) {
    // A fatal alert in a record of its own: unrecognized_name.
    const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
    let _ = net::try_write(downstream, &[IoSlice::new(&ALERT)]);
}

/// A ClientHello, record by record. Every record is parsed once, in however many pieces it arrives.
#[derive(Clone, Debug, Default)]
pub struct Hello {
    /// Offset of the next record; the records before it are in `message`.
    at: usize,
    /// The handshake message as far as it came, without the heads of records.
    message: Vec<u8>,
}

/// What is read of a client before it is refused, heads of records included. Browsers send two kilobytes with a
/// post-quantum key; what other implementations accept is 64 KiB (OpenSSL's limit is 131 KiB).
pub const MAX_HELLO: usize = 64 << 10;

/// How a client shows that it does not begin with a ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It sent something that is no TLS, or no first message of a client; says what.
    #[error("the client does not begin with a TLS handshake: {0}")]
    NotTls(&'static str),
    /// It asks for TLS as clients of a protocol do that begins in plaintext.
    #[error("the client does not begin with a TLS handshake: a request for TLS in the manner of {}", .0.name)]
    Asks(Upgrade),
    /// Its ClientHello breaks the protocol; says where.
    #[error("the client's ClientHello breaks the protocol: {0}")]
    Malformed(&'static str),
}

impl Exchange for Hello {
    type Outcome = (ClientHello, Bytes);
    type Refusal = Refusal;

    /// `input` holds everything since the first byte; all of it belongs to the server.
    fn step(&mut self, input: &mut BytesMut) -> Step<Self::Outcome, Refusal> {
        match self.read_hello(input) {
            Ok(Some(hello)) => Step::Done((hello, std::mem::take(input).freeze())),
            Ok(None) => Step::Read(MAX_HELLO - input.len()),
            Err(refusal) => Step::Refuse(refusal),
        }
    }
}

impl Hello {
    fn read_hello(&mut self, input: &[u8]) -> Result<Option<ClientHello>, Refusal> {
        loop {
            let rest = &input[self.at..];
            let Some(record) = record(rest).map_err(|refusal| self.refuse(refusal, input))? else {
                return self.wait(rest, input.len());
            };
            // Mostly the whole hello is in one record, and is read in place.
            let message = match self.message.is_empty() {
                true => record,
                false => {
                    self.message.extend_from_slice(record);
                    &self.message
                }
            };
            if let Some(body) = body(message)? {
                return parse(body).map(Some).map_err(Refusal::Malformed);
            }
            if self.message.is_empty() {
                self.message = record.to_vec();
            }
            self.at += RECORD_HEAD + record.len();
        }
    }

    /// More bytes are needed, unless the partial record already shows that they would be useless.
    fn wait(&self, rest: &[u8], read: usize) -> Result<Option<ClientHello>, Refusal> {
        if let Some(begun) = rest.get(RECORD_HEAD..).filter(|_| self.message.is_empty()) {
            body(begun)?;
        }
        if read >= MAX_HELLO {
            return Err(TOO_LONG);
        }
        Ok(None)
    }

    /// Only the first record decides whether this is TLS at all.
    fn refuse(&self, refusal: Refusal, input: &[u8]) -> Refusal {
        match refusal {
            Refusal::NotTls(_) if self.at > 0 => Refusal::Malformed("another record comes before its end"),
            Refusal::NotTls(_) => Upgrade::asked_for(input).map_or(refusal, Refusal::Asks),
            refusal => refusal,
        }
    }
}

const TOO_LONG: Refusal = Refusal::Malformed("it is longer than 64 KiB");

fn record(input: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    match *input {
        [first, ..] if first != HANDSHAKE => return Err(Refusal::NotTls("the first byte is that of no TLS handshake")),
        [_, major, ..] if major != 3 => return Err(Refusal::NotTls("the record is of no version of TLS")),
        _ => {}
    }
    let Some((head, rest)) = input.split_first_chunk::<RECORD_HEAD>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    match length {
        0 => Err(Refusal::Malformed("a record is empty")),
        _ if length > MAX_PLAINTEXT => Err(Refusal::Malformed("a record is longer than 16 KiB")),
        _ => Ok(rest.get(..length)),
    }
}

fn body(message: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Refusal::NotTls("the first handshake message is no ClientHello"));
    }
    let Some((head, rest)) = message.split_first_chunk::<MESSAGE_HEAD>() else { return Ok(None) };
    let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
    // Records' heads come on top.
    if length > MAX_HELLO - MESSAGE_HEAD - RECORD_HEAD {
        return Err(TOO_LONG);
    }
    if rest.len() > length {
        return Err(Refusal::Malformed("something follows it in its record"));
    }
    Ok((rest.len() == length).then_some(rest))
}

fn parse(body: &[u8]) -> Result<ClientHello, &'static str> {
    let mut hello = ClientHello::default();
    let mut named = false;
    let mut offered = false;
    for extension in hello::ClientHello::read(body)?.extensions {
        let (kind, content) = extension?;
        match kind {
            SERVER_NAME if std::mem::replace(&mut named, true) => return Err("it has two server names"),
            ALPN if std::mem::replace(&mut offered, true) => return Err("it has ALPN twice"),
            SERVER_NAME => hello.server_name = hello::read_server_name(content)?.map(host_name).transpose()?,
            ALPN => hello.alpn = hello::read_protocols(content)?.into_iter().map(Into::into).collect(),
            _ => {}
        }
    }
    Ok(hello)
}

/// Normalized for comparison. A name that DNS cannot have is accepted: it just has no route.
fn host_name(name: &[u8]) -> Result<Box<str>, &'static str> {
    let text = str::from_utf8(name).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
    let text = text.ok_or("its server name is not in ASCII")?;
    let text = text.strip_suffix('.').unwrap_or(text);
    match text.len() {
        1..=MAX_NAME => Ok(text.to_ascii_lowercase().into()),
        _ => Err("its server name is empty or too long"),
    }
}

/// The longest name of DNS (RFC 1035 section 2.3.4), in text.
const MAX_NAME: usize = 253;

#[cfg(test)]
mod tests;
