//! What is said in plaintext before TLS begins.
//!
//! Each protocol is a pure machine ([`Steps`]) that is fed bytes and says what to do next; [`drive`] does
//! it. The driver reads exactly as many bytes as the machine asks for and keeps none back. That is what
//! makes an upgrade safe: bytes that somebody on the way slips in behind the server's "yes" stay in the
//! socket, where TLS takes them for a record and refuses them. They can never be read as data of the
//! protected stream (CVE-2021-23222 is the case of clients that had a read buffer here).
//!
//! What lies in the socket right after the "yes" is reported as `upgrade_plaintext_injection`: a server has
//! to wait for the ClientHello. Bytes that arrive later cannot be told from the server's first record here;
//! they fail the handshake.

pub mod postgres;

use std::borrow::Cow;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::values::{Name, Upgrade};

/// What a machine wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, then step with no input.
    Write(Cow<'static, [u8]>),
    /// Read exactly so many bytes (at least one), then step with them.
    Need(usize),
    /// The upgrade has failed and the peer is saying why: read until it ends, is silent, or has said so
    /// many bytes; then step with them.
    Rest(usize),
    /// The next byte belongs to TLS.
    Done,
    /// The server did not agree.
    Fail(Refusal),
}

/// A protocol's preamble: a pure function of the bytes read so far.
pub trait Steps {
    /// Goes on. `input` is what the last step asked for; empty at first and after a write.
    fn step(&mut self, input: &[u8]) -> Step;
}

/// How a server declined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It understands, and does not offer TLS.
    NoTls,
    /// It answered with an error. Text from an unauthenticated peer: bounded, control characters escaped.
    Error(String),
    /// It answered with something that is not of the protocol.
    NotTheProtocol(u8),
}

/// Makes a fresh connection ready for TLS: on success the next bytes in both directions are TLS records.
///
/// Has no deadline of its own; the caller bounds it. Not cancel safe: a connection whose upgrade was
/// given up is to be closed.
pub async fn upgrade(kind: Upgrade, tcp: &mut TcpStream) -> Result<(), Error> {
    let outcome = match kind {
        Upgrade::Postgres => drive(&mut postgres::Postgres::default(), tcp).await,
    };
    let outcome = outcome.and_then(|()| nothing_more(tcp));
    outcome.map_err(|cause| Error { kind, cause })
}

/// Runs a machine over a stream.
pub async fn drive<S>(steps: &mut impl Steps, stream: &mut S) -> Result<(), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = Vec::new();
    loop {
        let step = steps.step(&input);
        input.clear();
        match step {
            Step::Write(bytes) => stream.write_all(&bytes).await.map_err(Cause::Io)?,
            Step::Need(count) => {
                input.resize(count, 0);
                stream.read_exact(&mut input).await.map_err(Cause::from_read)?;
            }
            Step::Rest(most) => {
                // Whatever ends it, the text so far is what there is to show.
                let _ = timeout(LAST_WORDS, stream.take(most as u64).read_to_end(&mut input)).await;
            }
            Step::Done => return Ok(()),
            Step::Fail(refusal) => return Err(Cause::Refusal(refusal)),
        }
    }
}

/// A server sends its error and closes; one that keeps the connection is not waited for longer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Looks, without taking, whether the server has said more than its "yes".
fn nothing_more(tcp: &TcpStream) -> Result<(), Cause> {
    // Asked of the socket itself: tokio's own peek goes by readiness it has seen before.
    match SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]) {
        Ok(0) => Err(Cause::Closed),
        Ok(_) => Err(Cause::PlaintextInjection),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(Cause::from_read(error)),
    }
}

/// An upgrade that failed.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Error {
    /// Of which protocol.
    pub(crate) kind: Upgrade,
    /// Why.
    pub(crate) cause: Cause,
}

/// Why an upgrade failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The server declined.
    #[error("{}", said(.0))]
    Refusal(Refusal),
    /// There were bytes behind the server's "yes" that TLS does not cover.
    #[error("plaintext follows the server's agreement to TLS: something on the way, or the server, injects it")]
    PlaintextInjection,
    /// The server closed before it answered in full.
    #[error("the server closed the connection instead of agreeing to TLS")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
}

fn said(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoTls => "the server does not offer TLS".to_owned(),
        Refusal::Error(text) => format!("the server answered with an error (not authenticated): {text}"),
        Refusal::NotTheProtocol(byte) => format!("the server's answer, 0x{byte:02x}, is not one of the protocol"),
    }
}

impl Cause {
    fn from_read(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl Error {
    /// The class, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match &self.cause {
            Cause::Refusal(Refusal::NoTls) => "upgrade_refused",
            Cause::Refusal(Refusal::Error(_)) => "upgrade_error",
            Cause::Refusal(Refusal::NotTheProtocol(_)) => "upgrade_not_the_protocol",
            Cause::PlaintextInjection => "upgrade_plaintext_injection",
            Cause::Closed => "upgrade_closed",
            Cause::Io(_) => "upgrade_io",
        }
    }

    /// What to change, if the failure tells.
    pub fn repair(&self, upstream: &Name) -> Option<String> {
        match self.kind {
            Upgrade::Postgres => postgres::repair(&self.cause, upstream),
        }
    }
}
