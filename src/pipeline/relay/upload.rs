use std::io::{self, IoSlice, IoSliceMut};
use std::mem;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use metrics::Counter;
use rustls::AlertDescription;
use socket2::SockRef;

use super::ROUNDS;
use super::account::Account;
use super::kernel;
use super::outcome::Ended;
use crate::net::kernel_tls::{self, Direction};
use crate::net::{self, Duplex};
use crate::tls::pool::{Buffer, Size};
use crate::tls::record::{Exhausted, Layout, MAX_PLAINTEXT};
use crate::tls::session::{CONTROL, Control, Session};

/// Client to server: plaintext is read into the places it has in the records, sealed there, and written
/// at once.
pub(super) struct Upload<'a> {
    state: State,
    size: Size,
    /// Bytes of the client that were read before the relay began.
    early: Bytes,
    /// The last flight of the handshake; goes out with what comes first.
    flight: Vec<u8>,
    /// The server answers the last flight with tickets, and may hold its first answer back until they are acknowledged.
    tickets_due: bool,
    batch: Option<Batch>,
    /// A record that is sent on its own, because the kernel that makes the records needs its type.
    control: Option<Control>,
    /// Partial writes: the kernel may have ended a record there.
    cut: u32,
    /// The client's connection was reset: after what came before there is no end.
    gone: bool,
    account: Account<'a>,
    near_key_limit: &'a Counter,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Moving,
    /// close_notify is in the batch.
    Finishing,
    Ended,
}

