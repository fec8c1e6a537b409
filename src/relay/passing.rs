use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use super::account::Account;
use super::outcome::{Carrier, Ended};
use super::{Close, Mechanism, ROUNDS, both};
use crate::net::{self, Duplex, Pipe};
use crate::tls::pool::{Buffer, Size};

/// Two sides that understand each other, and the two directions between them.
pub(super) struct Passing<'a> {
    downstream: net::Stream,
    upstream: TcpStream,
    up: Pump<'a>,
    down: Pump<'a>,
    /// The upstream takes no more bytes.
    upstream_refuses: Option<Ended>,
    close: Close,
}

impl<'a> Passing<'a> {
    /// `early` are bytes of the client that were read already.
    pub(super) fn new(
        downstream: net::Stream,
        early: Bytes,
        upstream: TcpStream,
        [sent, received]: [Account<'a>; 2],
    ) -> Self {
        let (up, down) =
            (Pump::new(Sender::Downstream, early, sent), Pump::new(Sender::Upstream, Bytes::new(), received));
        Self { downstream, upstream, up, down, upstream_refuses: None, close: Close::Reset }
    }
}

impl<'a> Mechanism<'a> for Passing<'a> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let down = self.down.poll(cx, &self.upstream, &self.downstream, self.up.is_ended());
        let alone = down.is_ready();
        both(down, &mut self.upstream_refuses, || self.up.poll(cx, &self.downstream, &self.upstream, alone))
    }

    fn is_half_closed(&self) -> bool {
        self.up.is_ended() || self.down.is_ended() || self.upstream_refuses.is_some()
    }

    fn carrier(&self) -> Carrier {
        if self.up.spliced || self.down.spliced { Carrier::Spliced } else { Carrier::Copied }
    }

    fn accounts(&mut self) -> [&mut Account<'a>; 2] {
        [&mut self.up.account, &mut self.down.account]
    }

    fn finish(&mut self, ended: &Ended) {
        self.close = if *ended == Ended::Finished { Close::Clean } else { Close::Reset };
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.close.prepare(&self.downstream, &self.upstream);
    }
}

/// One direction. Little is copied, with one system call each way; what fills a buffer goes on through a pipe.
struct Pump<'a> {
    sender: Sender,
    state: State,
    size: Size,
    early: Bytes,
    load: Load,
    /// The kernel splices from this socket, as far as is known.
    splices: bool,
    /// It did at least once.
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
    /// The sender has ended its side.
    Finishing,
    Ended,
}

/// Bytes on their way, and what carries them.
enum Load {
    Nothing,
    Piped(Pipe),
    /// What is between `start` and `end`.
    Copied {
        buffer: Buffer,
        start: usize,
        end: usize,
    },
}

impl<'a> Pump<'a> {
    fn new(sender: Sender, early: Bytes, account: Account<'a>) -> Self {
        let (state, size) = (State::Moving, Size::Small);
        Self { sender, state, size, early, load: Load::Nothing, splices: true, spliced: false, account }
    }

    /// Moves what can be moved. Ready when the sender's end was passed on, and on every later call.
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

    fn is_ended(&self) -> bool {
        self.state == State::Ended
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

/// With so little at a time, two copies cost less than the calls that a pipe needs to find its sender empty.
const SHORT: usize = 8 << 10;

impl Sender {
    /// It could not be read from.
    fn failed(self, error: &io::Error) -> Ended {
        match self {
            Self::Downstream => Ended::from_downstream(error),
            Self::Upstream => Ended::from_upstream(error),
        }
    }

    /// The other side does not take what it sends.
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
