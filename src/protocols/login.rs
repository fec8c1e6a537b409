//! A login that goes on inside TLS: egret is between a client and a server, and both are read and written by turns.
//!
//! The two parts, before TLS and inside it, are pure machines as those of [`exchange`](super::exchange) are: bytes of
//! both peers in, the next action out. [`mediate`] connects them to two peers.

use bytes::Bytes;

use super::exchange::{ClientRefusal, ServerRefusal, ServerSide};
use super::rsa::{self, DecryptionKey};
use crate::secret::Secret;

/// One of the two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Plaintext.
    Client,
    /// Plaintext before TLS, else inside it.
    Server,
}

/// What to do next between a client and a server.
#[derive(Debug)]
pub enum Action<T> {
    /// Read at most this many bytes, at least one, from this side, and step again. Bytes behind them stay where they
    /// are.
    Read(Side, usize),
    /// As `Read`, from the side that speaks first; the numbers are for the client and for the server.
    ReadEither(usize, usize),
    /// Send this and step again.
    Send(Side, Secret),
    /// Step again with [`Inputs::key`].
    MakeKey,
    /// This part is over.
    Done(T),
    /// It cannot come to its end.
    Refuse(Refusal),
}

/// What the two machines of a login have to work with. A machine consumes the bytes that it has used.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Received from the client, and not consumed.
    pub client: Received,
    /// Received from the server, and not consumed.
    pub server: Received,
    /// Set once a machine has asked for it.
    pub key: Option<&'static DecryptionKey>,
}

/// Received bytes, which may be a password: they are wiped when they are dropped or moved.
#[derive(Debug)]
pub struct Received(Secret);

impl Default for Received {
    fn default() -> Self {
        Self(Secret::new(Vec::new()))
    }
}

impl Received {
    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        self.0.expose()
    }

    /// Appends `bytes`.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.0.buffer().capacity() - self.bytes().len() < bytes.len() {
            // A vector that grows by itself leaves a copy behind.
            let mut larger = Secret::with_capacity((self.bytes().len() + bytes.len()).next_power_of_two());
            larger.buffer().extend_from_slice(self.bytes());
            self.0 = larger;
        }
        self.0.buffer().extend_from_slice(bytes);
    }

    /// Removes all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The login of one client, over all servers that are tried for it.
///
/// With each server, one part before TLS, the TLS handshake, and one part inside TLS. The first part is left to the
/// server's side of the protocol where no client is there (for the pool), or its request is known (another server).
pub trait Login: Send {
    /// Begins with a server to which nothing was said.
    fn begin_before_tls(&mut self);

    /// In plaintext, until the server expects a ClientHello. The outcome is what was said with it.
    fn before_tls(&mut self, inputs: &mut Inputs) -> Action<Bytes>;

    /// Begins with a server with which TLS has begun; `said` is the outcome of the first part.
    fn begin_inside_tls(&mut self, said: &Bytes);

    /// Inside TLS, until the server has accepted or refused the client, which has been passed on.
    fn inside_tls(&mut self, inputs: &mut Inputs) -> Action<()>;

    /// The request for TLS that a server has to get for this client. `None`: the client has not said enough yet.
    fn request(&self) -> Option<Bytes>;

    /// How far it has come with the client.
    fn progress(&self) -> Progress;

    /// The number of the next packet to the client. `None`: it was sent nothing.
    fn next_packet(&self) -> Option<u8>;
}

/// What a protocol has whose clients log in inside TLS, beyond a [`Protocol`](super::Protocol).
#[derive(Debug)]
pub(crate) struct LoginInside {
    pub(crate) client: fn() -> Box<dyn Login>,
    /// The side towards a server that is asked for TLS with this request of a client.
    pub(crate) server: fn(Bytes) -> Box<ServerSide>,
    /// The reason for a client that does not speak the protocol.
    pub(crate) not_spoken: &'static str,
    /// How a client is made to do without TLS.
    pub(crate) without_tls: &'static str,
}

/// How far a login has come with its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// Nothing was sent to it.
    Silent,
    /// It was sent a server's greeting, and has not answered.
    Greeted,
    /// It has answered: another server can still take the login.
    Answered,
    /// It was sent a server's answer: only this server can go on.
    Authenticating,
}

/// Why a login cannot come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client cannot be served.
    Client(ClientRefusal),
    /// The client asks for TLS; it was sent an error.
    AsksForTls,
    /// The client encrypts its password for a key of the server that it knows already; it was sent an error.
    ForeignKey,
    /// The server cannot be used.
    Server(ServerRefusal),
    /// This connection was prepared for clients with other capabilities: another one is needed.
    OtherCapabilities,
    /// The client knows the greeting of another server only, and cannot start its authentication again.
    NoSwitch,
}

/// A peer of a login.
pub trait Peer: Send {
    /// Why it cannot be read or written any more.
    type Error: Send;

    /// Reads at least one and at most `most` bytes. Cancel safe.
    ///
    /// # Errors
    /// It has closed, or its connection failed.
    fn read(&mut self, most: usize, input: &mut Received) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Writes all. Not cancel safe.
    ///
    /// # Errors
    /// Its connection failed.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why a part of a login did not come to its end.
#[derive(Debug)]
pub enum Error<C, S> {
    /// By what was said.
    Refused(Refusal),
    /// The client is gone.
    Client(C),
    /// The server is gone.
    Server(S),
}

/// Takes every action of one part of a login, whose machine is `step`. Has no deadline of its own. Not cancel safe: what
/// was read is lost.
///
/// # Errors
/// It was refused, or a peer is gone.
pub async fn mediate<T, C: Peer, S: Peer>(
    mut step: impl FnMut(&mut Inputs) -> Action<T>,
    client: &mut C,
    server: &mut S,
) -> Result<T, Error<C::Error, S::Error>> {
    let mut inputs = Inputs::default();
    loop {
        match step(&mut inputs) {
            Action::Read(Side::Client, most) => client.read(most, &mut inputs.client).await.map_err(Error::Client)?,
            Action::Read(Side::Server, most) => server.read(most, &mut inputs.server).await.map_err(Error::Server)?,
            Action::ReadEither(of_client, of_server) => tokio::select! {
                // What a server has said last explains why it closes.
                biased;
                read = server.read(of_server, &mut inputs.server) => read.map_err(Error::Server)?,
                read = client.read(of_client, &mut inputs.client) => read.map_err(Error::Client)?,
            },
            Action::Send(Side::Client, bytes) => client.write(bytes.expose()).await.map_err(Error::Client)?,
            Action::Send(Side::Server, bytes) => server.write(bytes.expose()).await.map_err(Error::Server)?,
            Action::MakeKey => inputs.key = Some(rsa::key().await),
            Action::Done(outcome) => return Ok(outcome),
            Action::Refuse(refusal) => return Err(Error::Refused(refusal)),
        }
    }
}
