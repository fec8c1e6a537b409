//! Protocols that begin in plaintext before TLS: one file and one row of [`PROTOCOLS`] for each. Pure functions of
//! bytes; [`drive()`] connects them to a socket.

pub mod answers;
pub mod cancel;
#[cfg(test)]
mod conversation;
mod drive;
pub mod exchange;
mod ftp;
mod imap;
mod ldap;
mod lines;
pub mod login;
pub mod mysql;
mod nntp;
mod opening;
mod pop3;
pub mod postgres;
mod postgres_keys;
pub mod rsa;
mod sieve;
mod smtp;
mod text;
mod xmpp;

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use answers::AnswerFormat;
use bytes::BytesMut;
use cancel::{Cancellation, KeyReader};
pub use drive::{Error, drive};
use exchange::{ClientSide, ServerSide, Step};
use login::LoginInside;

/// Everything that egret knows of one protocol.
pub struct Protocol {
    /// The value of `upgrade` in the configuration.
    pub(crate) word: &'static str,
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    /// The port on which its servers usually speak TLS from the first byte.
    pub(crate) tls_port: Option<u16>,
    /// Default of the time that a warm connection may wait for a client: of the time that servers wait for a log-in, the
    /// client has to get most.
    pub(crate) max_idle_age: Duration,
    pub(crate) schemes: &'static [&'static str],
    pub(crate) stunnel: &'static [&'static str],
    /// `None`: the server speaks first, or its clients ask for nothing before TLS.
    pub(crate) client: Option<ClientFirst>,
    /// Made with the name that the server's certificate is verified for.
    pub(crate) server: fn(&str) -> Box<ServerSide>,
    /// The client's login goes on inside TLS, and egret takes part in it.
    pub(crate) login: Option<LoginInside>,
    /// Whether these first bytes of a server, its greeting or its answer to a ClientHello, are of this protocol.
    pub(crate) is_answer: fn(&[u8]) -> bool,
    /// What does not work through egret, as `egret check` notes it.
    pub(crate) limits: Option<&'static str>,
    /// How a server is made to offer TLS.
    pub(crate) server_with_tls: &'static str,
    /// How its clients are answered when they cannot be served. `None`: by a reset.
    pub(crate) answer: Option<AnswerFormat>,
    /// `None`: a session is not cancelled by another connection.
    pub(crate) cancellation: Option<Cancellation>,
    /// The protocol of ALPN that its servers demand.
    pub(crate) alpn: Option<&'static str>,
}

/// Clients that speak first, and have to be answered before a server is there.
#[derive(Debug)]
pub struct ClientFirst {
    pub(crate) side: fn() -> Box<ClientSide>,
    /// The reason for one that does not speak the protocol.
    pub(crate) not_spoken: &'static str,
    /// How one is made to begin without TLS.
    pub(crate) without_tls: &'static str,
    /// `None`: a request for TLS is for the server.
    pub(crate) tls_request: Option<TlsRequest>,
}

/// A client's request for TLS that is declined before a server is there.
#[derive(Debug)]
pub struct TlsRequest {
    pub(crate) bytes: &'static [u8],
    /// How a client is made to go on when it is declined.
    pub(crate) content_with_plaintext: &'static str,
}

/// For servers that wait for at least a minute: PostgreSQL (`authentication_timeout`), Dovecot (3 minutes), slapd, Prosody
/// and vsftpd (5 minutes).
const PATIENT: Duration = Duration::from_secs(10);

/// For servers that wait for 10 s: Postfix under stress (`smtpd_timeout`), INN (`initialtimeout`), MySQL and MariaDB
/// (`connect_timeout`).
const HASTY: Duration = Duration::from_secs(5);

/// Sorted by `word`. A new one is a file beside this one and a row here.
const PROTOCOLS: &[Protocol] = &[
    ftp::PROTOCOL,
    imap::PROTOCOL,
    ldap::PROTOCOL,
    smtp::LMTP,
    mysql::PROTOCOL,
    nntp::PROTOCOL,
    pop3::PROTOCOL,
    postgres::PROTOCOL,
    postgres::DIRECT,
    sieve::PROTOCOL,
    smtp::SMTP,
    xmpp::CLIENT,
    xmpp::SERVER,
];

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
        Self::all().find(|protocol| protocol.tls_request().is_some_and(|request| bytes.starts_with(request.bytes)))
    }

    pub(crate) fn tls_request(self) -> Option<&'static TlsRequest> {
        self.0.client.as_ref()?.tls_request.as_ref()
    }

    /// The protocol of a server that begins with these bytes, or answers a ClientHello with them.
    pub(crate) fn of_answer(bytes: &[u8]) -> Option<Self> {
        Self::all().find(|protocol| (protocol.is_answer)(bytes))
    }

    pub(crate) fn of_scheme(scheme: &str) -> Option<Self> {
        Self::all().find(|protocol| protocol.schemes.contains(&scheme))
    }

    pub(crate) fn of_stunnel(word: &str) -> Option<Self> {
        Self::all().find(|protocol| protocol.stunnel.contains(&word))
    }

    /// The repair for clients of another protocol.
    pub(crate) fn own_clients_only(self) -> String {
        format!("listeners of an upstream with upgrade = \"{}\" serve {} clients only", self.word, self.name)
    }

    /// Reads the key by which the session of a server can be cancelled; `None`: its sessions are not cancelled by others.
    pub fn key_reader(self) -> Option<Box<dyn KeyReader>> {
        self.0.cancellation.as_ref().map(|cancellation| (cancellation.announced)())
    }

    /// The side towards a server whose certificate is verified for this name.
    pub fn server_side(self, name: &str) -> Box<ServerSide> {
        (self.0.server)(name)
    }

    /// Whether the server says nothing before it is asked.
    pub(crate) fn waits_for_client(self) -> bool {
        matches!(self.server_side("").step(&mut BytesMut::new()), Step::Send(_))
    }

    /// The same protocol with TLS from the first byte, if servers of it can have both on one port.
    pub(crate) fn direct(self) -> Option<Self> {
        Self::all().find(|other| other.name == self.name && other.alpn.is_some() && *other != self)
    }

    pub(crate) fn row(self) -> &'static Protocol {
        self.0
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
