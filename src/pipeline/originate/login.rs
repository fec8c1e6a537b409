//! A client's login that goes on inside TLS: its two parts over real connections.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::net::{self, Stream};
use crate::pipeline::originate::channel::{Channel, Ended};
use crate::pipeline::originate::upgrade::{self, nothing_more};
use crate::protocols::Upgrade;
use crate::protocols::answers::Fault;
use crate::protocols::exchange::ClientRefusal;
use crate::protocols::login::{self, Login, Peer, Received, Refusal, mediate};

/// Why a login did not come to its end.
#[derive(Debug)]
pub(super) enum Failed {
    Client(Error),
    /// By what the server said.
    Server(upgrade::Error),
    /// The connection to the server has ended inside TLS.
    Lost(Ended),
}

/// In plaintext, until TLS can begin. Returns what the part inside TLS has to know.
///
/// Has no deadline of its own. Not cancel safe: close both connections after a dropped call.
pub(super) async fn before_tls(
    protocol: Upgrade,
    login: &mut dyn Login,
    client: &Stream,
    server: &TcpStream,
) -> Result<Bytes, Failed> {
    login.begin_before_tls();
    let step = |inputs: &mut _| login.before_tls(inputs);
    let said = mediate(step, &mut Plaintext::Client(client), &mut Plaintext::Server(server)).await;
    let of_server = |cause| Failed::Server(upgrade::Error::new(protocol, cause));
    let said = said.map_err(|error| match error {
        login::Error::Refused(refusal) => refused(protocol, refusal),
        login::Error::Client(lost) => Failed::Client(Error::lost(protocol, lost)),
        login::Error::Server(Lost::Closed) => of_server(upgrade::Cause::Closed),
        login::Error::Server(Lost::Io(error)) => of_server(upgrade::Cause::Io(error)),
    })?;
    nothing_more(server).map_err(of_server)?;
    Ok(said)
}

/// Inside TLS, until the client knows whether it is let in. `said`: what the part before TLS has returned. Otherwise as
/// [`before_tls`].
pub(super) async fn inside_tls(
    protocol: Upgrade,
    login: &mut dyn Login,
    said: &Bytes,
    client: &Stream,
    server: &mut Channel,
) -> Result<(), Failed> {
    login.begin_inside_tls(said);
    let step = |inputs: &mut _| login.inside_tls(inputs);
    mediate(step, &mut Plaintext::Client(client), server).await.map_err(|error| match error {
        login::Error::Refused(refusal) => refused(protocol, refusal),
        login::Error::Client(lost) => Failed::Client(Error::lost(protocol, lost)),
        login::Error::Server(ended) => Failed::Lost(ended),
    })
}

fn refused(protocol: Upgrade, refusal: Refusal) -> Failed {
    match refusal {
        Refusal::Server(refusal) => Failed::Server(upgrade::Error::new(protocol, upgrade::Cause::Refusal(refusal))),
        refusal => Failed::Client(Error { protocol, cause: Cause::Refused(refusal) }),
    }
}

/// A connection without TLS.
enum Plaintext<'a> {
    Client(&'a Stream),
    Server(&'a TcpStream),
}

/// Why one cannot be read or written any more.
#[derive(Debug)]
enum Lost {
    Closed,
    Io(io::Error),
}

impl Plaintext<'_> {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Client(stream) => stream.readable().await.map(drop),
            Self::Server(tcp) => tcp.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Client(stream) => std::future::poll_fn(|cx| net::Duplex::poll_write_ready(*stream, cx)).await,
            Self::Server(tcp) => tcp.writable().await,
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Client(stream) => net::try_read(*stream, buffer),
            Self::Server(tcp) => net::try_read(*tcp, buffer),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Client(stream) => net::try_write(*stream, &[io::IoSlice::new(bytes)]),
            Self::Server(tcp) => net::try_write(*tcp, &[io::IoSlice::new(bytes)]),
        }
    }
}

/// Bytes read at once: packets of a login have some hundred.
const ROOM: usize = 1024;

impl Peer for Plaintext<'_> {
    type Error = Lost;

    async fn read(&mut self, most: usize, input: &mut Received) -> Result<(), Lost> {
        loop {
            self.readable().await.map_err(Lost::Io)?;
            let mut room = zeroize::Zeroizing::new([0; ROOM]);
            let read = self.try_read(&mut room[..most.min(ROOM)]);
            match read {
                Ok(0) => return Err(Lost::Closed),
                Ok(length) => {
                    input.extend(&room[..length]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Lost::Io(error)),
            }
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Lost> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await.map_err(Lost::Io)?,
                Err(error) => return Err(Lost::Io(error)),
            }
        }
        Ok(())
    }
}

