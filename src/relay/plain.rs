use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffer::Buffer;
use super::copy::{Filled, Sink, Source, Tally};
use super::outcome::Ended;
use crate::net;

/// The client's side: a plain socket, and before its bytes those that were read earlier.
pub(super) struct Plain {
    early: Bytes,
    socket: net::Stream,
}

impl Plain {
    pub(super) fn new(socket: net::Stream, early: Bytes) -> Self {
        Self { early, socket }
    }

    /// The close that follows is a reset where the family knows one.
    pub(super) fn abort(&self) {
        if let net::Stream::Tcp(tcp) = &self.socket {
            net::abort_on_close(tcp);
        }
    }

    fn take_early(&mut self, buffer: &mut Buffer) {
        let n = self.early.len().min(buffer.unfilled().len());
        self.early.copy_to_slice(&mut buffer.unfilled()[..n]);
        buffer.advance(n);
        if self.early.is_empty() {
            // An empty remainder would still hold the memory of the whole.
            self.early = Bytes::new();
        }
    }
}

impl Source for Plain {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<Result<Filled, Ended>> {
        if !self.early.is_empty() {
            self.take_early(buffer);
            return Poll::Ready(Ok(Filled::Bytes));
        }
        let mut unfilled = ReadBuf::new(buffer.unfilled());
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut unfilled));
        let n = unfilled.filled().len();
        read.map_err(|error| Ended::from_downstream(&error))?;
        buffer.advance(n);
        Poll::Ready(Ok(if n == 0 { Filled::End } else { Filled::Bytes }))
    }
}

impl Sink for Plain {
    fn poll_push(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer, tally: &mut Tally) -> Poll<Result<(), Ended>> {
        while !buffer.is_empty() {
            let n = match ready!(Pin::new(&mut self.socket).poll_write(cx, buffer.waiting())) {
                Ok(0) => return Poll::Ready(Err(Ended::DownstreamIo(io::ErrorKind::WriteZero))),
                Ok(n) => n,
                Err(error) => return Poll::Ready(Err(Ended::from_downstream(&error))),
            };
            buffer.consume(n);
            tally.taken += n as u64;
            tally.active = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        // An error says that the connection is gone already, and perhaps bytes with it.
        Pin::new(&mut self.socket).poll_shutdown(cx).map_err(|error| Ended::from_downstream(&error))
    }
}