struct Batch {
    buffer: Buffer,
    /// Length of what goes before the data.
    head: usize,
    slot: usize,
    start: usize,
    end: usize,
    plain: usize,
    counted: usize,
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        early: Bytes,
        flight: Vec<u8>,
        tickets_due: bool,
        account: Account<'a>,
        near_key_limit: &'a Counter,
    ) -> Self {
        Self {
            state: State::Moving,
            size: Size::Small,
            early,
            tickets_due: tickets_due || !flight.is_empty(),
            flight,
            batch: None,
            control: None,
            cut: 0,
            gone: false,
            account,
            near_key_limit,
        }
    }

    /// Moves available bytes. Ready when the client's end was passed on, and on every later call.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Duplex,
        to: &impl Duplex,
        session: &mut Session,
        alone: bool,
    ) -> Poll<Result<(), Ended>> {
        for _ in 0..ROUNDS {
            ready!(self.poll_send(cx, to, alone))?;
            kernel::renew(session, Direction::Send, to)?;
            if session.nears_limit() {
                self.near_key_limit.increment(1);
                warn(to);
            }
            match self.state {
                State::Moving if session.is_asked(Direction::Send) => {
                    ready!(self.poll_flight(cx, to, alone))?;
                    kernel::hand_over(session, Direction::Send, to);
                }
                State::Moving => match self.poll_fill(cx, from, session) {
                    Poll::Ready(filled) => filled?,
                    Poll::Pending => {
                        ready!(self.poll_flight(cx, to, alone))?;
                        return Poll::Pending;
                    }
                },
                State::Finishing => {
                    // A server that has closed its side mostly has closed both: nobody is left to hear
                    // this, and the close that follows sends the FIN as well.
                    if !alone {
                        if session.in_kernel(Direction::Send) {
                            ready!(kernel_tls::poll_drained(cx, to)).map_err(|error| Ended::from_upstream(&error))?;
                        }
                        net::finish(to).map_err(|error| Ended::from_upstream(&error))?;
                    }
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what was read and reads no more. Ready when the socket has taken it.
    pub(super) fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Duplex,
        to: &impl Duplex,
        session: &mut Session,
    ) -> Poll<Result<(), Ended>> {
        loop {
            ready!(self.poll_send(cx, to, false))?;
            if self.state != State::Moving || self.early.is_empty() {
                break;
            }
            kernel::renew(session, Direction::Send, to)?;
            ready!(self.poll_fill(cx, from, session))?;
        }
        if session.in_kernel(Direction::Send) {
            ready!(kernel_tls::poll_drained(cx, to)).map_err(|error| Ended::from_upstream(&error))?;
        }
        Poll::Ready(Ok(()))
    }

    /// As `poll`, of a client whose connection is gone: an end of its bytes is then none.
    pub(super) fn poll_last(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Duplex,
        to: &impl Duplex,
        session: &mut Session,
    ) -> Poll<Result<(), Ended>> {
        self.gone = true;
        self.poll(cx, from, to, session, false)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    pub(super) fn holds(&self) -> bool {
        self.batch.is_some() || self.control.is_some() || !self.early.is_empty()
    }

    pub(super) fn account(&mut self) -> &mut Account<'a> {
        &mut self.account
    }

    /// Sends the alert, if that can be done at once and between two records.
    pub(super) fn send_alert(
        &mut self,
        cx: &mut Context<'_>,
        to: &impl Duplex,
        session: &mut Session,
        why: AlertDescription,
    ) {
        if session.in_kernel(Direction::Receive) {
            kernel_tls::clear_error(to);
        }
        if self.state != State::Moving || self.poll_send(cx, to, true).is_pending() {
            return;
        }
        if session.in_kernel(Direction::Send) {
            if kernel::renew(session, Direction::Send, to).is_ok()
                && let Ok(control) = session.kernel_alert(why)
            {
                let _ = kernel::send_record(to, &control);
            }
            return;
        }
        let mut record = [0; CONTROL];
        if let Ok(n) = session.alert(&mut record, why) {
            let _ = net::try_write(to, &[IoSlice::new(&self.flight), IoSlice::new(&record[..n])]);
        }
    }

    /// Ready when the socket has taken the whole batch, and the record that is sent on its own.
    fn poll_send(&mut self, cx: &mut Context<'_>, to: &impl Duplex, alone: bool) -> Poll<Result<(), Ended>> {
        while let Some(batch) = &self.batch {
            let slices = [IoSlice::new(&self.flight), IoSlice::new(&batch.buffer[batch.start..batch.end])];
            let slices = if self.flight.is_empty() { &slices[1..] } else { &slices[..] };
            let written = match self.state {
                State::Finishing => net::try_write_last(to, slices),
                State::Moving | State::Ended => net::try_write(to, slices),
            };
            match written {
                Ok(n) => {
                    self.sent(n);
                    if self.flight.is_empty() && mem::take(&mut self.tickets_due) {
                        net::acknowledge_at_once(to);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(to.poll_write_ready(cx)).map_err(|error| Ended::from_upstream(&error))?;
                }
                Err(_) if alone && self.state == State::Finishing => self.batch = None,
                Err(error) => return Poll::Ready(Err(Ended::from_upstream(&error))),
            }
        }
        if let Some(control) = &self.control {
            let said = ready!(kernel::poll_send_record(cx, to, control));
            self.control = None;
            match said {
                Err(_) if alone && self.state == State::Finishing => {}
                said => said.map_err(|error| Ended::from_upstream(&error))?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn sent(&mut self, n: usize) {
        let flown = n.min(self.flight.len());
        if flown > 0 {
            self.flight.drain(..flown);
        }
        let Some(batch) = &mut self.batch else { return };
        batch.start += n - flown;
        self.cut += u32::from(batch.start < batch.end);
        let counted = batch.plain_before_start();
        let news = (counted - batch.counted) as u64;
        batch.counted = counted;
        self.account.took(news);
        if batch.start == batch.end && self.flight.is_empty() {
            self.batch = None;
            // An empty vector still holds its memory.
            self.flight = Vec::new();
        }
    }

    /// Ready when the last flight of the handshake is gone: the client has nothing to say yet, but the server
    /// waits for it; or what follows is no longer ours to write.
    fn poll_flight(&mut self, cx: &mut Context<'_>, to: &impl Duplex, alone: bool) -> Poll<Result<(), Ended>> {
        if !self.flight.is_empty() {
            self.batch = Some(Batch::empty());
            ready!(self.poll_send(cx, to, alone))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Makes the next batch. Pending: there is nothing to send.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Duplex,
        session: &mut Session,
    ) -> Poll<Result<(), Ended>> {
        loop {
            let in_kernel = session.in_kernel(Direction::Send);
            if in_kernel {
                let cut = mem::take(&mut self.cut).into();
                self.control = session.kernel_control(Size::Large.records() as u64, cut).map_err(exhausted)?;
                if self.control.is_some() {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.early.is_empty() && from.poll_read_ready(cx).map_err(|e| Ended::from_downstream(&e))?.is_pending() {
                if !session.owes_reply() {
                    return Poll::Pending;
                }
                self.batch = Some(Batch::new(Size::Small, session).map_err(exhausted)?);
                return Poll::Ready(Ok(()));
            }
            let mut batch = Batch::new(self.size, session).map_err(exhausted)?;
            let read = if self.early.is_empty() {
                batch.read(from, session.layout())
            } else {
                Ok(batch.copy(&mut self.early, session.layout()))
            };
            // The control records of a batch count as sealed: it is sent whatever became of the read.
            match read {
                Ok(0) if self.gone => return Poll::Ready(Err(Ended::DownstreamReset)),
                Ok(0) if in_kernel => {
                    let close = session.kernel_alert(AlertDescription::CloseNotify).map_err(exhausted)?;
                    self.control = Some(close);
                    self.state = State::Finishing;
                    return Poll::Ready(Ok(()));
                }
                Ok(0) => {
                    batch.close(session).map_err(exhausted)?;
                    self.state = State::Finishing;
                }
                Ok(n) => {
                    batch.seal(session, n).map_err(exhausted)?;
                    self.size = self.size.after(n, batch.buffer.size().records() * MAX_PLAINTEXT);
                    self.account.gave();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && batch.end == 0 => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(Ended::from_downstream(&error))),
            }
            self.batch = Some(batch);
            return Poll::Ready(Ok(()));
        }
    }
}

impl Batch {
    fn new(size: Size, session: &mut Session) -> Result<Self, Exhausted> {
        let mut buffer = Buffer::take(size);
        let control = buffer.first_chunk_mut().expect("every size has room for it");
        let head = session.control(control, size.records() as u64)?;
        Ok(Self { buffer, head, slot: slot(session.layout()), start: 0, end: head, plain: 0, counted: 0 })
    }

    /// Carries nothing: for a flight that goes alone.
    fn empty() -> Self {
        Self { buffer: Buffer::take(Size::Small), head: 0, slot: 1, start: 0, end: 0, plain: 0, counted: 0 }
    }

    fn places(&mut self, layout: Layout) -> impl Iterator<Item = &mut [u8]> {
        let records = self.buffer.size().records();
        let slots = self.buffer[self.head..].chunks_exact_mut(slot(layout));
        slots.take(records).map(move |slot| &mut slot[layout.front()..][..MAX_PLAINTEXT])
    }

    fn read(&mut self, from: &impl Duplex, layout: Layout) -> io::Result<usize> {
        if self.buffer.size() == Size::Small {
            let start = self.head + layout.front();
            return net::try_read(from, &mut self.buffer[start..start + MAX_PLAINTEXT]);
        }
        let mut places: [IoSliceMut<'_>; Size::Large.records()] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut used = 0;
        for (place, slice) in self.places(layout).zip(&mut places) {
            *slice = IoSliceMut::new(place);
            used += 1;
        }
        net::try_read_vectored(from, &mut places[..used])
    }

    fn copy(&mut self, early: &mut Bytes, layout: Layout) -> usize {
        let mut copied = 0;
        for place in self.places(layout) {
            let n = early.len().min(place.len());
            early.copy_to_slice(&mut place[..n]);
            copied += n;
        }
        if early.is_empty() {
            // An empty remainder would still hold the memory of the whole.
            *early = Bytes::new();
        }
        copied
    }

    /// Makes records of `n` bytes that stand in their places.
    fn seal(&mut self, session: &mut Session, n: usize) -> Result<(), Exhausted> {
        self.plain = n;
        let slots = self.buffer[self.head..].chunks_mut(slot(session.layout()));
        for (index, slot) in slots.enumerate().take(n.div_ceil(MAX_PLAINTEXT)) {
            self.end += session.seal(slot, (n - index * MAX_PLAINTEXT).min(MAX_PLAINTEXT))?;
        }
        Ok(())
    }

    fn close(&mut self, session: &mut Session) -> Result<(), Exhausted> {
        let mut record = [0; CONTROL];
        let n = session.alert(&mut record, AlertDescription::CloseNotify)?;
        self.buffer[self.end..self.end + n].copy_from_slice(&record[..n]);
        self.end += n;
        Ok(())
    }

    /// Plaintext of the records that are all before `start`; all but the last are full.
    fn plain_before_start(&self) -> usize {
        if self.start == self.end {
            return self.plain;
        }
        self.start.saturating_sub(self.head) / self.slot * MAX_PLAINTEXT
    }
}

const fn slot(layout: Layout) -> usize {
    layout.front() + MAX_PLAINTEXT + layout.back()
}

/// TLS 1.2 has no way to go on with another key.
fn exhausted(_: Exhausted) -> Ended {
    Ended::KeyUsageLimit
}

/// The stream may still be replaced before it ends.
fn warn(to: &impl Duplex) {
    let endpoint = SockRef::from(to).peer_addr().ok().and_then(|address| address.as_socket());
    tracing::warn!(
        endpoint = endpoint.map(tracing::field::display),
        reason = Ended::KeyUsageLimit.reason(),
        "a stream has used 15/16 of what one key may encrypt, and TLS 1.2 cannot change it: the stream ends after the rest",
    );
}
