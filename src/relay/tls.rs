use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::buffer::{Buffer, LARGE};
use super::copy::{Filled, Sink, Source, Tally};
use super::outcome::Ended;
use crate::config::values::Eof;
use crate::net;

/// The upstream's side: a finished handshake over its socket.
///
/// The stream of tokio-rustls is taken apart, because its `Read` hides what the relay must tell apart (a
/// record that does not decrypt from an alert) and its `Write` may return with records half-written.
pub(super) struct Tls {
    socket: TcpStream,
    session: ClientConnection,
    eof: Eof,
    /// Bytes encrypted but not yet counted: records of theirs wait for the socket.
    batch: usize,
    /// The end that was met after the bytes which were delivered first.
    failed: Option<Ended>,
    /// The upstream has said that it sends no more.
    ended: bool,
    close_notify_sent: bool,
}

impl Tls {
    pub(super) fn new(stream: TlsStream<TcpStream>, eof: Eof) -> Self {
        let (socket, mut session) = stream.into_inner();
        // The bound of records that wait for the socket. Pushes begin with none waiting, so one push
        // always fits.
        session.set_buffer_limit(Some(LARGE));
        Self { socket, session, eof, batch: 0, failed: None, ended: false, close_notify_sent: false }
    }

    /// The close that follows is a reset.
    pub(super) fn abort(&self) {
        net::abort_on_close(&self.socket);
    }

    /// Takes decrypted bytes. `None`: there are none, and no end either.
    fn take_decrypted(&mut self, buffer: &mut Buffer) -> Option<Result<Filled, Ended>> {
        match self.session.reader().read(buffer.unfilled()) {
            Ok(0) => Some(Ok(Filled::End)),
            Ok(n) => {
                buffer.advance(n);
                Some(Ok(Filled::Bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // rustls's word for a FIN without close_notify.
            Err(_) if self.eof == Eof::Lenient => Some(Ok(Filled::End)),
            Err(_) => Some(Err(Ended::Truncated)),
        }
    }

    /// One read of the socket, and the records it completes.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        match self.session.read_tls(&mut Socket { tcp: &mut self.socket, cx }) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(Ended::from_upstream(&error))),
        }
        let processed = self.session.process_new_packets();
        Poll::Ready(processed.map(|_| ()).map_err(|error| {
            // The alert that says why; one try, since the error stands whatever becomes of it.
            let _ = self.poll_send(cx);
            Ended::from_tls(error)
        }))
    }

    /// Writes until no record waits. Yields whether any byte was written.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> (bool, Poll<Result<(), Ended>>) {
        let mut active = false;
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket { tcp: &mut self.socket, cx }) {
                Ok(0) => return (active, Poll::Ready(Err(Ended::UpstreamIo(io::ErrorKind::WriteZero)))),
                Ok(_) => active = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (active, Poll::Pending),
                Err(error) => return (active, Poll::Ready(Err(Ended::from_upstream(&error)))),
            }
        }
        (active, Poll::Ready(Ok(())))
    }
}

impl Source for Tls {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<Result<Filled, Ended>> {
        if let Some(ended) = self.failed.take() {
            return Poll::Ready(Err(ended));
        }
        while !buffer.is_full() {
            // Decrypted bytes before the socket: rustls refuses to read while they wait.
            let met = match self.take_decrypted(buffer) {
                Some(Ok(Filled::Bytes)) => continue,
                Some(met) => met,
                None => match self.poll_receive(cx) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(ended)) => Err(ended),
                    Poll::Pending if buffer.is_empty() => return Poll::Pending,
                    Poll::Pending => break,
                },
            };
            if buffer.is_empty() {
                self.ended = met.is_ok();
                return Poll::Ready(met);
            }
            // What came before the end is delivered first. Ends of rustls's reader last; others are kept.
            self.failed = met.err();
            break;
        }
        Poll::Ready(Ok(Filled::Bytes))
    }
}

impl Sink for Tls {
    fn poll_push(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer, tally: &mut Tally) -> Poll<Result<(), Ended>> {
        loop {
            let (active, sent) = self.poll_send(cx);
            tally.active |= active;
            ready!(sent)?;
            tally.taken += std::mem::take(&mut self.batch) as u64;
            if buffer.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match self.session.writer().write(buffer.waiting()) {
                Ok(n) if n > 0 => {
                    buffer.consume(n);
                    self.batch = n;
                }
                // Neither happens while no record waits and no close_notify was sent.
                Ok(_) => return Poll::Ready(Err(Ended::UpstreamIo(io::ErrorKind::WriteZero))),
                Err(error) => return Poll::Ready(Err(Ended::from_upstream(&error))),
            }
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if !self.close_notify_sent {
            self.session.send_close_notify();
            self.close_notify_sent = true;
        }
        let finished = match ready!(self.poll_send(cx).1) {
            Ok(()) => ready!(Pin::new(&mut self.socket).poll_shutdown(cx)).map_err(|e| Ended::from_upstream(&e)),
            Err(ended) => Err(ended),
        };
        // Most servers close both ways after their close_notify: nobody is left to hear ours, and every
        // byte of the client was taken before.
        Poll::Ready(if self.ended { Ok(()) } else { finished })
    }
}

/// The socket as rustls wants it: `WouldBlock` stands for `Pending`.
struct Socket<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Read for Socket<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        match Pin::new(&mut *self.tcp).poll_read(self.cx, &mut buf) {
            Poll::Ready(read) => read.map(|()| buf.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[io::IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, bufs) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
