use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::account::Account;
use super::outcome::{Carrier, Ended};
use super::sides::Sides;
use super::{Mechanism, ROUNDS, both, flushed};
use crate::net::{self, Duplex, Pipe};
use crate::tls::pool::{Buffer, Size};
use bytes::{Buf, Bytes};

pub(super) struct Passing<'a> {
    up: Pump<'a>,
    down: Pump<'a>,
}

impl<'a> Passing<'a> {
    /// `early` are bytes of the client that were read already.
    pub(super) fn new(early: Bytes, [sent, received]: [Account<'a>; 2]) -> Self {
        let up = Pump::new(Sender::Downstream, early, sent);
        let down = Pump::new(Sender::Upstream, Bytes::new(), received);
        Self { up, down }
    }
}

impl<'a> Mechanism<'a> for Passing<'a> {
    fn poll(&mut self, cx: &mut Context<'_>, sides: &Sides) -> Poll<Ended> {
        let down = self.down.poll(cx, &sides.upstream, &sides.downstream, self.up.is_ended());
        let alone = down.is_ready();
        both(down, || self.up.poll(cx, &sides.downstream, &sides.upstream, alone))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, sides: &Sides, ended: &Ended) -> Poll<Option<Ended>> {
        let [owes_upstream, owes_client] = ended.owes();
        let down = match owes_client {
            false => Poll::Ready(Ok(())),
            true if ended.upstream_is_gone() => self.down.poll_last(cx, &sides.upstream, &sides.downstream),
            true => self.down.poll_deliver(cx, &sides.downstream),
        };
        let up = match owes_upstream {
            false => Poll::Ready(Ok(())),
            true if ended.is_downstream() => self.up.poll_last(cx, &sides.downstream, &sides.upstream),
            true => self.up.poll_deliver(cx, &sides.upstream),
        };
        flushed(down, up)
    }

    fn is_half_closed(&self) -> bool {
        self.up.is_ended() || self.down.is_ended()
    }

    fn holds(&self) -> [bool; 2] {
        [self.up.holds(), self.down.holds()]
    }

    fn carrier(&self) -> Carrier {
        if self.up.spliced || self.down.spliced { Carrier::Spliced } else { Carrier::Copied }
    }

    fn accounts(&mut self) -> [&mut Account<'a>; 2] {
        [&mut self.up.account, &mut self.down.account]
    }
}

/// One direction. Small transfers are copied, with one system call each way; a flow that fills a buffer continues
/// through a pipe.
struct Pump<'a> {
    sender: Sender,
    state: State,
    size: Size,
    early: Bytes,
    load: Load,
    /// The sender's connection was reset: after what came before there is no end.
    gone: bool,
    /// The kernel splices from this socket, as far as is known.
    splices: bool,
    /// Bytes were spliced at least once.
    spliced: bool,
    account: Account<'a>,
}

/// Whose bytes a direction moves.
#[derive(Clone, Copy)]
enum Sender {
    Downstream,
    Upstream,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Moving,
    Finishing,
    Ended,
}

/// Bytes on their way, and what carries them.
enum Load {
    Nothing,
    Piped(Pipe),
    Copied { buffer: Buffer, start: usize, end: usize },
}

impl<'a> Pump<'a> {
    fn new(sender: Sender, early: Bytes, account: Account<'a>) -> Self {
        let state = State::Moving;
        let size = Size::Small;
        Self { sender, state, size, early, load: Load::Nothing, gone: false, splices: true, spliced: false, account }
    }

