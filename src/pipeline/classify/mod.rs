//! What does the client say first? Pure machines, and the reading around them.
//!
//! No more is read than the answer needs, and what was read of the client's data goes with the answer, to
//! be replayed to the server.

pub mod hello;
pub mod postgres;

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::net;
use hello::{ClientHello, Hello};
use postgres::{Postgres, Startup};

/// What a listener's clients are known to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any bytes, or none: the server may speak first, so nothing is read.
    Anything,
    /// PostgreSQL. Requests for encryption are answered `N` here: egret does it on the other side.
    Postgres,
    /// TLS with the server, which goes through untouched.
    Tls,
}

/// What a client turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The protocol, as far as it was looked at.
    pub protocol: Protocol,
    /// The client's bytes that were read already: the first the server gets.
    pub early: Bytes,
}

/// What the first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Not looked at.
    Unknown,
    /// A PostgreSQL client.
    Postgres(Startup),
    /// A TLS client.
    Tls(ClientHello),
}

/// A pure machine that is fed with what the client says.
pub trait Machine {
    /// Goes on with what has arrived. `input` grows between calls, the machine takes from it what it is done with.
    fn step(&mut self, input: &mut BytesMut) -> Step;
}

/// What a machine has to say to the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed for the next step, at most so many.
    More(usize),
    /// Send this to the client and go on.
    Answer(&'static [u8]),
    /// This it is.
    Yes(Class),
    /// This it is not.
    No(Refusal),
}

/// How a client shows that it is not what the listener expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It sent a TLS ClientHello.
    SpeaksTls,
    /// It sent something that is no start of a PostgreSQL session; says what.
    NotPostgres(&'static str),
    /// It sent something that is no TLS, or no first message of a client; says what.
    NotTls(&'static str),
    /// Its ClientHello breaks the protocol; says where.
    HelloMalformed(&'static str),
}

/// Finds out what the client is, within `wait` over all.
///
/// `Expect::Anything` returns at once. Not cancel safe: bytes read are lost with the future.
///
/// # Errors
///
/// Says why this client cannot be served; the connection is then to be closed.
pub async fn classify(expect: Expect, downstream: &mut net::Stream, wait: Duration) -> Result<Class, Error> {
    match expect {
        Expect::Anything => Ok(Class { protocol: Protocol::Unknown, early: Bytes::new() }),
        Expect::Postgres => within(wait, drive(&mut Postgres::default(), downstream)).await,
        Expect::Tls => within(wait, drive(&mut Hello::default(), downstream)).await,
    }
}

async fn within(wait: Duration, classified: impl Future<Output = Result<Class, Error>>) -> Result<Class, Error> {
    timeout(wait, classified).await.unwrap_or(Err(Error::Silent { waited: wait }))
}

/// Room for a usual ClientHello with a post-quantum key, which is the longest of what clients say first.
const ROOM: usize = 2048;

async fn drive<S>(machine: &mut impl Machine, stream: &mut S) -> Result<Class, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::new();
    let mut answered = false;
    loop {
        let step = machine.step(&mut input);
        match step {
            Step::More(count) => {
                input.reserve(count.min(ROOM));
                let read = stream.take(count as u64).read_buf(&mut input).await;
                if read.map_err(Error::Io)? == 0 {
                    return Err(Error::Closed { answered });
                }
            }
            Step::Answer(bytes) => {
                answered = true;
                stream.write_all(bytes).await.map_err(Error::Io)?;
            }
            Step::Yes(class) => return Ok(class),
            Step::No(refusal) => return Err(Error::Refusal(refusal)),
        }
    }
}

/// Why a client cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what the listener expects.
    #[error("{}", said(.0))]
    Refusal(Refusal),
    /// It closed before it said enough.
    #[error("the client closed before it started a session{}", after_answer(*.answered))]
    Closed {
        /// After it was told that there is no encryption here.
        answered: bool,
    },
    /// It did not say enough in time.
    #[error("the client did not say what it wants within {waited:?}")]
    Silent {
        /// How long it had.
        waited: Duration,
    },
    /// The connection failed.
    #[error("the client's connection failed: {0}")]
    Io(#[source] io::Error),
}

fn said(refusal: &Refusal) -> String {
    match refusal {
        Refusal::SpeaksTls => "the client begins with a TLS handshake, but this listener takes plaintext".to_owned(),
        Refusal::NotPostgres(why) => format!("the client does not start a PostgreSQL session: {why}"),
        Refusal::NotTls(why) => format!("the client does not begin with a TLS handshake: {why}"),
        Refusal::HelloMalformed(why) => format!("the client's ClientHello breaks the protocol: {why}"),
    }
}

fn after_answer(answered: bool) -> &'static str {
    if answered { ", having asked for encryption and been told that this listener takes plaintext" } else { "" }
}

impl Error {
    /// The class, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refusal(Refusal::SpeaksTls) => "downstream_speaks_tls",
            Self::Refusal(Refusal::NotPostgres(_)) => "downstream_not_postgres",
            Self::Refusal(Refusal::NotTls(_)) => "downstream_not_tls",
            Self::Refusal(Refusal::HelloMalformed(_)) => "downstream_hello_malformed",
            Self::Closed { .. } => "downstream_closed",
            Self::Silent { .. } => "downstream_silent",
            Self::Io(_) => "downstream_io",
        }
    }

    /// What to change, if the failure tells; on the client's side in every case.
    pub fn repair(&self) -> Option<String> {
        match self {
            Self::Refusal(Refusal::SpeaksTls) => Some(
                "egret speaks TLS to the server, the client must not; in its connection string:\n    \
                 sslmode=disable sslnegotiation=postgres"
                    .to_owned(),
            ),
            Self::Closed { answered: true } => Some(
                "the client demands TLS, which egret speaks to the server in its place; in its connection string:\n    \
                 sslmode=disable gssencmode=disable"
                    .to_owned(),
            ),
            Self::Refusal(Refusal::NotPostgres(_)) => {
                Some("listeners of an upstream with upgrade = \"postgres\" serve PostgreSQL clients only".to_owned())
            }
            Self::Refusal(Refusal::NotTls(_)) => Some(
                "listeners of upstreams with passthrough = true hand on TLS that the client speaks from its first \
                 byte; with libpq:\n    sslmode=require sslnegotiation=direct"
                    .to_owned(),
            ),
            Self::Refusal(Refusal::HelloMalformed(_)) => None,
            Self::Closed { answered: false } | Self::Silent { .. } | Self::Io(_) => None,
        }
    }
}
