//! One warm connection: originated, idle, listened to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rustls::AlertDescription;
use tokio::time::{Instant, timeout_at};

use crate::pipeline::originate::channel::{Channel, Ended};
use crate::pipeline::originate::negotiated::Negotiated;
use crate::pipeline::originate::servers::account::Account;
use crate::tls::handshake::Established;

/// A finished origination that waits for its client. It is read meanwhile: tickets go to the store of its origin, a
/// greeting is kept, and an end is noticed. It holds no buffer.
pub(crate) struct Warm {
    channel: Channel,
    /// Read at the start: a socket that was reset has no peer address.
    address: Option<SocketAddr>,
    negotiated: Negotiated,
    /// What the server said before TLS. What it has said since is in the channel, and a client reads it next.
    greeting: Bytes,
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
    /// It was made for clients that log in with other capabilities than the client that got it.
    OtherClient,
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
            Self::OtherClient => "warm_other_client",
        }
    }

    /// Caused by the server or the network.
    pub(crate) fn is_of_server(self) -> bool {
        !matches!(self, Self::Aged | Self::Excess | Self::Replaced | Self::Retired | Self::OtherClient)
    }
}

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
        let (channel, greeting) = Channel::new(established)?;
        let born = Instant::now();
        let address = channel.tcp.peer_addr().ok();
        let account = Arc::clone(account);
        let mut warm = Self { channel, address, negotiated, greeting, born, account };
        warm.channel.flush().await?;
        let until = Instant::now() + quiet;
        while warm.is_judged_later() && !warm.channel.heard {
            match timeout_at(until, warm.channel.read_more()).await {
                Ok(read) => read?,
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
            if ready!(self.channel.tcp.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Discard::Reset);
            }
            if let Err(ended) = self.channel.read_all() {
                return Poll::Ready(ended.into());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads until it has to be discarded, or has something for its client. Cancel safe.
    pub(crate) async fn listen(&mut self) -> Result<(), Discard> {
        while !self.speaks_first() {
            self.channel.read_more().await?;
        }
        Ok(())
    }

    /// A last check before it is handed over: reads from the kernel, since the runtime may not know yet that it is
    /// readable. Errors: It has ended.
    pub(crate) fn check_open(&mut self) -> Result<(), Discard> {
        Ok(self.channel.read_now()?)
    }

    /// Whether there is something for the client to read.
    pub(crate) fn speaks_first(&self) -> bool {
        !self.greeting.is_empty() || self.has_plain()
    }

    /// Whether the server has sent data inside TLS.
    pub(crate) fn has_plain(&self) -> bool {
        !self.channel.plain.is_empty()
    }

    /// Closes with close_notify. Best effort: nothing is waited for.
    pub(crate) fn leave(self) {
        self.channel.leave();
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

    /// Writes the first of `bytes`, and returns how many. Errors: It has ended, and no byte was written.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> Result<usize, Discard> {
        Ok(self.channel.try_write(bytes)?)
    }

    /// As a new stream.
    pub(crate) fn into_established(self) -> (Established, Negotiated) {
        (self.channel.into_established(self.greeting), self.negotiated)
    }

    /// Whether the server verifies our certificate, or that there is none, after the handshake. For a resumed session
    /// too: some servers verify its certificate again.
    fn is_judged_later(&self) -> bool {
        self.negotiated.version == "TLSv1.3" && self.negotiated.certificate_sent.is_some()
    }
}

impl From<Ended> for Discard {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed => Self::Closed,
            Ended::Reset => Self::Reset,
            Ended::Alert(alert) => Self::Alert(alert),
            Ended::Broken => Self::Broken,
            Ended::Overflow => Self::Overflow,
        }
    }
}
