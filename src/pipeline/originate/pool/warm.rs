//! One warm connection: originated, idle, listened to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rustls::AlertDescription;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::net;
use crate::pipeline::originate::negotiated::Negotiated;
use crate::pipeline::originate::servers::account::Account;
use crate::tls::handshake::{Established, Received};
use crate::tls::pool::{Buffer, Size};
use crate::tls::session::{self, CONTROL, Opened, Session};

/// A finished origination that waits for its client. It is read meanwhile: tickets go to the store of its origin, a
/// greeting is kept, and an end is noticed. It holds no buffer.
pub(crate) struct Warm {
    tcp: TcpStream,
    /// Read at the start: a socket that was reset has no peer address.
    address: Option<SocketAddr>,
    session: Session,
    negotiated: Negotiated,
    /// What the server said before TLS.
    greeting: Bytes,
    /// What it has said since, which a client reads next.
    plain: Vec<u8>,
    /// Part of a record whose rest has not come.
    sealed: Vec<u8>,
    /// The server has sent a record since its handshake was over.
    heard: bool,
    born: Instant,
    account: Arc<Account>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discard {
    Aged,
    Closed,
    /// It was reset, or the path to the server broke.
    Reset,
    Alert(AlertDescription),
    Broken,
    /// The server has sent more than is kept for a client.
    Overflow,
    Excess,
    /// A reload has changed or removed its origin.
    Replaced,
    Retired,
}

impl Discard {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Aged => "warm_aged",
            Self::Closed => "warm_closed",
            Self::Reset => "warm_reset",
            Self::Alert(_) => "warm_alert",
            Self::Broken => "warm_broken",
            Self::Overflow => "warm_overflow",
            Self::Excess => "warm_excess",
            Self::Replaced => "warm_replaced",
            Self::Retired => "warm_retired",
        }
    }

    /// Caused by the server or the network.
    pub(crate) fn is_of_server(self) -> bool {
        !matches!(self, Self::Aged | Self::Excess | Self::Replaced | Self::Retired)
    }
}

/// Bytes that are kept of a server that speaks first: one full record. Greetings of SMTP, FTP, SSH and MySQL have some
/// hundred bytes.
const GREETING: usize = 16_384;

/// Reads for one connection in a row before the others are polled.
const ROUNDS: usize = 4;

