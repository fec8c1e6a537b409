//! The kernel's buffers of a stream's sockets, bounded where memory is small.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::SockRef;

use crate::memory;

static STREAMS: AtomicUsize = AtomicUsize::new(0);

/// The size of each buffer of one stream's sockets. The stream is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct SocketBuffers {
    bytes: Option<usize>,
}

impl SocketBuffers {
    pub(crate) fn of_next_stream() -> Self {
        let streams = STREAMS.fetch_add(1, Ordering::Relaxed) + 1;
        Self { bytes: memory::for_socket_buffer(streams) }
    }

    /// Bounds both buffers of a socket, for good. The kernel doubles the value, since it counts its own structures too
    /// (socket(7)), so it is given half. An error is one of a broken connection, which reading reports.
    pub(crate) fn bound(&self, socket: &impl AsFd) {
        let Some(bytes) = self.bytes else { return };
        let socket = SockRef::from(socket);
        let _ = socket.set_recv_buffer_size(bytes / 2);
        let _ = socket.set_send_buffer_size(bytes / 2);
    }
}

/// Whether a write of this many bytes stays in proportion to a socket's buffer: the kernel takes up to 64 KiB more than the
/// buffer's size if there is any room in it.
pub(crate) fn suits_write_of(bytes: usize) -> bool {
    memory::for_socket_buffer(STREAMS.load(Ordering::Relaxed)).is_none_or(|size| bytes <= size)
}

/// Bounds what a client can send before it is accepted, where memory is small: a connection inherits the listener's
/// buffer and gets its own size when its stream begins. Until then the kernel would take 128 KiB for each
/// (`net.ipv4.tcp_rmem`), however many wait. It also keeps the window of such a connection below 64 KiB for good.
pub(super) fn bound_waiting(listener: &impl AsFd) {
    if let Some(bytes) = memory::for_waiting_socket() {
        let _ = SockRef::from(listener).set_recv_buffer_size(bytes / 2);
    }
}

/// Bounds what a server can send before the stream begins, as [`bound_waiting`] does for clients: a window that was
/// offered once is not taken back, and by default 64 KiB are. A size for as many streams as there are now.
pub(super) fn bound_connecting(socket: &impl AsFd) {
    if let Some(bytes) = memory::for_socket_buffer(STREAMS.load(Ordering::Relaxed)) {
        let _ = SockRef::from(socket).set_recv_buffer_size(bytes / 2);
    }
}

/// Whether a socket whose buffer is bounded holds as much as it should. The kernel would take more: as long as a segment
/// waits to be sent it appends to it, up to 64 KiB, however small the buffer is. poll(2) goes by the buffer's size, and
/// has the kernel announce the room when there is some.
pub(super) fn is_full(socket: BorrowedFd<'_>) -> bool {
    let has_room = || {
        let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
        rustix::event::poll(&mut asked, Some(&Timespec::default())) != Ok(0)
    };
    memory::for_waiting_socket().is_some() && !has_room()
}

impl Drop for SocketBuffers {
    fn drop(&mut self) {
        STREAMS.fetch_sub(1, Ordering::Relaxed);
    }
}
