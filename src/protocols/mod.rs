//! Protocols that begin in plaintext before TLS: one file and one row of [`PROTOCOLS`] for each. Pure functions of
//! bytes; [`drive()`] connects them to a socket.

mod drive;
pub mod exchange;
pub mod postgres;

use std::fmt;
use std::ops::Deref;

pub use drive::{Error, drive};
use exchange::{ClientSide, ServerSide};

/// Everything that egret knows of one protocol.
pub struct Protocol {
    /// The value of `upgrade` in the configuration.
    pub(crate) word: &'static str,
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) schemes: &'static [&'static str],
    pub(crate) stunnel: &'static [&'static str],
    pub(crate) client: fn() -> Box<ClientSide>,
    pub(crate) server: fn() -> Box<ServerSide>,
    pub(crate) tls_request: &'static [u8],
    /// Whether these first bytes of a server, in answer to a ClientHello, are of this protocol.
    pub(crate) is_answer: fn(&[u8]) -> bool,
    /// Reason for a client that does not speak it.
    pub(crate) not_spoken: &'static str,
    pub(crate) client_without_tls: &'static str,
    pub(crate) client_content_with_plaintext: &'static str,
    pub(crate) server_with_tls: &'static str,
}

/// Sorted by `word`. A new one is a file beside this one and a row here.
const PROTOCOLS: &[Protocol] = &[postgres::PROTOCOL];

pub(crate) const WORDS: &[&str] = &{
    let mut words = [""; PROTOCOLS.len()];
    let mut at = 0;
    while at < words.len() {
        words[at] = PROTOCOLS[at].word;
        at += 1;
    }
    words
};

/// A protocol that an upstream is set to speak before TLS.
#[derive(Clone, Copy)]
pub struct Upgrade(&'static Protocol);

impl Upgrade {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        PROTOCOLS.iter().map(Self)
    }

    pub(crate) fn asked_for(bytes: &[u8]) -> Option<Self> {
        Self::all().find(|protocol| bytes.starts_with(protocol.tls_request))
    }

    /// The protocol of a server that answers a ClientHello with these bytes.
    pub(crate) fn of_answer(bytes: &[u8]) -> Option<Self> {
        Self::all().find(|protocol| (protocol.is_answer)(bytes))
    }

    pub(crate) fn of_scheme(scheme: &str) -> Option<Self> {
        Self::all().find(|protocol| protocol.schemes.contains(&scheme))
    }

    pub(crate) fn of_stunnel(word: &str) -> Option<Self> {
        Self::all().find(|protocol| protocol.stunnel.contains(&word))
    }

    /// The protocol of a word of the configuration.
    pub fn of(word: &str) -> Option<Self> {
        Self::all().find(|protocol| protocol.word == word)
    }
}

impl Deref for Upgrade {
    type Target = Protocol;

    fn deref(&self) -> &Protocol {
        self.0
    }
}

impl PartialEq for Upgrade {
    fn eq(&self, other: &Self) -> bool {
        self.word == other.word
    }
}

impl Eq for Upgrade {}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)
    }
}
