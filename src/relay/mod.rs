//! Moving bytes between a plaintext downstream and a TLS upstream until both are done.
//!
//! Two directions run in the one task of the connection: the end of one is passed on as a half-close
//! (FIN to close_notify and FIN, close_notify to FIN) and the other goes on. Whatever is not a clean end
//! of both becomes a reset of both sides, so that neither takes a cut stream for a whole one.
//!
//! | file | idea |
//! |---|---|
//! | `upload` | client to server: read into records, seal in place, one write |
//! | `download` | server to client: one read, open in place, one write |
//! | `clock` | idle, lifetime and half-closed time limits with one timer |
//! | `outcome` | how a stream ended |
//!
//! # Memory
//!
//! An idle stream holds no buffer: besides this future (its size is kept by a test) there are the keys
//! and what rustls keeps to derive new ones; with 9,000 idle streams of TLS 1.3 the process needs 5.2 KiB
//! for each. A busy one holds at most one buffer of `Size::Large` each way, 0.5 MiB together; all streams
//! together are bounded by `pool`.

mod clock;
mod download;
mod outcome;
mod upload;

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use metrics::Counter;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::values::StreamLimits;
use crate::net;
use crate::tls::handshake::Established;
use crate::tls::session::Session;

use clock::Clock;
use download::Download;
pub use outcome::{Ended, Outcome};
use upload::Upload;

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
/// `early` are bytes of the client that were already read; they are sent first, together with what the
/// handshake left unsent.
///
/// A byte is counted when the operating system has taken it for the receiving side: on the way down as
/// written to the client's socket, on the way up with the last byte of its record. A reset may still
/// destroy what was counted.
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
    upstream: Established,
    limits: &StreamLimits,
    counters: &Counters,
    forced: impl Future<Output = ()>,
) -> impl Future<Output = Outcome> {
    // Built outside of the async block and used there in place: a value that is moved inside is laid out
    // twice in the future.
    let mut stream = Stream {
        downstream,
        upstream: upstream.tcp,
        session: upstream.session,
        up: Upload::new(early, upstream.unsent, &counters.sent),
        down: Download::new(upstream.received, limits.eof, &counters.received),
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
    downstream: net::Stream,
    upstream: TcpStream,
    session: Session,
    up: Upload<'a>,
    down: Download<'a>,
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
        let down = self.down.poll(cx, &self.upstream, &self.downstream, &mut self.session, self.up.is_ended());
        if let Poll::Ready(Err(ended)) = down {
            if let Some(alert) = self.down.owed_alert() {
                self.up.say(cx, &self.upstream, &mut self.session, alert);
            }
            return Poll::Ready(ended.explained_by(self.upstream_refuses.take()));
        }
        if self.upstream_refuses.is_none() {
            match self.up.poll(cx, &self.downstream, &self.upstream, &mut self.session, down.is_ready()) {
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
