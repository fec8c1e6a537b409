//! What client and origin say to each other through a proxy: each stream opens with one message, whose first
//! byte asks the origin for a task.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes of a message: the opening, and each way of a round trip.
pub const MESSAGE: usize = 64;

/// What the origin is to do with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Throw away all that comes.
    Sink,
    /// Send until the stream breaks.
    Source,
    /// Send back all that comes after the opening.
    Echo,
    /// Send one message and close.
    Answer,
}

impl Task {
    const ALL: [(u8, Self); 4] = [(b'u', Self::Sink), (b'd', Self::Source), (b'e', Self::Echo), (b'a', Self::Answer)];

    /// The message that asks for it.
    pub fn opening(self) -> [u8; MESSAGE] {
        let letter = Self::ALL.iter().find(|(_, task)| *task == self).map_or(b'?', |(letter, _)| *letter);
        [letter; MESSAGE]
    }

    /// What a message asks for.
    pub fn of(opening: &[u8; MESSAGE]) -> Option<Self> {
        Self::ALL.iter().find(|(letter, _)| opening.iter().all(|byte| byte == letter)).map(|(_, task)| *task)
    }
}

/// As much as the kernel may hold for a socket, so that one call empties it.
const AT_ONCE: usize = 4 << 20;

/// Takes what has arrived without copying it out of the kernel; 0 at the end of the stream.
///
/// Client and origin share a processor. Whatever they spend on bytes, the proxy waits for, so they spend as
/// little as can be.
pub async fn discard(stream: &TcpStream) -> io::Result<usize> {
    // With MSG_TRUNC, TCP counts and frees, and never writes to the buffer: no page of it is ever touched.
    let mut nowhere = Vec::<u8>::with_capacity(AT_ONCE);
    let nowhere: &mut [MaybeUninit<u8>] = nowhere.spare_capacity_mut();
    stream
        .async_io(Interest::READABLE, || {
            let (_, length) = recv(stream.as_fd(), &mut *nowhere, RecvFlags::TRUNC | RecvFlags::DONTWAIT)?;
            Ok(length)
        })
        .await
}
