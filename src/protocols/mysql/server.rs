//! The side towards a server without a client, and what both sides know of a greeting.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::packet::{self, Greeting, Incomplete, REQUEST, capability, packet, until_nul};
use crate::escape;
use crate::protocols::exchange::{Exchange, ServerError, ServerRefusal, Step};

/// Bytes: a version of 60 characters and the name of a plugin make some 150, an error text at most 512.
pub(super) const MAX_GREETING: usize = 1024;

/// Characters of a server's error that are shown.
const MAX_SHOWN: usize = 200;

/// The request for TLS of a connection for which no client has come yet: it can serve none, but a check needs no more.
const NO_CLIENT: [u8; REQUEST] = {
    let flags = capability::PROTOCOL_41 | capability::SECURE_CONNECTION | capability::PLUGIN_AUTH | capability::SSL;
    let flags = flags.to_le_bytes();
    let mut request = [0; REQUEST];
    let mut at = 0;
    while at < flags.len() {
        request[at] = flags[at];
        at += 1;
    }
    // The longest packet, 16 MiB, and the character set utf8mb4.
    request[7] = 1;
    request[8] = 45;
    request
};

/// Reads the greeting, and asks for TLS.
#[derive(Debug)]
pub struct Server {
    request: Bytes,
    greeting: Option<Bytes>,
    asked: bool,
}

impl Server {
    /// `request`: the one of a client that is known.
    pub fn new(request: Option<Bytes>) -> Self {
        let request = request.unwrap_or(Bytes::from_static(&NO_CLIENT));
        Self { request, greeting: None, asked: false }
    }
}

impl Exchange for Server {
    type Outcome = Bytes;
    type Refusal = ServerRefusal;

    fn step(&mut self, input: &mut BytesMut) -> Step<Bytes, ServerRefusal> {
        let Some(greeting) = &self.greeting else {
            return match read_greeting(input) {
                Ok(greeting) => {
                    input.clear();
                    self.greeting = Some(greeting);
                    self.step(input)
                }
                Err(Unread::Lacks(lacks)) => Step::Read(lacks),
                Err(Unread::Refused(refusal)) => Step::Refuse(refusal),
            };
        };
        if self.asked {
            return Step::Done(said(greeting, &self.request));
        }
        self.asked = true;
        Step::Send(Cow::Owned(ask(&self.request)))
    }
}

/// The request as a packet: the first of the client's side.
pub(super) fn ask(request: &[u8]) -> Vec<u8> {
    packet(1, &[request]).expose().to_vec()
}

/// What was said before TLS: a greeting and the request that answered it, in the form in which they were sent.
pub(super) fn said(greeting: &[u8], request: &[u8]) -> Bytes {
    [packet(0, &[greeting]).expose(), packet(1, &[request]).expose()].concat().into()
}

/// The two parts of [`said`].
pub(super) fn parts(said: &Bytes) -> Option<(Bytes, Bytes)> {
    let length = |at: usize| Some(usize::from(*said.get(at)?) | usize::from(*said.get(at + 1)?) << 8);
    let end = 4 + length(0)?;
    (said.len() == end + 4 + REQUEST).then(|| (said.slice(4..end), said.slice(end + 4..)))
}

pub(super) enum Unread {
    Lacks(usize),
    Refused(ServerRefusal),
}

/// The payload of a greeting that offers TLS.
pub(super) fn read_greeting(bytes: &[u8]) -> Result<Bytes, Unread> {
    let refused = |refusal| Err(Unread::Refused(refusal));
    let not_spoken = || refused(ServerRefusal::NotTheProtocol(bytes.first().copied().unwrap_or_default()));
    let payload = match packet::whole(bytes, MAX_GREETING) {
        Ok((0, payload)) => payload,
        Ok(_) | Err(Incomplete::TooLong) => return not_spoken(),
        Err(Incomplete::Lacks(lacks)) => return Err(Unread::Lacks(lacks)),
    };
    if let Some(text) = error_text(payload) {
        let message = Bytes::copy_from_slice(bytes);
        return refused(ServerRefusal::Error(ServerError { text, message }));
    }
    match Greeting::parse(payload) {
        None => not_spoken(),
        Some(greeting) if greeting.capabilities & capability::SSL == 0 => refused(ServerRefusal::NoTls),
        Some(_) => Ok(Bytes::copy_from_slice(payload)),
    }
}

/// The text of an ERR packet in place of a greeting, with its number: too many connections, a host that is blocked.
fn error_text(payload: &[u8]) -> Option<String> {
    let (&[0xff, low, high], text) = payload.split_first_chunk()? else { return None };
    // An SQL state, which servers leave out here: the client's capabilities are not known.
    let text = if let [b'#', _, _, _, _, _, text @ ..] = text { text } else { text };
    let text = until_nul(text).map_or(text, |(text, _)| text);
    let mut shown = String::new();
    String::from_utf8_lossy(text).chars().take(MAX_SHOWN).for_each(|letter| escape::push(&mut shown, letter));
    Some(format!("{shown} (error {})", u16::from_le_bytes([low, high])))
}