    /// Moves available bytes. Ready when the sender's end was passed on, and on every later call.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Duplex,
        to: &impl Duplex,
        alone: bool,
    ) -> Poll<Result<(), Ended>> {
        for _ in 0..ROUNDS {
            ready!(self.poll_deliver(cx, to))?;
            match self.state {
                State::Moving => ready!(self.poll_fill(cx, from))?,
                State::Finishing => {
                    self.load = Load::Nothing;
                    // The close that follows sends the FIN as well.
                    if !alone {
                        net::finish(to).map_err(|error| self.sender.was_refused(&error))?;
                    }
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// As `poll`, of a sender whose connection is gone: an end of its bytes is then none.
    fn poll_last(&mut self, cx: &mut Context<'_>, from: &impl Duplex, to: &impl Duplex) -> Poll<Result<(), Ended>> {
        self.gone = true;
        self.poll(cx, from, to, false)
    }

    fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    fn holds(&self) -> bool {
        let loaded = match &self.load {
            Load::Nothing => false,
            Load::Piped(pipe) => pipe.held() > 0,
            Load::Copied { start, end, .. } => start < end,
        };
        loaded || !self.early.is_empty()
    }

    /// Ready when the receiver's socket has taken all that is on its way.
    fn poll_deliver(&mut self, cx: &mut Context<'_>, to: &impl Duplex) -> Poll<Result<(), Ended>> {
        loop {
            let written = match &mut self.load {
                _ if !self.early.is_empty() => net::try_write(to, &[IoSlice::new(&self.early)]),
                Load::Piped(pipe) if pipe.held() > 0 => pipe.drain(to),
                Load::Copied { buffer, start, end } if *start < *end => {
                    net::try_write(to, &[IoSlice::new(&buffer[*start..*end])])
                }
                _ => return Poll::Ready(Ok(())),
            };
            match written {
                Ok(n) => self.delivered(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(to.poll_write_ready(cx)).map_err(|error| self.sender.was_refused(&error))?;
                }
                Err(error) => return Poll::Ready(Err(self.sender.was_refused(&error))),
            }
        }
    }

    fn delivered(&mut self, n: usize) {
        self.account.took(n as u64);
        if !self.early.is_empty() {
            self.early.advance(n);
            if self.early.is_empty() {
                // An empty remainder would still hold the memory of the whole.
                self.early = Bytes::new();
            }
        } else if let Load::Copied { start, .. } = &mut self.load {
            *start += n;
        }
    }

    /// One transfer. Pending leaves neither memory nor a pipe behind.
    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &impl Duplex) -> Poll<Result<(), Ended>> {
        loop {
            if from.poll_read_ready(cx).map_err(|error| self.sender.failed(&error))?.is_pending() {
                self.load = Load::Nothing;
                return Poll::Pending;
            }
            match self.fill(from) {
                Ok(0) if self.gone => {
                    return Poll::Ready(Err(self.sender.failed(&io::ErrorKind::ConnectionReset.into())));
                }
                Ok(0) => self.state = State::Finishing,
                Ok(_) => {
                    self.account.gave();
                    self.account.first();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if self.splices && is_not_spliced(&error) => {
                    self.splices = false;
                    continue;
                }
                Err(error) => return Poll::Ready(Err(self.sender.failed(&error))),
            }
            return Poll::Ready(Ok(()));
        }
    }

    fn fill(&mut self, from: &impl Duplex) -> io::Result<usize> {
        if self.size > Size::Small && self.splices && self.has_pipe() {
            let Load::Piped(pipe) = &mut self.load else { unreachable!("it was just asked for") };
            if self.size == Size::Large {
                pipe.grow();
            }
            let n = pipe.fill(from)?;
            self.spliced = true;
            // A pipe may be full of few bytes, if they came in small packets.
            self.size = if n > SHORT { Size::Large } else { Size::Small };
            return Ok(n);
        }
        self.load = Load::Nothing;
        let mut buffer = Buffer::take(self.size);
        let n = net::try_read(from, &mut buffer)?;
        self.size = self.size.after(n, buffer.len());
        self.load = Load::Copied { buffer, start: 0, end: n };
        Ok(n)
    }

    /// Gets a pipe if it has none and there is one.
    fn has_pipe(&mut self) -> bool {
        if !matches!(self.load, Load::Piped(_))
            && let Some(pipe) = Pipe::take()
        {
            self.load = Load::Piped(pipe);
        }
        matches!(self.load, Load::Piped(_))
    }
}

/// With this few bytes at a time, two copies cost less than the calls that a pipe needs to find its sender empty.
const SHORT: usize = 8 << 10;

impl Sender {
    fn failed(self, error: &io::Error) -> Ended {
        match self {
            Self::Downstream => Ended::from_downstream(error),
            Self::Upstream => Ended::from_upstream(error),
        }
    }

    fn was_refused(self, error: &io::Error) -> Ended {
        match self {
            Self::Downstream => Ended::from_upstream(error),
            Self::Upstream => Ended::from_downstream(error),
        }
    }
}

/// A kernel or sandbox without splice(2) for this kind of socket.
fn is_not_spliced(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}