impl Warm {
    /// Finishes the handshake (the client's last flight may still be unsent) and waits until the server has verified
    /// our certificate.
    ///
    /// In TLS 1.3 a server looks at the client's certificate after the handshake is over for the client (RFC 8446
    /// section 4.4.2.4). It is taken as accepted when the server has sent a record, which a careful server does only
    /// after it has verified it, or was silent for `quiet`. Errors: The connection is unusable, mostly because of the
    /// server's refusal.
    ///
    /// Cancel safe: dropping the future closes the connection.
    pub(crate) async fn prepare(
        established: Established,
        negotiated: Negotiated,
        quiet: Duration,
        account: &Arc<Account>,
    ) -> Result<Self, Discard> {
        let Established { tcp, session, received, unsent, greeting, .. } = established;
        let plain = Vec::new();
        let sealed = Vec::new();
        let born = Instant::now();
        let address = tcp.peer_addr().ok();
        let account = Arc::clone(account);
        let mut warm = Self { tcp, address, session, negotiated, greeting, plain, sealed, heard: false, born, account };
        warm.tcp.write_all(&unsent).await.map_err(|_| Discard::Reset)?;
        if let Some(Received { mut buffer, start, end, .. }) = received {
            warm.open(&mut buffer[start..end])?;
        }
        let until = Instant::now() + quiet;
        while warm.is_judged_later() && !warm.heard {
            match timeout_at(until, warm.tcp.readable()).await {
                Ok(readable) => {
                    readable.map_err(|_| Discard::Reset)?;
                    warm.read_all()?;
                }
                Err(_) => break,
            }
        }
        Ok(warm)
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Reads what comes. Ready when it has to be discarded.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Discard> {
        for _ in 0..ROUNDS {
            if ready!(self.tcp.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Discard::Reset);
            }
            if let Err(discard) = self.read_all() {
                return Poll::Ready(discard);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads until it has to be discarded, or has something for its client. Cancel safe.
    pub(crate) async fn listen(&mut self) -> Result<(), Discard> {
        while !self.speaks_first() {
            self.tcp.readable().await.map_err(|_| Discard::Reset)?;
            self.read_all()?;
        }
        Ok(())
    }

    /// A last check before it is handed over: reads from the kernel, since the runtime may not know yet that it is
    /// readable. Errors: It has ended.
    pub(crate) fn check_open(&mut self) -> Result<(), Discard> {
        for _ in 0..ROUNDS {
            if !self.read(net::read_now)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether there is something for the client to read.
    pub(crate) fn speaks_first(&self) -> bool {
        !self.greeting.is_empty() || self.has_plain()
    }

    /// Whether the server has sent data inside TLS.
    pub(crate) fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Closes with close_notify. Best effort: nothing is waited for.
    pub(crate) fn leave(mut self) {
        let mut record = [0; CONTROL];
        if let Ok(n) = self.session.alert(&mut record, AlertDescription::CloseNotify) {
            let _ = net::try_write(&self.tcp, &[io::IoSlice::new(&record[..n])]);
        }
    }

    /// `None` if it was reset before it was read.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    pub(crate) fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    pub(super) fn parts(&mut self) -> (&TcpStream, &mut Session) {
        (&self.tcp, &mut self.session)
    }

    /// As a new stream. `unsent` are records for the server.
    pub(crate) fn into_established(self, unsent: Vec<u8>, client_sent: u64) -> (Established, Negotiated) {
        let received = (self.plain.len() + self.sealed.len() > 0).then(|| received(&self.plain, &self.sealed));
        let Self { tcp, session, greeting, negotiated, .. } = self;
        (Established { tcp, session, received, unsent, greeting, client_sent }, negotiated)
    }

    fn read_all(&mut self) -> Result<(), Discard> {
        for _ in 0..ROUNDS {
            if !self.read(net::try_read)? {
                break;
            }
        }
        Ok(())
    }

    /// One read. False: there is nothing now.
    fn read(&mut self, read: impl FnOnce(&TcpStream, &mut [u8]) -> io::Result<usize>) -> Result<bool, Discard> {
        let mut buffer = Buffer::take(Size::Small);
        let held = self.sealed.len();
        buffer[..held].copy_from_slice(&self.sealed);
        match read(&self.tcp, &mut buffer[held..]) {
            Ok(0) => Err(Discard::Closed),
            Ok(n) => {
                self.sealed = Vec::new();
                self.open(&mut buffer[..held + n])?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => Err(Discard::Reset),
        }
    }

    fn open(&mut self, mut records: &mut [u8]) -> Result<(), Discard> {
        loop {
            let wire = match self.session.open(records).map_err(Discard::from)? {
                Opened::Partial(_) => break,
                Opened::Closed => return Err(Discard::Closed),
                Opened::Quiet { wire } => wire,
                Opened::Data { wire, plain } => {
                    self.plain.extend_from_slice(&records[plain]);
                    wire
                }
            };
            self.heard = true;
            if self.plain.len() > GREETING {
                return Err(Discard::Overflow);
            }
            records = &mut records[wire..];
        }
        self.sealed = records.to_vec();
        Ok(())
    }

    /// Whether the server verifies our certificate, or that there is none, after the handshake. For a resumed session
    /// too: some servers verify its certificate again.
    fn is_judged_later(&self) -> bool {
        self.negotiated.version == "TLSv1.3" && self.negotiated.certificate_sent.is_some()
    }
}

impl From<session::Error> for Discard {
    fn from(error: session::Error) -> Self {
        match error {
            session::Error::Alert(alert) => Self::Alert(alert),
            session::Error::Fault(_) | session::Error::Rejected { .. } => Self::Broken,
        }
    }
}

/// The received bytes in the form that a stream gets.
fn received(plain: &[u8], sealed: &[u8]) -> Received {
    let opened = 0..plain.len();
    let end = plain.len() + sealed.len();
    let mut buffer = Buffer::exactly(Size::Small);
    if end > buffer.len() {
        buffer = Buffer::exactly(Size::Medium);
    }
    buffer[opened.clone()].copy_from_slice(plain);
    buffer[opened.end..end].copy_from_slice(sealed);
    Received { buffer, start: opened.end, opened, end }
}
