//! Moving bytes between a downstream and an upstream until both are done: plaintext to TLS and back, or untouched.
//!
//! Two directions run in the one task of the connection: the end of one is passed on as a half-close
//! (FIN to close_notify and FIN, close_notify to FIN) and the other goes on. Whatever is not a clean end
//! of both becomes a reset of both sides, so that neither takes a cut stream for a whole one.
//!
//! | file | idea |
//! |---|---|
//! | `upload` | client to server: read into records, seal in place, one write |
//! | `download` | server to client: one read, open in place, one write |
//! | `passing` | untouched: copied while there is little, spliced through a pipe when there is much |
//! | `kernel` | either of them with a kernel that makes the records |
//! | `clock` | idle, lifetime and half-closed time limits with one timer |
//! | `account` | what a direction has moved |
//! | `outcome` | how a stream ended |
//!
//! # Memory
//!
//! An idle stream holds no buffer: besides this future (its size is kept by a test) there are the keys
//! and what rustls keeps to derive new ones; `docs/hot-path.md` says what that comes to. A busy one holds at most
//! one buffer of `Size::Large` each way, 0.5 MiB together; all streams together are bounded by `pool`. What passes
//! through untouched is in a pipe of at most 256 KiB, of which there are 256; beyond that it is copied in buffers of
//! `pool`.

mod account;
mod clock;
mod download;
mod kernel;
mod outcome;
mod passing;
mod upload;

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use metrics::Counter;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::values::StreamLimits;
use crate::net;
use crate::tls::handshake::Established;
use crate::tls::session::Session;

use account::Account;
use clock::Clock;
use download::Download;
pub use outcome::{Carrier, Ended, Outcome};
use passing::Passing;
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
/// `forced` says how the stream ended then.
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
    forced: impl Future<Output = Ended>,
) -> impl Future<Output = Outcome> {
    let mut sent = Account::new(&counters.sent);
    sent.took(upstream.said);
    let stream = Stream {
        downstream,
        upstream: upstream.tcp,
        session: upstream.session,
        up: Upload::new(early, upstream.unsent, sent),
        down: Download::new(upstream.received, limits.eof, Account::new(&counters.received)),
        upstream_refuses: None,
        close: Close::Reset,
    };
    run(stream, limits, forced)
}

/// The same between two sides that understand each other: bytes go through untouched, and a FIN of either side is a
/// clean end of its direction. `limits.eof` has no meaning.
///
/// What comes in quantity goes from socket to socket through a pipe, without a copy (splice(2)).
///
/// # Cancel safety
///
/// As [`relay`].
pub fn pass_through(
    downstream: net::Stream,
    early: Bytes,
    upstream: TcpStream,
    limits: &StreamLimits,
    counters: &Counters,
    forced: impl Future<Output = Ended>,
) -> impl Future<Output = Outcome> {
    let accounts = [Account::new(&counters.sent), Account::new(&counters.received)];
    run(Passing::new(downstream, early, upstream, accounts), limits, forced)
}

/// A way of moving bytes between two sockets: what the mechanisms differ in.
trait Mechanism<'a> {
    /// Moves what can be moved, both ways. Ready when the stream is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended>;
    /// Whether one direction has ended, or cannot go on, and the other is left.
    fn is_half_closed(&self) -> bool;
    /// What carries the bytes, as it stands now.
    fn carrier(&self) -> Carrier;
    /// What was sent and what was received.
    fn accounts(&mut self) -> [&mut Account<'a>; 2];
    /// How the sockets are to be closed. Without this call, as when the future is dropped, both are reset.
    fn finish(&mut self, ended: &Ended);
}

