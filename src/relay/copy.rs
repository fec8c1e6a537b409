use std::task::{Context, Poll, ready};

use metrics::Counter;
use tokio::time::Instant;

use super::buffer::{Buffer, Size};
use super::outcome::Ended;

/// Where bytes come from. With `Sink` the seam behind which a mechanism can be replaced: a direction
/// knows neither sockets nor TLS.
pub(super) trait Source {
    /// Appends what can be had without waiting, up to the buffer's end. `Pending` leaves the buffer empty.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<Result<Filled, Ended>>;
}

/// Where bytes go.
pub(super) trait Sink {
    /// Ready when the operating system has taken all of `buffer` and all that was pushed before, so
    /// nothing is left to flush. Memory of the buffer may be given back before that.
    fn poll_push(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer, tally: &mut Tally) -> Poll<Result<(), Ended>>;

    /// Tells the peer that no more bytes will come. Comes after a `poll_push` that was ready.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>>;
}

/// What a source had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Bytes,
    End,
}

/// What one push achieved.
#[derive(Default)]
pub(super) struct Tally {
    /// Bytes to be counted.
    pub(super) taken: u64,
    /// Whether the socket took anything at all, be it part of a batch that is counted later.
    pub(super) active: bool,
}

/// One way of a stream.
pub(super) struct Direction<'a> {
    state: State,
    size: Size,
    active: bool,
    buffer: Buffer,
    moved: u64,
    first_byte: Option<Instant>,
    counter: &'a Counter,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Moving,
    Finishing,
    Ended,
}

/// Chunks (of 64 KiB at most) that one direction moves before the other has its turn. tokio lets a task do
/// 128 operations a poll; a chunk of records costs about nine, so one busy direction leaves the other
/// nearly half of them.
const ROUNDS: usize = 8;

impl<'a> Direction<'a> {
    pub(super) fn new(counter: &'a Counter) -> Self {
        let (state, size) = (State::Moving, Size::Small);
        Self { state, size, active: false, buffer: Buffer::default(), moved: 0, first_byte: None, counter }
    }

    /// Moves what can be moved. Ready when the source has ended and the sink was told, and again on
    /// every later call.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Source,
        to: &mut impl Sink,
    ) -> Poll<Result<(), Ended>> {
        for _ in 0..ROUNDS {
            match self.state {
                State::Moving => {
                    ready!(self.poll_push(cx, to))?;
                    if ready!(self.poll_fill(cx, from))? == Filled::End {
                        self.state = State::Finishing;
                    }
                }
                State::Finishing => {
                    ready!(to.poll_finish(cx))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_push(&mut self, cx: &mut Context<'_>, to: &mut impl Sink) -> Poll<Result<(), Ended>> {
        let mut tally = Tally::default();
        let pushed = to.poll_push(cx, &mut self.buffer, &mut tally);
        self.active |= tally.active;
        if tally.taken > 0 {
            self.moved += tally.taken;
            self.counter.increment(tally.taken);
        }
        pushed
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &mut impl Source) -> Poll<Result<Filled, Ended>> {
        self.buffer.prepare(self.size);
        let filled = from.poll_fill(cx, &mut self.buffer);
        if let Poll::Ready(Ok(Filled::Bytes)) = filled {
            self.size = self.size.after(self.buffer.waiting().len());
            self.active = true;
            self.first_byte.get_or_insert_with(Instant::now);
        }
        self.buffer.release_if_empty();
        filled
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether bytes have moved since the last call.
    pub(super) fn take_active(&mut self) -> bool {
        std::mem::take(&mut self.active)
    }

    /// Bytes counted so far.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    pub(super) fn first_byte(&self) -> Option<Instant> {
        self.first_byte
    }
}
