//! Moving bytes between a downstream and an upstream until both are done: plaintext to TLS and back, or untouched.
//!
//! Two directions run in the one task of the connection: the end of one is passed on as a half-close
//! (FIN to close_notify and FIN, close_notify to FIN) and the other goes on. Whatever is not a clean end
//! of both becomes a reset of both sides, so that neither takes a cut stream for a whole one. Before the reset
//! each side gets what was read for it, within a bound; `docs/ends-of-streams.md` has the table.
//!
//! | file | idea |
//! |---|---|
//! | `upload` | client to server: read into records, seal in place, one write |
//! | `download` | server to client: one read, open in place, one write |
//! | `passing` | untouched: copied while there is little, spliced through a pipe when there is much |
//! | `kernel` | either of them with a kernel that makes the records |
//! | `clock` | idle, lifetime and half-closed time limits with one timer |
//! | `sides` | the two sockets: resets that no read would notice, and how they are closed |
//! | `linger` | what is still delivered after the end and before the reset |
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
mod linger;
mod outcome;
mod passing;
mod sides;
mod upload;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use metrics::Counter;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::values::StreamLimits;
use crate::net;
use crate::observe::logging::flood::{self, Event, Key};
use crate::pipeline::answer::Parting;
use crate::protocols::cancel::FirstBytes;
use crate::tls::handshake::Established;
use crate::tls::session::{Renegotiation, Session};

use account::Account;
use clock::Clock;
use download::Download;
pub use outcome::{Carrier, Ended, Outcome};
use passing::Passing;
use sides::Sides;
use upload::Upload;

/// The metric handles of streams, resolved before.
#[derive(Clone)]
pub struct Counters {
    /// Bytes from the client to the upstream.
    pub sent: Counter,
    /// Bytes from the upstream to the client.
    pub received: Counter,
    /// Streams whose key towards the upstream nears its limit and cannot be changed.
    pub near_key_limit: Counter,
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
/// `forced` resolves to the end of the stream.
///
/// The limits and `forced` end a stream that is not over, so both sides are reset and no close_notify is
/// sent: a peer must not take the cut for the end of the data. A Unix socket knows no reset; its peer
/// sees a close. Before the reset each side gets what was read for it and has acknowledged it, or the bound of
/// `linger` has passed.
///
/// # Cancel safety
///
/// Dropping the future resets both sides at once; it has no task or thread behind it.
pub fn relay<'a>(
    downstream: impl Into<Downstream<'a>>,
    early: Bytes,
    upstream: Established,
    limits: &StreamLimits,
    counters: &'a Counters,
    forced: impl Future<Output = Ended>,
) -> impl Future<Output = Outcome> {
    let mut downstream = downstream.into();
    let mut sent = Account::new(&counters.sent);
    sent.took(upstream.client_sent);
    let stream = Stream {
        session: upstream.session,
        up: Upload::new(early, upstream.unsent, upstream.tickets_due, sent, &counters.near_key_limit),
        down: Download::new(upstream.received, limits.eof, Account::new(&counters.received), downstream.first.take()),
        renegotiation_logged: false,
    };
    run(downstream, upstream.tcp, stream, limits, forced)
}

/// As [`relay`], but bytes pass through unchanged, and a FIN of either side is a clean end of its direction.
/// `limits.eof` has no meaning.
///
/// Bulk data goes from socket to socket through a pipe, without a copy (splice(2)).
///
/// # Cancel safety
///
/// As [`relay`].
pub fn pass_through<'a>(
    downstream: impl Into<Downstream<'a>>,
    early: Bytes,
    upstream: TcpStream,
    limits: &StreamLimits,
    counters: &Counters,
    forced: impl Future<Output = Ended>,
) -> impl Future<Output = Outcome> {
    let accounts = [Account::new(&counters.sent), Account::new(&counters.received)];
    run(downstream.into(), upstream, Passing::new(early, accounts), limits, forced)
}

