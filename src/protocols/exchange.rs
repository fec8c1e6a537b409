//! One side of a plaintext exchange, as a pure machine: bytes in, the next step out.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::answers::Fault;

/// What egret sends and expects before the connection's actual protocol. The steps do not depend on how the peer's
/// bytes are split.
pub trait Exchange {
    /// The result of the exchange.
    type Outcome;
    /// Why a peer does not take part.
    type Refusal;

    /// Makes one step. `input` holds the received bytes that are not consumed yet; the exchange consumes what it has
    /// used.
    fn step(&mut self, input: &mut BytesMut) -> Step<Self::Outcome, Self::Refusal>;
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T, R> {
    /// Read at most this many bytes, at least one, and step again. Bytes behind them must stay in the socket: they may
    /// belong to TLS.
    Read(usize),
    /// Send this and step again.
    Send(Cow<'static, [u8]>),
    /// The peer sends the reason of its refusal: read until it ends, is silent, or has sent this many bytes; then step
    /// again.
    ReadReason(usize),
    /// The exchange is over.
    Done(T),
    /// The peer does not take part.
    Refuse(R),
}

/// The side towards a client that speaks the protocol in plaintext. Its outcome is the client's bytes that were read
/// and belong to the server.
pub type ClientSide = dyn Exchange<Outcome = Bytes, Refusal = ClientRefusal> + Send;

/// The side towards a server that is to begin TLS. Its outcome is what the server said of its own accord and the client
/// has to read first: the greeting of a protocol in which the server speaks first, without its offer of TLS.
pub type ServerSide = dyn Exchange<Outcome = Bytes, Refusal = ServerRefusal> + Send;

/// Why a client cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientRefusal {
    /// It began with a TLS record.
    SpeaksTls,
    /// It does not speak the protocol; the text says how that showed.
    NotTheProtocol(&'static str),
}

impl ClientRefusal {
    pub(crate) fn fault(self) -> Fault {
        match self {
            Self::SpeaksTls => Fault::SpeaksTls,
            Self::NotTheProtocol(_) => Fault::NotTheProtocol,
        }
    }
}

/// Why a server does not begin TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerRefusal {
    /// It understands, and does not offer TLS.
    NoTls,
    /// It answered with an error.
    Error(ServerError),
    /// It declined the request for TLS. Text of a server that is not authenticated: bounded, control characters escaped.
    Declined(String),
    /// It cannot begin TLS in the state in which it begins; the text says why.
    Impossible(&'static str),
    /// Its answer, in the same form of text, is not one of the protocol.
    Unexpected(String),
    /// Its answer is longer than answers of the protocol are.
    TooLong,
    /// It answered with a byte that is not of the protocol.
    NotTheProtocol(u8),
    /// It sent more than its agreement, before TLS.
    Injection,
}

/// The error of a server that is not authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// For the log: bounded, control characters escaped.
    pub text: String,
    /// The whole message, for the client that it was meant for; bounded. Empty: it cannot be handed on.
    pub message: Bytes,
}
