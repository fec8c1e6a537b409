//! Sockets: what the standard library does not offer, and the one type for "TCP or Unix".

mod accept_backoff;
mod buffers;
pub(crate) mod capability;
mod duplex;
mod fast_open;
mod inherited;
pub(crate) mod kernel_tls;
mod listen;
mod options;
mod pipe;
mod spare_descriptors;
mod syscall;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};

pub(crate) use accept_backoff::AcceptBackoff;
pub(crate) use buffers::{SocketBuffers, suits_write_of};
pub(crate) use duplex::{
    Duplex, acknowledge_at_once, finish, peek, read_now, say, try_read, try_read_unchecked, try_read_vectored,
    try_write, try_write_last, unacknowledged, unread,
};
pub(crate) use inherited::close_all as close_inherited;
pub(crate) use inherited::warn_of_unclaimed_sockets;
pub use listen::{BindError, Socket, set_mode};
pub use options::{Missing, Options, Role};
pub use pipe::{Pipe, pipes_within};
pub(crate) use spare_descriptors::{SpareDescriptors, is_out_of_descriptors};
#[cfg(debug_assertions)]
pub(crate) use syscall::any_call;
pub(crate) use syscall::{
    block_signal, execute, fork, leads_session, note_refused_calls, own_process_group, send_signal,
    stop_until_continued, take_refused_calls, take_terminal, trim_heap,
};

/// A stream socket of either family.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address and port.
    Tcp(SocketAddr),
    /// A process of this machine, as the kernel attests it (SO_PEERCRED).
    Unix {
        /// Its user.
        uid: u32,
        /// Its process id when it connected.
        pid: Option<i32>,
    },
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { uid, pid: Some(pid) } => write!(f, "unix:uid={uid},pid={pid}"),
            Self::Unix { uid, pid: None } => write!(f, "unix:uid={uid}"),
        }
    }
}

impl Stream {
    /// Waits until there is something to read, or an end; the result says which. Cancel safe. Errors: The runtime is
    /// ending.
    pub(crate) async fn readable(&self) -> io::Result<Ready> {
        match self {
            Self::Tcp(tcp) => tcp.ready(Interest::READABLE).await,
            Self::Unix(unix) => unix.ready(Interest::READABLE).await,
        }
    }

    /// Waits until the peer has reset the connection, and leaves what it has sent where it is. A peer that has only
    /// ended its side is not gone: it may wait for an answer. A Unix socket knows no reset. Cancel safe.
    pub(crate) async fn was_reset(&self) {
        self.error().await;
    }

    /// Waits until the connection breaks. Otherwise as `was_reset`.
    pub(crate) async fn error(&self) -> io::Error {
        match self {
            Self::Tcp(tcp) => error_of(tcp).await,
            Self::Unix(unix) => broken(unix.ready(Interest::ERROR).await, || unix.take_error()).await,
        }
    }

    /// Ends the connection so that the peer sees an error and not a clean end: TCP resets (linger
    /// zero), a Unix socket knows no reset and just closes.
    pub(crate) fn reset(self) {
        if let Self::Tcp(tcp) = &self {
            abort_on_close(tcp);
        }
    }
}

/// Waits until the connection breaks. What was received before stays readable, and no read returns the error again.
/// Cancel safe.
pub(crate) async fn error_of(tcp: &TcpStream) -> io::Error {
    broken(tcp.ready(Interest::ERROR).await, || tcp.take_error()).await
}

async fn broken(ready: io::Result<Ready>, take: impl FnOnce() -> io::Result<Option<io::Error>>) -> io::Error {
    if ready.is_err() {
        // The runtime is ending, and this with it.
        std::future::pending::<()>().await;
    }
    // A read or a write may have met the error before.
    take().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
}

/// The next close of this socket sends RST and drops what is unsent.
pub fn abort_on_close(tcp: &TcpStream) {
    // Best effort: the socket is about to be closed in any case.
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Not the runtime's own read, which takes a short read for the last.
        loop {
            ready!(Duplex::poll_read_ready(&*self, cx))?;
            match try_read(&*self, buf.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(|length| buf.advance(length))),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Unix(unix) => Pin::new(unix).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}
