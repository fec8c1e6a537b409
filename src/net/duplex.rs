//! What the relay needs of a socket: readiness apart from the transfer, so that memory is taken only when there is
//! something to move, and transfers over many slices.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{Stream, buffers, syscall};

pub(crate) trait Duplex: AsFd {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Runs `transfer` if the socket is marked ready; `WouldBlock` from it clears the readiness.
    fn try_io(&self, interest: Interest, transfer: impl FnOnce() -> io::Result<()>) -> io::Result<()>;
}

impl Duplex for TcpStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_write_ready(self, cx)
    }

    fn try_io(&self, interest: Interest, transfer: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        Self::try_io(self, interest, transfer)
    }
}

impl Duplex for Stream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Unix(unix) => unix.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write_ready(cx),
            Self::Unix(unix) => unix.poll_write_ready(cx),
        }
    }

    fn try_io(&self, interest: Interest, transfer: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.try_io(interest, transfer),
            Self::Unix(unix) => unix.try_io(interest, transfer),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        }
    }
}

/// Runs a transfer of up to `wanted` bytes. One that moves fewer has filled or emptied the socket, unless `is_cut` says
/// otherwise, so its readiness is cleared at once: with edge-triggered epoll the next one is announced, which saves a
/// call that would only return `WouldBlock`.
fn transfer(
    socket: &impl Duplex,
    interest: Interest,
    wanted: usize,
    call: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    is_cut: impl FnOnce(BorrowedFd<'_>) -> bool,
) -> io::Result<usize> {
    let mut moved = None;
    let done = socket.try_io(interest, || {
        let n = call(socket.as_fd())?;
        moved = Some(n);
        let is_spent = 0 < n && n < wanted && !is_cut(socket.as_fd());
        if is_spent { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    moved.map_or_else(|| done.map(|()| 0), Ok)
}

/// Whether a short read has left bytes: it ends before an urgent byte (RFC 6093 section 3.4), and on a Unix socket
/// after a message with descriptors (unix(7)). No event announces the bytes behind. This check costs less than another
/// read.
fn is_read_cut(socket: BorrowedFd<'_>) -> bool {
    unread(&socket).is_ok_and(|bytes| bytes > 0)
}

/// Reads once; zero is the end of the stream.
/// Errors: `WouldBlock` if there is nothing to read.
pub(crate) fn try_read(socket: &impl Duplex, buf: &mut [u8]) -> io::Result<usize> {
    receive(socket, buf, is_read_cut)
}

/// As [`try_read`], for a peer whose reads are cut in rare cases that the caller notices by itself, with [`unread`]: a
/// call less for each short read, 0.25 us of the 13 us that a round trip of 64 bytes takes.
pub(crate) fn try_read_unchecked(socket: &impl Duplex, buf: &mut [u8]) -> io::Result<usize> {
    receive(socket, buf, |_| false)
}

/// Copies received bytes into `buf`, up to its length, and leaves them in the socket. Empty if the socket has failed: the
/// next read reports that.
pub(crate) fn peek<'a>(socket: &impl AsFd, buf: &'a mut [u8]) -> &'a [u8] {
    let length =
        rustix::net::recv(socket, &mut *buf, RecvFlags::PEEK | RecvFlags::DONTWAIT).map_or(0, |(_, length)| length);
    &buf[..length]
}

fn receive(socket: &impl Duplex, buf: &mut [u8], is_cut: impl FnOnce(BorrowedFd<'_>) -> bool) -> io::Result<usize> {
    let wanted = buf.len();
    // recv(2) and not read(2), which runs a permission check of the file system first.
    let call = |fd: BorrowedFd<'_>| rustix::net::recv(fd, &mut *buf, RecvFlags::empty()).map(|(_, length)| length);
    transfer(socket, Interest::READABLE, wanted, call, is_cut)
}

/// Reads once, whether or not the runtime has seen the socket become readable. Its readiness stays as it is.
pub(crate) fn read_now(socket: &impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    let (_, length) = rustix::net::recv(socket, buf, RecvFlags::DONTWAIT)?;
    Ok(length)
}

pub(crate) fn try_read_vectored(socket: &impl Duplex, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let wanted = bufs.iter().map(|buf| buf.len()).sum();
    transfer(socket, Interest::READABLE, wanted, |fd| rustix::io::readv(fd, bufs), is_read_cut)
}

/// Bytes that were received and not read.
pub(crate) fn unread(socket: &impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(socket)?)
}

/// Bytes that were written and that the peer has not acknowledged, its FIN included.
pub(crate) fn unacknowledged(socket: &impl AsFd) -> io::Result<usize> {
    syscall::output_queue(socket.as_fd())
}

pub(crate) fn try_write(socket: &impl Duplex, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    send(socket, bufs, SendFlags::NOSIGNAL)
}

/// Lets the kernel acknowledge what comes next without its delay of 40 ms (TCP_QUICKACK, tcp(7)), until more is sent.
/// A server of TLS 1.3 that leaves Nagle's algorithm on (Python's and Java's do) sends its tickets and holds its first
/// answer back until they are acknowledged: 43 ms without this call, 1.3 ms with it. Best effort; a Unix socket has none.
pub(crate) fn acknowledge_at_once(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_tcp_quickack(true);
}

/// Writes a few bytes to a peer that was sent nothing before, so that its buffer has room. False: it is gone.
pub(crate) fn say(socket: &impl Duplex, bytes: &[u8]) -> bool {
    bytes.is_empty() || try_write(socket, &[IoSlice::new(bytes)]).is_ok_and(|written| written == bytes.len())
}

/// As [`try_write`], of the last bytes of this direction: [`finish`] or a close has to follow at once. A remainder
/// shorter than a segment waits for the FIN and leaves with it, so that the peer is woken once instead of twice
/// (MSG_MORE, send(2)).
pub(crate) fn try_write_last(socket: &impl Duplex, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    send(socket, bufs, SendFlags::NOSIGNAL | SendFlags::MORE)
}

fn send(socket: &impl Duplex, bufs: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
    let wanted = bufs.iter().map(|buf| buf.len()).sum();
    let send = |fd: BorrowedFd<'_>| match bufs {
        _ if buffers::is_full(fd) => Err(Errno::AGAIN),
        [buf] => rustix::net::send(fd, buf, flags),
        _ => rustix::net::sendmsg(fd, bufs, &mut SendAncillaryBuffer::default(), flags),
    };
    transfer(socket, Interest::WRITABLE, wanted, send, |_| false)
}

/// Sends the FIN.
pub(crate) fn finish(socket: &impl Duplex) -> io::Result<()> {
    SockRef::from(socket).shutdown(Shutdown::Write)
}