/// Delivers what is left after the end, and answers a client that has got no byte of the server. Returns the end as it is
/// reported.
async fn close<'a>(
    stream: &mut impl Mechanism<'a>,
    sides: &mut Sides,
    ended: Ended,
    silence: Duration,
    forced: Pin<&mut impl Future<Output = Ended>>,
    parting: Option<PartingOf<'_>>,
) -> Ended {
    let ended = linger::linger(stream, sides, ended, silence, forced).await;
    sides.closes_as(&ended);
    let ended = stream.named(ended);
    let [_, received] = stream.accounts();
    let is_unanswered = received.moved() == 0 && ended != Ended::Finished && !ended.is_downstream();
    if let Some(parting) = parting.filter(|_| is_unanswered).and_then(|parting| parting(&ended)) {
        sides.answer(parting).await;
    }
    ended
}

/// The client's side of a stream.
pub struct Downstream<'a> {
    stream: net::Stream,
    parting: Option<PartingOf<'a>>,
    first: Option<FirstBytes<'a>>,
}

/// The answer to a client whose stream ended before the server's first byte; `None`: it gets a reset.
type PartingOf<'a> = &'a (dyn Fn(&Ended) -> Option<Parting<'a>> + Sync);

impl<'a> Downstream<'a> {
    pub(crate) fn new(stream: net::Stream, parting: PartingOf<'a>, first: Option<FirstBytes<'a>>) -> Self {
        Self { stream, parting: Some(parting), first }
    }
}

impl From<net::Stream> for Downstream<'_> {
    fn from(stream: net::Stream) -> Self {
        Self { stream, parting: None, first: None }
    }
}

