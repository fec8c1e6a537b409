//! The plaintext exchange with a server before TLS begins.
//!
//! What lies in the socket right after the server's agreement is reported as `upgrade_plaintext_injection`: a server
//! has to wait for the ClientHello. Bytes that arrive later cannot be distinguished here from the server's first
//! record; they fail the handshake.

use std::io;
use std::mem::MaybeUninit;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::config::values::Name;
use crate::config::values::quoting::key;
use crate::protocols::answers::AnswerFormat;
use crate::protocols::exchange::{ServerRefusal, ServerSide};
use crate::protocols::login::LoginInside;
use crate::protocols::{self, Upgrade, drive};

/// Makes a fresh connection ready for TLS: on success the next bytes in both directions are TLS records. Returns what the
/// client has to read first. `name` is the one that the server's certificate is verified for.
///
/// Has no deadline of its own; the caller bounds it. Not cancel safe: close the connection after a dropped call.
///
/// # Errors
/// The server did not agree, or sent more than its agreement.
pub async fn upgrade(protocol: Upgrade, tcp: &mut TcpStream, name: &str) -> Result<Bytes, Error> {
    run(protocol, &mut *protocol.server_side(name), tcp).await
}

/// As [`upgrade`], for a client whose request for TLS is known: the one with which it logs in.
pub(super) async fn upgrade_for(
    protocol: Upgrade,
    login: &LoginInside,
    request: Bytes,
    tcp: &mut TcpStream,
) -> Result<Bytes, Error> {
    run(protocol, &mut *(login.server)(request), tcp).await
}

async fn run(protocol: Upgrade, server: &mut ServerSide, tcp: &mut TcpStream) -> Result<Bytes, Error> {
    let agreed = drive(server, tcp).await.map_err(Cause::from);
    agreed.and_then(|said| nothing_more(tcp).map(|()| said)).map_err(|cause| Error { protocol, cause })
}

/// Peeks whether the server has sent more than its agreement.
pub(crate) fn nothing_more(tcp: &TcpStream) -> Result<(), Cause> {
    // Peeks at the socket itself: tokio's own peek relies on readiness that it has seen before.
    match SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]) {
        Ok(0) => Err(Cause::Closed),
        Ok(_) => Err(Cause::Refusal(ServerRefusal::Injection)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(Cause::Io(error)),
    }
}

/// An upgrade that failed.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Error {
    protocol: Upgrade,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("{}", text(.0))]
    Refusal(ServerRefusal),
    #[error("the server closed the connection instead of agreeing to TLS")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
}

fn text(refusal: &ServerRefusal) -> String {
    match refusal {
        ServerRefusal::NoTls => "the server does not offer TLS".to_owned(),
        ServerRefusal::Error(error) => format!("the server answered with an error (not authenticated): {}", error.text),
        ServerRefusal::Declined(text) => {
            format!("the server does not begin TLS; its answer (not authenticated): {text}")
        }
        ServerRefusal::Impossible(why) => format!("the server cannot begin TLS; {why}"),
        ServerRefusal::Unexpected(text) => {
            format!("the server's answer is not one of the protocol (not authenticated): {text}")
        }
        ServerRefusal::TooLong => "the server's answer is longer than answers of the protocol are".to_owned(),
        ServerRefusal::NotTheProtocol(byte) => format!("the server's answer, 0x{byte:02x}, is not one of the protocol"),
        ServerRefusal::Injection => {
            "plaintext follows the server's agreement to TLS: something on the way, or the server, injects it"
                .to_owned()
        }
    }
}

impl From<protocols::Error<ServerRefusal>> for Cause {
    fn from(error: protocols::Error<ServerRefusal>) -> Self {
        match error {
            protocols::Error::Refused(refusal) => Self::Refusal(refusal),
            protocols::Error::Closed { .. } => Self::Closed,
            protocols::Error::Io(error) => Self::Io(error),
        }
    }
}

impl Error {
    pub(super) fn new(protocol: Upgrade, cause: Cause) -> Self {
        Self { protocol, cause }
    }

    /// The class, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match &self.cause {
            Cause::Refusal(ServerRefusal::NoTls | ServerRefusal::Declined(_) | ServerRefusal::Impossible(_)) => {
                "upgrade_refused"
            }
            Cause::Refusal(ServerRefusal::Error(_)) => "upgrade_error",
            Cause::Refusal(
                ServerRefusal::NotTheProtocol(_) | ServerRefusal::Unexpected(_) | ServerRefusal::TooLong,
            ) => "upgrade_not_the_protocol",
            Cause::Refusal(ServerRefusal::Injection) => "upgrade_plaintext_injection",
            Cause::Closed => "upgrade_closed",
            Cause::Io(_) => "upgrade_io",
        }
    }

    /// The server's own refusal, for a client of this protocol; empty if there is none.
    pub(crate) fn message(&self, format: AnswerFormat) -> Bytes {
        match &self.cause {
            Cause::Refusal(ServerRefusal::Error(error)) if self.protocol.answer == Some(format) => {
                error.message.clone()
            }
            _ => Bytes::new(),
        }
    }

    /// The server understood, and does not offer TLS.
    pub(crate) fn is_no(&self) -> bool {
        matches!(self.cause, Cause::Refusal(ServerRefusal::NoTls | ServerRefusal::Declined(_)))
    }

    /// What to change, if the failure shows it.
    pub fn repair(&self, upstream: &Name) -> Option<String> {
        let Self { protocol, cause } = self;
        match cause {
            Cause::Refusal(ServerRefusal::NoTls | ServerRefusal::Declined(_)) => {
                Some(format!("the server has TLS switched off; {}", protocol.server_with_tls))
            }
            Cause::Refusal(
                ServerRefusal::NotTheProtocol(_) | ServerRefusal::Unexpected(_) | ServerRefusal::TooLong,
            )
            | Cause::Closed => Some(format!(
                "if this server speaks TLS from the first byte, it is not {}, or does not begin TLS by a request; \
                 remove from [upstreams.{}]:\n    upgrade = \"{}\"",
                protocol.name,
                key(upstream.as_str()),
                protocol.word
            )),
            Cause::Refusal(ServerRefusal::Error(_) | ServerRefusal::Impossible(_) | ServerRefusal::Injection)
            | Cause::Io(_) => None,
        }
    }
}
