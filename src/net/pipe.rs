//! Pipes through which bytes go from socket to socket without being copied (splice(2)).
//!
//! A stream has one only while it moves a lot; empty ones wait with the worker that used them last.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};
use rustix::process::Resource;
use tokio::io::Interest;

use super::{Duplex, unread};
use crate::memory;

/// A pipe of this process.
pub struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

/// Bytes of a new pipe on Linux (pipe(7)).
const DEFAULT: usize = 64 << 10;
/// Bytes of the pipe of a flow that fills it; four times fewer system calls. A pipe four times as large again was no
/// faster (benches/splice.rs).
const GROWN: usize = 256 << 10;

/// Pipes at the same time. Grown, they hold 64 MiB, the limit of Linux for all pipes of one user without privileges
/// (`pipe-user-pages-soft`, pipe(7)). A busy stream whose peers keep up has its pipe for microseconds.
const MOST: usize = 256;

/// Empty pipes that a worker keeps. A worker holds more than a few at once only while peers are slow.
const KEPT: usize = 4;

/// Open pipes, spares included. A race may exceed the bound by one a worker.
static OPEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SPARES: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

impl Pipe {
    /// An empty pipe. `None`: enough are in use, or descriptors are out; bytes then have to be copied.
    pub fn take() -> Option<Self> {
        let spare = SPARES.try_with(|spares| spares.borrow_mut().pop()).ok().flatten();
        let ends = spare.or_else(Ends::open)?;
        Some(Self { ends: Some(ends), held: 0 })
    }

    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Grows the pipe once, for a flow that fills it; if the system refuses, it stays as it is.
    pub(crate) fn grow(&mut self) {
        let ends = self.ends_mut();
        if ends.capacity < GROWN {
            // An error means that the user's limit on pipes is reached: then this is not tried again.
            ends.capacity = rustix::pipe::fcntl_setpipe_size(&ends.write, GROWN).map_or(GROWN, |n| n.min(GROWN));
        }
    }

    /// Moves what a socket has into the pipe, up to what fits; zero is the end of the stream. To be called on an empty
    /// pipe: only then does `WouldBlock` mean the socket. Errors: `WouldBlock` if there is nothing to read;
    /// `InvalidInput` or `Unsupported` if this socket cannot be spliced. Before an urgent byte it cannot either:
    /// splice(2) then finds nothing, or an end.
    pub(crate) fn fill(&mut self, from: &impl Duplex) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0, "a full pipe would be taken for an empty socket");
        let ends = self.ends.as_ref().expect(LIVES);
        let fill = || rustix::pipe::splice(from.as_fd(), None, &ends.write, None, ends.capacity, FLAGS);
        let moved = splice(from, Interest::READABLE, || match fill() {
            // Bytes may have come in between: only when the second try finds none either they are not to be spliced.
            Ok(0) | Err(Errno::AGAIN) if has_unread(from) => match fill() {
                Ok(0) | Err(Errno::AGAIN) => Err(Errno::INVAL),
                filled => filled,
            },
            filled => filled,
        })?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves the content to a socket, as much as it takes.
    pub(crate) fn drain(&mut self, to: &impl Duplex) -> io::Result<usize> {
        let ends = self.ends.as_ref().expect(LIVES);
        let moved = splice(to, Interest::WRITABLE, || {
            rustix::pipe::splice(&ends.read, None, to.as_fd(), None, self.held, FLAGS)
        })?;
        self.held -= moved;
        Ok(moved)
    }

    fn ends_mut(&mut self) -> &mut Ends {
        self.ends.as_mut().expect(LIVES)
    }
}

const LIVES: &str = "the ends are gone only after the drop";
const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// The number of moved bytes says nothing about readiness, as a pipe may be full of few bytes in many pieces: only
/// `WouldBlock` clears it.
fn splice(
    socket: &impl Duplex,
    interest: Interest,
    call: impl FnOnce() -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    let mut moved = 0;
    socket.try_io(interest, || {
        moved = call()?;
        Ok(())
    })?;
    Ok(moved)
}

fn has_unread(socket: &impl Duplex) -> bool {
    unread(socket).is_ok_and(|bytes| bytes > 0)
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // Bytes that one stream left in a pipe must not reach another.
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else { return };
        // Fails only while the thread ends; the pipe is then closed.
        let _ = SPARES.try_with(|spares| {
            let spares = &mut spares.borrow_mut();
            if spares.len() < KEPT {
                spares.push(ends);
            }
        });
    }
}

impl Ends {
    fn open() -> Option<Self> {
        static BOUND: OnceLock<usize> = OnceLock::new();
        let limit = || rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        if OPEN.load(Ordering::Relaxed) >= *BOUND.get_or_init(|| pipes_within(limit()).min(memory::for_pipes() / GROWN))
        {
            return None;
        }
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        OPEN.fetch_add(1, Ordering::Relaxed);
        Some(Self { read, write, capacity: DEFAULT })
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The most pipes of a process that may have this many descriptors: they take a sixteenth of them.
pub fn pipes_within(descriptors: u64) -> usize {
    usize::try_from(descriptors / 32).map_or(MOST, |pipes| pipes.min(MOST))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::net::Stream;

    async fn pair() -> (UnixStream, Stream) {
        let (near, far) = UnixStream::pair().unwrap();
        far.writable().await.unwrap();
        (near, Stream::Unix(far))
    }

    #[tokio::test]
    async fn bytes_go_through_and_a_pipe_that_kept_some_is_not_used_again() {
        let ((mut sender, from), (mut receiver, to)) = (pair().await, pair().await);
        let mut pipe = Pipe::take().unwrap();
        pipe.grow();
        sender.write_all(b"through").await.unwrap();
        while pipe.held() == 0 {
            let _ = pipe.fill(&from);
            tokio::task::yield_now().await;
        }
        assert_eq!(pipe.drain(&to).unwrap(), 7);
        let mut got = [0; 7];
        receiver.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"through");

        sender.write_all(b"secret").await.unwrap();
        while pipe.held() == 0 {
            let _ = pipe.fill(&from);
            tokio::task::yield_now().await;
        }
        let spares = || SPARES.with_borrow(Vec::len);
        let before = spares();
        drop(pipe);
        assert_eq!(spares(), before);
        drop(Pipe::take().unwrap());
        assert_eq!(spares(), before + 1);
    }

    #[test]
    fn pipes_are_bounded() {
        let taken: Vec<_> = std::iter::from_fn(Pipe::take).take(MOST + 64).collect();
        // Other tests may hold some.
        assert!(taken.len() <= MOST, "{}", taken.len());
        assert!(Pipe::take().is_none());
        drop(taken);
        assert!(Pipe::take().is_some());
        assert_eq!([pipes_within(1024), pipes_within(1 << 20), pipes_within(u64::MAX)], [32, MOST, MOST]);
    }
}