/// Moves bytes between two sockets: the part in which the mechanisms differ.
trait Mechanism<'a> {
    fn poll(&mut self, cx: &mut Context<'_>, sides: &Sides) -> Poll<Ended>;
    /// Delivers what was read before `ended`; of a side that is gone the rest is read as well. Ready when nothing is
    /// left, with the end of a direction that failed meanwhile.
    fn poll_flush(&mut self, cx: &mut Context<'_>, sides: &Sides, ended: &Ended) -> Poll<Option<Ended>>;
    /// Whether one direction has ended, and the other is left.
    fn is_half_closed(&self) -> bool;
    /// Whether bytes that were read wait for their receiver to take them: the upstream, the client.
    fn holds(&self) -> [bool; 2];
    /// Whether the server has ended the stream by other means than its FIN.
    fn awaits_fin(&self) -> bool {
        false
    }
    /// What carries the bytes, as it stands now.
    fn carrier(&self) -> Carrier;
    fn named(&self, ended: Ended) -> Ended {
        ended
    }
    fn accounts(&mut self) -> [&mut Account<'a>; 2];
}

/// Runs a mechanism until its stream is over, a limit ends it, or `forced` resolves; then delivers what was read.
///
/// `sides` and `stream` are used in place: a value that is moved inside of the block is laid out twice in the future.
fn run<'a>(
    Downstream { stream: downstream, parting, .. }: Downstream<'_>,
    upstream: TcpStream,
    mut stream: impl Mechanism<'a>,
    limits: &StreamLimits,
    forced: impl Future<Output = Ended>,
) -> impl Future<Output = Outcome> {
    let mut clock = Clock::new(limits, Instant::now());
    let mut sides = Sides::new(downstream, upstream);
    async move {
        let mut forced = pin!(forced);
        let ended = {
            let mut alarm = pin!(clock.alarm());
            // In a box, and only once a side is not read: an idle stream has none.
            let mut reset = None;
            poll_fn(|cx| {
                if let Poll::Ready(cut) = forced.as_mut().poll(cx) {
                    return Poll::Ready(cut);
                }
                if let Poll::Ready(ended) = stream.poll(cx, &sides) {
                    return Poll::Ready(ended);
                }
                if (stream.is_half_closed() || stream.holds() != [false; 2])
                    && let Poll::Ready(ended) = reset.get_or_insert_with(|| Box::pin(sides.reset())).as_mut().poll(cx)
                {
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
            .await
        };
        let ended = match ended {
            Ended::Finished if !stream.awaits_fin() || sides.discard().is_ready() => {
                sides.closes_as(&ended);
                ended
            }
            // In a box: most ends need none, and inside the future it would take memory of every idle stream.
            ended => Box::pin(close(&mut stream, &mut sides, ended, clock.silence(), forced, parting)).await,
        };
        let carrier = stream.carrier();
        let [sent, received] = stream.accounts();
        let first_byte = received.first_byte().map(|at| at.duration_since(clock.born()));
        Outcome { sent: sent.moved(), received: received.moved(), first_byte, carrier, ended }
    }
}

/// Combines two directions. `up` is polled after `down`: an alert or a last answer is more specific about a lost
/// upstream than the failed write.
fn both(down: Poll<Result<(), Ended>>, up: impl FnOnce() -> Poll<Result<(), Ended>>) -> Poll<Ended> {
    if let Poll::Ready(Err(ended)) = down {
        return Poll::Ready(ended);
    }
    match up() {
        Poll::Ready(Err(ended)) => Poll::Ready(ended),
        Poll::Ready(Ok(())) if down.is_ready() => Poll::Ready(Ended::Finished),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

/// Rounds of one direction before the other is polled: at most 1 MiB, some 0.3 ms.
const ROUNDS: usize = 4;

/// Plaintext on one side, TLS on the other, and the two directions between them.
struct Stream<'a> {
    session: Session,
    up: Upload<'a>,
    down: Download<'a>,
    /// A renegotiation that the server asked for was logged: once per stream.
    renegotiation_logged: bool,
}

impl<'a> Mechanism<'a> for Stream<'a> {
    fn poll(&mut self, cx: &mut Context<'_>, sides: &Sides) -> Poll<Ended> {
        kernel::attach(&mut self.session, &sides.upstream);
        let down = self.down.poll(cx, &sides.upstream, &sides.downstream, &mut self.session, self.up.is_ended());
        if let (Poll::Ready(Err(_)), Some(alert)) = (&down, self.down.owed_alert()) {
            self.up.send_alert(cx, &sides.upstream, &mut self.session, alert);
        }
        if self.session.renegotiation() == Renegotiation::Asked && !self.renegotiation_logged {
            self.renegotiation_logged = true;
            log_declined(&sides.upstream);
        }
        let alone = down.is_ready();
        both(down, || self.up.poll(cx, &sides.downstream, &sides.upstream, &mut self.session, alone))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, sides: &Sides, ended: &Ended) -> Poll<Option<Ended>> {
        let Sides { downstream, upstream, .. } = sides;
        let [owes_upstream, owes_client] = ended.owes();
        let down = match owes_client {
            false => Poll::Ready(Ok(())),
            true if ended.upstream_is_gone() => self.down.poll_last(cx, upstream, downstream, &mut self.session),
            true => self.down.poll_rest(cx, downstream, &mut self.session),
        };
        let up = match owes_upstream {
            false => Poll::Ready(Ok(())),
            true if ended.is_downstream() => self.up.poll_last(cx, downstream, upstream, &mut self.session),
            true => self.up.poll_rest(cx, downstream, upstream, &mut self.session),
        };
        flushed(down, up)
    }

    fn is_half_closed(&self) -> bool {
        self.up.is_ended() || self.down.is_ended()
    }

    fn holds(&self) -> [bool; 2] {
        [self.up.holds(), self.down.holds()]
    }

    fn awaits_fin(&self) -> bool {
        self.session.is_closed()
    }

    fn carrier(&self) -> Carrier {
        kernel::carrier(&self.session)
    }

    fn named(&self, ended: Ended) -> Ended {
        ended.after(self.session.renegotiation())
    }

    fn accounts(&mut self) -> [&mut Account<'a>; 2] {
        [self.up.account(), self.down.account()]
    }
}

/// The server gets a warning, and may go on.
fn log_declined(upstream: &TcpStream) {
    let endpoint = upstream.peer_addr().ok();
    let reason = Ended::RenegotiationDeclined.reason();
    if !flood::is_first(Key::new(Event::RenegotiationDeclined, reason).endpoint(endpoint)) {
        return;
    }
    tracing::warn!(
        endpoint = endpoint.map(tracing::field::display),
        reason,
        detail = "the server asked for a renegotiation of TLS 1.2 and got the alert no_renegotiation; some servers end the \
                  stream then",
        "renegotiation declined",
    );
}

/// Combines two directions of a stream that is over: an error ends its direction.
fn flushed(down: Poll<Result<(), Ended>>, up: Poll<Result<(), Ended>>) -> Poll<Option<Ended>> {
    match (down, up) {
        (Poll::Ready(down), Poll::Ready(up)) => Poll::Ready(down.and(up).err()),
        _ => Poll::Pending,
    }
}

#[cfg(test)]
mod tests;