/// Lets a mechanism work until its stream is over, a limit ends it, or `forced` resolves.
///
/// `stream` is used in place: a value that is moved inside of the block is laid out twice in the future.
fn run<'a>(
    mut stream: impl Mechanism<'a>,
    limits: &StreamLimits,
    forced: impl Future<Output = Ended>,
) -> impl Future<Output = Outcome> {
    let mut clock = Clock::new(limits, Instant::now());
    async move {
        let mut forced = pin!(forced);
        let mut alarm = pin!(clock.alarm());
        let ended = poll_fn(|cx| {
            if let Poll::Ready(cut) = forced.as_mut().poll(cx) {
                return Poll::Ready(cut);
            }
            if let Poll::Ready(ended) = stream.poll(cx) {
                return Poll::Ready(ended);
            }
            clock.half_closed(stream.is_half_closed());
            let [sent, received] = stream.accounts();
            // Not `||`: both marks have to be taken.
            if sent.take_active() | received.take_active() {
                let now = Instant::now();
                clock.touch(now);
                if clock.is_armed(now, cx.waker(), &alarm) {
                    return Poll::Pending;
                }
            }
            clock.poll_expired(cx, alarm.as_mut())
        })
        .await;
        stream.finish(&ended);
        let carrier = stream.carrier();
        let [sent, received] = stream.accounts();
        let first_byte = received.first_byte().map(|at| at.duration_since(clock.born()));
        Outcome { sent: sent.moved(), received: received.moved(), first_byte, carrier, ended }
    }
}

/// What two directions come to. `refuses`: the upstream takes no more bytes; what it has sent before is read to its
/// end all the same. `up` is driven after `down`: an alert or a last answer says more about an upstream that is gone
/// than the failed write does.
fn both(
    down: Poll<Result<(), Ended>>,
    refuses: &mut Option<Ended>,
    up: impl FnOnce() -> Poll<Result<(), Ended>>,
) -> Poll<Ended> {
    if let Poll::Ready(Err(ended)) = down {
        return Poll::Ready(ended.explained_by(refuses.take()));
    }
    if refuses.is_none() {
        match up() {
            Poll::Ready(Err(ended)) if ended.is_downstream() || ended == Ended::KernelKeyUpdate => {
                return Poll::Ready(ended);
            }
            Poll::Ready(Err(ended)) => *refuses = Some(ended),
            Poll::Ready(Ok(())) if down.is_ready() => return Poll::Ready(Ended::Finished),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
    }
    if down.is_pending() {
        return Poll::Pending;
    }
    refuses.take().map_or(Poll::Pending, Poll::Ready)
}

/// Rounds that one direction may move before the other has its turn: at most 1 MiB, some 0.3 ms.
const ROUNDS: usize = 4;

/// Two sides and the two directions between them.
struct Stream<'a> {
    downstream: net::Stream,
    upstream: TcpStream,
    session: Session,
    up: Upload<'a>,
    down: Download<'a>,
    /// The upstream takes no more bytes.
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

impl Close {
    /// To be called right before the sockets are dropped.
    fn prepare(self, downstream: &net::Stream, upstream: &TcpStream) {
        if self != Self::Clean
            && let net::Stream::Tcp(tcp) = downstream
        {
            net::abort_on_close(tcp);
        }
        if self == Self::Reset {
            net::abort_on_close(upstream);
        }
    }
}

impl<'a> Mechanism<'a> for Stream<'a> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        kernel::attach(&mut self.session, &self.upstream);
        let down = self.down.poll(cx, &self.upstream, &self.downstream, &mut self.session, self.up.is_ended());
        if let (Poll::Ready(Err(_)), Some(alert)) = (&down, self.down.owed_alert()) {
            self.up.say(cx, &self.upstream, &mut self.session, alert);
        }
        let alone = down.is_ready();
        both(down, &mut self.upstream_refuses, || {
            self.up.poll(cx, &self.downstream, &self.upstream, &mut self.session, alone)
        })
    }

    fn is_half_closed(&self) -> bool {
        self.up.is_ended() || self.down.is_ended() || self.upstream_refuses.is_some()
    }

    fn carrier(&self) -> Carrier {
        kernel::carrier(&self.session)
    }

    fn accounts(&mut self) -> [&mut Account<'a>; 2] {
        [self.up.account(), self.down.account()]
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
        self.close.prepare(&self.downstream, &self.upstream);
    }
}