impl Peer for Channel {
    type Error = Ended;

    async fn read(&mut self, most: usize, input: &mut Received) -> Result<(), Ended> {
        if self.plain.is_empty() {
            self.read_data().await?;
        }
        let length = most.min(self.plain.len());
        input.extend(&self.plain[..length]);
        self.plain.drain(..length);
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.send(bytes).await
    }
}

/// A client that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub(crate) struct Error {
    protocol: Upgrade,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    /// By what it said, or because of it.
    Refused(Refusal),
    Closed,
    Silent(Duration),
    Io(io::Error),
}

impl Error {
    fn lost(protocol: Upgrade, lost: Lost) -> Self {
        let cause = match lost {
            Lost::Closed => Cause::Closed,
            Lost::Io(error) => Cause::Io(error),
        };
        Self { protocol, cause }
    }

    pub(super) fn silent(protocol: Upgrade, waited: Duration) -> Self {
        Self { protocol, cause: Cause::Silent(waited) }
    }

    /// For an answer in the client's protocol.
    pub(super) fn fault(&self) -> Fault {
        match &self.cause {
            Cause::Silent(_) => Fault::Silent,
            Cause::Refused(Refusal::Client(refusal)) => refusal.fault(),
            Cause::Refused(_) | Cause::Closed | Cause::Io(_) => Fault::Client,
        }
    }

    /// Another connection to the same server is needed.
    pub(super) fn is_of_connection(&self) -> bool {
        matches!(self.cause, Cause::Refused(Refusal::OtherCapabilities))
    }

    /// The class, for logs and metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match &self.cause {
            Cause::Refused(Refusal::Client(ClientRefusal::SpeaksTls)) => "downstream_speaks_tls",
            Cause::Refused(Refusal::AsksForTls) => "downstream_asks_for_tls",
            Cause::Refused(Refusal::ForeignKey) => "downstream_foreign_key",
            Cause::Refused(Refusal::OtherCapabilities | Refusal::NoSwitch) => "login_not_movable",
            Cause::Refused(Refusal::Client(_) | Refusal::Server(_)) => {
                self.protocol.login.as_ref().map_or("downstream_closed", |login| login.not_spoken)
            }
            Cause::Closed => "downstream_closed",
            Cause::Silent(_) => "downstream_silent",
            Cause::Io(_) => "downstream_io",
        }
    }

    fn text(&self) -> String {
        let name = self.protocol.name;
        match &self.cause {
            Cause::Refused(Refusal::Client(ClientRefusal::SpeaksTls)) => {
                "the client begins with a TLS handshake, but this listener takes plaintext".to_owned()
            }
            Cause::Refused(Refusal::Client(ClientRefusal::NotTheProtocol(why))) => {
                format!("the client does not log in as a client of {name} does: {why}")
            }
            Cause::Refused(Refusal::AsksForTls) => {
                "the client asks for TLS, which it was not offered: this listener takes plaintext".to_owned()
            }
            Cause::Refused(Refusal::ForeignKey) => "the client encrypts its password with a key of the server that it \
                                                    has in a file; inside TLS the server takes it as it is only"
                .to_owned(),
            Cause::Refused(Refusal::OtherCapabilities | Refusal::NoSwitch | Refusal::Server(_)) => {
                "another server has to be used than the one whose greeting the client knows, and the client cannot \
                 start its authentication again (no CLIENT_PLUGIN_AUTH)"
                    .to_owned()
            }
            Cause::Closed => "the client closed before its login was over".to_owned(),
            Cause::Silent(waited) => format!("the client did not answer the server's greeting within {waited:?}"),
            Cause::Io(error) => format!("the client's connection failed: {error}"),
        }
    }

    /// What to change, if the failure shows it; always at the client.
    pub(crate) fn repair(&self) -> Option<String> {
        let without_tls = self.protocol.login.as_ref().map_or("", |login| login.without_tls);
        match &self.cause {
            Cause::Refused(Refusal::Client(ClientRefusal::SpeaksTls) | Refusal::AsksForTls) => {
                Some(format!("egret speaks TLS to the server, the client must not; {without_tls}"))
            }
            Cause::Refused(Refusal::Client(ClientRefusal::NotTheProtocol(_))) => Some(self.protocol.own_clients_only()),
            Cause::Refused(Refusal::ForeignKey) => Some(
                "remove from the client's options (egret has a key of its own for it):\n    server-public-key-path"
                    .to_owned(),
            ),
            Cause::Closed => Some(format!("a client that demands TLS closes here; {without_tls}")),
            _ => None,
        }
    }
}
