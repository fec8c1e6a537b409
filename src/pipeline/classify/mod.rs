//! What the client sends first: pure parsers, and the reading around them.
//!
//! No more is read than the decision needs, and the bytes that were read are returned with it, to be replayed to the
//! server.

pub mod hello;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::net;
use crate::protocols::answers::Fault;
use crate::protocols::exchange::ClientRefusal;
use crate::protocols::{self, ClientFirst, TlsRequest, Upgrade, drive};
use hello::{ClientHello, Hello};

/// What the clients of a listener send first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any bytes, or none: the server may speak first, so nothing is read.
    Anything,
    /// A protocol that egret speaks with the server before TLS. Requests for encryption are declined here: egret
    /// encrypts on the other side.
    Upgrade(Upgrade),
    /// TLS with the server, passed through unchanged.
    Tls,
}

/// How the record of a ClientHello begins: a handshake, and the major version 3 (RFC 8446 section 5.1).
const TLS_RECORD: [u8; 2] = [0x16, 0x03];

/// What a client turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// As far as it was parsed.
    pub protocol: Protocol,
    /// Bytes of the client that were read already: sent to the server first.
    pub early: Bytes,
}

/// What the first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Not parsed, or that of the upstream.
    Plaintext,
    /// A TLS client.
    Tls(ClientHello),
}

/// Classifies the client, within `wait` in all.
///
/// `Expect::Anything` returns at once. Not cancel safe: bytes read are lost with the future.
///
/// # Errors
///
/// Why this client cannot be served; the connection has to be closed.
pub async fn classify(expect: Expect, downstream: &mut net::Stream, wait: Duration) -> Result<Class, Error> {
    let classified = async {
        match expect {
            Expect::Anything => Ok(Class { protocol: Protocol::Plaintext, early: Bytes::new() }),
            Expect::Upgrade(protocol) => start(protocol, downstream).await,
            Expect::Tls => {
                let (hello, early) = drive(&mut Hello::default(), downstream).await.map_err(of_hello)?;
                Ok(Class { protocol: Protocol::Tls(hello), early })
            }
        }
    };
    timeout(wait, classified).await.unwrap_or(Err(Error::Silent { waited: wait }))
}

async fn start(protocol: Upgrade, downstream: &mut net::Stream) -> Result<Class, Error> {
    let Some(client) = &protocol.row().client else {
        return Ok(Class { protocol: Protocol::Plaintext, early: Bytes::new() });
    };
    let started = drive(&mut *(client.side)(), downstream).await;
    let early = started.map_err(|error| match error {
        protocols::Error::Refused(refusal) => Error::Client(protocol, client, refusal),
        protocols::Error::Closed { answered: true } => {
            client.tls_request.as_ref().map_or(Error::Closed, Error::Discontent)
        }
        protocols::Error::Closed { answered: false } => Error::Closed,
        protocols::Error::Io(error) => Error::Io(error),
    })?;
    Ok(Class { protocol: Protocol::Plaintext, early })
}

/// A client that begins with TLS although nothing has to be read of it before the server is there. It would wait for a
/// server that takes its ClientHello for a command. Looks at the socket once and reads nothing: a hello that comes later
/// reaches the server.
pub(crate) fn begins_with_tls(expect: Expect, downstream: &net::Stream) -> Option<Error> {
    let Expect::Upgrade(protocol) = expect else { return None };
    if protocol.client.is_some() {
        return None;
    }
    let is_tls = net::peek(downstream, &mut [0; TLS_RECORD.len()]) == TLS_RECORD;
    is_tls.then_some(Error::BeginsWithTls(protocol))
}

fn of_hello(error: protocols::Error<hello::Refusal>) -> Error {
    match error {
        protocols::Error::Refused(refusal) => Error::Hello(refusal),
        protocols::Error::Closed { .. } => Error::Closed,
        protocols::Error::Io(error) => Error::Io(error),
    }
}

