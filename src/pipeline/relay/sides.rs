use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::kernel;
use super::outcome::Ended;
use crate::net;
use crate::pipeline::answer::Parting;

/// The two sockets of a stream. The drop closes both.
pub(super) struct Sides {
    pub(super) downstream: net::Stream,
    pub(super) upstream: TcpStream,
    /// Set before the drop: a stream that is dropped half-way must not look finished.
    close: Close,
}

/// A server that has sent close_notify, and got ours and the FIN, sends its own FIN within a round trip: the first
/// retransmission timeout of TCP (RFC 6298 section 2) is more than that.
const FIN_WAIT: Duration = Duration::from_secs(1);
/// Bytes after a close_notify that are read and thrown away. A server that sends more gets a reset.
const DISCARDED: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    /// Both ends were passed on.
    Clean,
    /// The client gets a reset; the upstream a plain close, because it is owed an alert or has sent one.
    ResetDownstream,
    /// The client was answered, and gets a plain close.
    ResetUpstream,
    Reset,
}

impl Sides {
    pub(super) fn new(downstream: net::Stream, upstream: TcpStream) -> Self {
        Self { downstream, upstream, close: Close::Reset }
    }

    /// The end of the stream when one of the connections is reset or breaks, even if it is not being read. What was
    /// received from it before stays where it is. Cancel safe.
    pub(super) async fn reset(&self) -> Ended {
        tokio::select! {
            error = self.downstream.error() => Ended::from_downstream(&error),
            error = net::error_of(&self.upstream) => kernel::refused(&error).0,
        }
    }

    /// Bytes that were written to the two sockets and that the peers have not acknowledged: to the server, to the
    /// client. A connection that is gone, or a Unix socket, which keeps what it was given, has none.
    pub(super) fn unacknowledged(&self) -> [usize; 2] {
        let downstream = match &self.downstream {
            net::Stream::Tcp(tcp) => unacknowledged(tcp),
            net::Stream::Unix(_) => Ok(0),
        };
        [unacknowledged(&self.upstream), downstream].map(|bytes| bytes.unwrap_or(0))
    }

    /// Reads what the server sends after its close_notify, which is no data of the stream: a socket that is closed with
    /// unread bytes sends a reset, and that may destroy the client's last bytes at the server. Ready when there is
    /// nothing to wait for any more.
    pub(super) fn discard(&self) -> Poll<()> {
        let mut piece = [0; 4096];
        for _ in 0..DISCARDED / piece.len() {
            match net::try_read(&self.upstream, &mut piece) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }

    /// Passes both ends on, which the close would do otherwise, and waits for the server's FIN, for a bounded time and a
    /// bounded number of bytes. Cancel safe.
    pub(super) async fn await_fin(&self) {
        // A connection that is gone needs no FIN.
        let _ = net::finish(&self.downstream);
        let _ = net::finish(&self.upstream);
        let fin = async { while self.discard().is_pending() && self.upstream.readable().await.is_ok() {} };
        let _ = timeout(FIN_WAIT, fin).await;
    }

    /// Answers a client that has got no byte of the server, in place of its reset. The upstream is closed as
    /// `closes_as` has set it, once the client has closed or the bound of the answer has passed.
    pub(super) async fn answer(&mut self, parting: Parting<'_>) {
        parting.give_late(&self.downstream).await;
        self.close = match self.close {
            Close::Reset => Close::ResetUpstream,
            Close::ResetDownstream | Close::ResetUpstream | Close::Clean => Close::Clean,
        };
    }

    /// How the drop is to close the sockets. Without this call, as when the future is dropped, both are reset.
    pub(super) fn closes_as(&mut self, ended: &Ended) {
        self.close = match ended {
            Ended::Finished => Close::Clean,
            Ended::UpstreamAlert(_) | Ended::UpstreamTls(_) => Close::ResetDownstream,
            _ => Close::Reset,
        };
    }
}

impl Drop for Sides {
    fn drop(&mut self) {
        if matches!(self.close, Close::ResetDownstream | Close::Reset)
            && let net::Stream::Tcp(tcp) = &self.downstream
        {
            net::abort_on_close(tcp);
        }
        if matches!(self.close, Close::ResetUpstream | Close::Reset) {
            net::abort_on_close(&self.upstream);
        }
    }
}

fn unacknowledged(tcp: &TcpStream) -> io::Result<usize> {
    match tcp.take_error()? {
        Some(error) => Err(error),
        None => net::unacknowledged(tcp),
    }
}
