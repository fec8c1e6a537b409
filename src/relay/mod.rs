//! Moving bytes between a plaintext downstream and a TLS upstream until both are done.
//!
//! Two directions run in the one task of the connection, joined: the end of one is passed on as a
//! half-close (FIN to close_notify and FIN, close_notify to FIN) and the other goes on. Whatever is not
//! a clean end of both becomes a reset of both sides, so that neither takes a cut stream for a whole one.
//!
//! | file | idea |
//! |---|---|
//! | `copy` | one direction over the seam `Source` / `Sink`: read only when nothing waits to be written |
//! | `plain`, `tls` | the two kinds of sides; another mechanism is another pair of these |
//! | `buffer` | memory that a stream holds only while bytes wait in it |
//! | `clock` | idle, lifetime and half-closed time limits with one timer |
//! | `outcome` | how a stream ended |
//!
//! # Memory
//!
//! An idle stream holds no buffer: besides this future (its size is kept by a test) there is what rustls
//! keeps, 4 KiB for the next record and the keys. A busy or stalled one holds at most, on the way up,
//! 64 KiB of records that wait for the upstream's socket; on the way down 64 KiB that wait for the
//! client's socket, one decrypted record (16 KiB) and one that is still arriving (18 KiB). Together
//! 162 KiB, and what the sockets hold. Plaintext on the way up is given back as soon as it is encrypted.

mod buffer;
mod clock;
mod copy;
mod outcome;
mod plain;
mod tls;

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use metrics::Counter;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use crate::config::values::StreamLimits;
use crate::net;

use clock::Clock;
use copy::Direction;
pub use outcome::{Ended, Outcome};
use plain::Plain;
use tls::Tls;

/// The metric handles of one upstream's streams, resolved before.
#[derive(Clone)]
pub struct Counters {
    /// Bytes from the client to the upstream.
    pub sent: Counter,
    /// Bytes from the upstream to the client.
    pub received: Counter,
}

/// Moves bytes both ways until both ends are done, a limit ends the stream, or `forced` resolves.
///
/// `early` are bytes of the client that were already read; they are sent first. What rustls has already
/// decrypted (a server that speaks first) reaches the client first.
///
/// A byte is counted when the operating system has taken it for the receiving side: on the way down as
/// written to the client's socket, on the way up when the last record of its batch (at most 64 KiB)
/// is written to the upstream's. A reset may still destroy what was counted.
///
/// The limits and `forced` end a stream that is not over, so both sides are reset and no close_notify is
/// sent: a peer must not take the cut for the end of the data. A Unix socket knows no reset; its peer
/// sees a close. Bytes already received from an upstream that then truncates, resets or sends an alert
/// are written to the client's socket before the reset.
///
/// # Cancel safety
///
/// Dropping the future resets both sides; it has no task or thread behind it.
pub fn relay(
    downstream: net::Stream,
    early: Bytes,
    upstream: TlsStream<TcpStream>,
    limits: &StreamLimits,
    counters: &Counters,
    forced: impl Future<Output = ()>,
) -> impl Future<Output = Outcome> {
    // Built outside of the async block and used there in place: a value that is moved inside is laid out
    // twice in the future.
    let mut stream = Stream {
        downstream: Plain::new(downstream, early),
        upstream: Tls::new(upstream, limits.eof),
        up: Direction::new(&counters.sent),
        down: Direction::new(&counters.received),
        upstream_refuses: None,
        close: Close::Reset,
    };
    let mut clock = Clock::new(limits, Instant::now());
    async move {
        let mut forced = pin!(forced);
        let mut alarm = pin!(clock.alarm());
        let ended = poll_fn(|cx| {
            if forced.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ended::Drained);
            }
            if let Poll::Ready(ended) = stream.poll(cx) {
                return Poll::Ready(ended);
            }
            if stream.take_active() {
                clock.touch(Instant::now());
            }
            clock.half_closed(stream.is_half_closed());
            clock.poll_expired(cx, alarm.as_mut())
        })
        .await;
        stream.finish(&ended);
        let first_byte = stream.down.first_byte().map(|at| at.duration_since(clock.born()));
        Outcome { sent: stream.up.moved(), received: stream.down.moved(), first_byte, ended }
    }
}

/// Two sides and the two directions between them.
struct Stream<'a> {
    downstream: Plain,
    upstream: Tls,
    up: Direction<'a>,
    down: Direction<'a>,
    /// The upstream takes no more bytes. What it has sent before is read to its end all the same.
    upstream_refuses: Option<Ended>,
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

impl Stream<'_> {
    /// Drives both directions. The way down first: an alert or a last answer says more about an
    /// upstream that is gone than the failed write does.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let down = self.down.poll(cx, &mut self.upstream, &mut self.downstream);
        if let Poll::Ready(Err(ended)) = down {
            return Poll::Ready(ended.explained_by(self.upstream_refuses.take()));
        }
        if self.upstream_refuses.is_none() {
            match self.up.poll(cx, &mut self.downstream, &mut self.upstream) {
                Poll::Ready(Err(ended)) if ended.is_downstream() => return Poll::Ready(ended),
                Poll::Ready(Err(ended)) => self.upstream_refuses = Some(ended),
                Poll::Ready(Ok(())) if down.is_ready() => return Poll::Ready(Ended::Finished),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        let _: Result<(), Ended> = ready!(down);
        self.upstream_refuses.take().map_or(Poll::Pending, Poll::Ready)
    }

    fn is_half_closed(&self) -> bool {
        self.up.is_ended() || self.down.is_ended() || self.upstream_refuses.is_some()
    }

    /// Whether bytes have moved since the last call.
    fn take_active(&mut self) -> bool {
        // Not `||`: both marks have to be taken.
        self.up.take_active() | self.down.take_active()
    }

    fn finish(&mut self, ended: &Ended) {
        self.close = match ended {
            Ended::Finished => Close::Clean,
            Ended::UpstreamAlert(_) | Ended::UpstreamTls(_) => Close::ResetDownstream,
            _ => Close::Reset,
        };
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if self.close != Close::Clean {
            self.downstream.abort();
        }
        if self.close == Close::Reset {
            self.upstream.abort();
        }
    }
}
