use std::io;

use tokio::net::TcpStream;

use super::kernel;
use super::outcome::Ended;
use crate::net;

/// The two sockets of a stream. The drop closes both.
pub(super) struct Sides {
    pub(super) downstream: net::Stream,
    pub(super) upstream: TcpStream,
    /// What the drop does: a stream that is dropped half-way must not look finished.
    close: Close,
}

/// How the sockets are closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    /// Both ends were passed on.
    Clean,
    /// The client gets a reset; the upstream a plain close, because it is owed an alert or has sent one.
    ResetDownstream,
    Reset,
}

impl Sides {
    pub(super) fn new(downstream: net::Stream, upstream: TcpStream) -> Self {
        Self { downstream, upstream, close: Close::Reset }
    }

    /// The end of the stream when one of the connections is reset or breaks, whether or not somebody reads from it.
    /// What was received from it before stays where it is. Cancel safe.
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
        if self.close != Close::Clean
            && let net::Stream::Tcp(tcp) = &self.downstream
        {
            net::abort_on_close(tcp);
        }
        if self.close == Close::Reset {
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