/// Why a client cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not speak the upstream's protocol.
    #[error("{}", client_text(*.0, *.2))]
    Client(Upgrade, &'static ClientFirst, ClientRefusal),
    /// It begins with TLS where the server speaks first.
    #[error("{}", client_text(*.0, ClientRefusal::SpeaksTls))]
    BeginsWithTls(Upgrade),
    /// It does not begin with a ClientHello that can be read.
    #[error("{0}")]
    Hello(hello::Refusal),
    /// It closed after its request for encryption was declined.
    #[error(
        "the client closed before it started a session, after its request for encryption was declined: this listener \
         takes plaintext"
    )]
    Discontent(&'static TlsRequest),
    /// It closed before the decision.
    #[error("the client closed before it started a session")]
    Closed,
    /// It did not send enough in time.
    #[error("the client did not say what it wants within {waited:?}")]
    Silent {
        /// The limit that passed.
        waited: Duration,
    },
    /// The connection failed.
    #[error("the client's connection failed: {0}")]
    Io(#[source] io::Error),
}

fn client_text(protocol: Upgrade, refusal: ClientRefusal) -> String {
    match refusal {
        ClientRefusal::SpeaksTls => {
            "the client begins with a TLS handshake, but this listener takes plaintext".to_owned()
        }
        ClientRefusal::NotTheProtocol(why) => format!("the client does not start a {} session: {why}", protocol.name),
    }
}

impl Error {
    /// The class, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Client(_, _, ClientRefusal::SpeaksTls) | Self::BeginsWithTls(_) => "downstream_speaks_tls",
            Self::Client(_, client, ClientRefusal::NotTheProtocol(_)) => client.not_spoken,
            Self::Hello(hello::Refusal::NotTls(_) | hello::Refusal::Asks(_)) => "downstream_not_tls",
            Self::Hello(hello::Refusal::Malformed(_)) => "downstream_hello_malformed",
            Self::Discontent(_) | Self::Closed => "downstream_closed",
            Self::Silent { .. } => "downstream_silent",
            Self::Io(_) => "downstream_io",
        }
    }

    /// For an answer in the protocol of the listener; `None`: the client is gone, or speaks another protocol than that.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self {
            Self::Client(_, _, refusal) => Some(refusal.fault()),
            Self::BeginsWithTls(_) => Some(Fault::SpeaksTls),
            Self::Silent { .. } => Some(Fault::Silent),
            Self::Hello(hello::Refusal::Asks(_)) => Some(Fault::NotTheProtocol),
            Self::Hello(_) | Self::Discontent(_) | Self::Closed | Self::Io(_) => None,
        }
    }

    /// The protocol in which a client asks for TLS, on a listener without a protocol of its own.
    pub(crate) fn protocol_of_client(&self) -> Option<Upgrade> {
        match self {
            Self::Hello(hello::Refusal::Asks(protocol)) => Some(*protocol),
            _ => None,
        }
    }

    /// What to change, if the failure shows it; always at the client.
    pub fn repair(&self) -> Option<String> {
        match self {
            Self::Client(_, client, ClientRefusal::SpeaksTls) => {
                Some(format!("egret speaks TLS to the server, the client must not; {}", client.without_tls))
            }
            Self::BeginsWithTls(protocol) => Some(format!(
                "egret speaks TLS to the server, the client must not; in the client's settings for {}, choose a connection \
                 without TLS (not \"SSL/TLS\")",
                protocol.name
            )),
            Self::Discontent(request) => Some(format!(
                "the client demands TLS, which egret speaks to the server in its place; {}",
                request.content_with_plaintext
            )),
            Self::Client(protocol, _, ClientRefusal::NotTheProtocol(_)) => Some(protocol.own_clients_only()),
            Self::Hello(hello::Refusal::NotTls(_) | hello::Refusal::Asks(_)) => Some(
                "listeners of upstreams with passthrough = true hand on TLS that the client speaks from its first \
                 byte; with libpq:\n    sslmode=require sslnegotiation=direct"
                    .to_owned(),
            ),
            Self::Hello(hello::Refusal::Malformed(_)) | Self::Closed | Self::Silent { .. } | Self::Io(_) => None,
        }
    }
}
