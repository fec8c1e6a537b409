use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use rustls::{AlertDescription, ContentType};

use super::ROUNDS;
use super::account::Account;
use super::kernel;
use super::outcome::Ended;
use crate::config::values::Eof;
use crate::net::kernel_tls::{self, Direction, Received as Taken};
use crate::net::{self, Duplex};
use crate::protocols::cancel::FirstBytes;
use crate::tls::handshake::Received;
use crate::tls::pool::{Buffer, Size};
use crate::tls::session::{Opened, Processed, Session};

/// Server to client: many records are received at once, opened where they stand, and their plaintext is
/// written from there.
pub(super) struct Download<'a> {
    state: State,
    size: Size,
    inbox: Option<Inbox>,
    /// Length of the last long record; a read of whole records leaves no partial one to be moved.
    long: usize,
    needed: usize,
    eof: Eof,
    /// What ends the stream once everything before it is delivered.
    failed: Option<Ended>,
    /// The alert that the server is still owed.
    owed: Option<AlertDescription>,
    account: Account<'a>,
    first: Option<FirstBytes<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Moving,
    Finishing,
    Ended,
}

/// Received bytes: opened plaintext, then records that are still sealed.
struct Inbox {
    buffer: Buffer,
    plain: Plain,
    sealed: usize,
    end: usize,
}

#[derive(Default)]
struct Plain {
    pieces: [(u32, u32); PIECES],
    first: usize,
    count: usize,
}

/// Pieces of plaintext that one write takes: a large buffer of full records.
const PIECES: usize = Size::Large.records();
/// Records up to this length are moved together rather than written as pieces of their own.
const SHORT: usize = 2048;

impl<'a> Download<'a> {
    pub(super) fn new(
        received: Option<Received>,
        eof: Eof,
        mut account: Account<'a>,
        mut first: Option<FirstBytes<'a>>,
    ) -> Self {
        let inbox = received.map(|Received { buffer, opened, start, end }| {
            let mut plain = Plain::default();
            if !opened.is_empty() {
                account.first();
                show(&mut first, &buffer[opened.clone()]);
                plain.push(opened.start, opened.len());
            }
            Inbox { buffer, plain, sealed: start, end }
        });
        let state = State::Moving;
        let size = Size::Small;
        Self { state, size, inbox, long: 1, needed: 0, eof, failed: None, owed: None, account, first }
    }

    /// Moves available bytes. Ready when the server's end was passed on, and on every later call. `alone`: the client's
    /// end was passed on before.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Duplex,
        to: &impl Duplex,
        session: &mut Session,
        alone: bool,
    ) -> Poll<Result<(), Ended>> {
        for _ in 0..ROUNDS {
            ready!(self.poll_deliver(cx, to))?;
            if let Some(ended) = self.failed.take() {
                return Poll::Ready(Err(ended));
            }
            match self.state {
                State::Moving => {
                    if !self.open(session) {
                        ready!(self.poll_next(cx, from, session, alone))?;
                    }
                }
                State::Finishing => {
                    self.inbox = None;
                    // The close that follows sends the FIN as well.
                    if !alone {
                        net::finish(to).map_err(|error| Ended::from_downstream(&error))?;
                    }
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Delivers what was read and reads no more. Ready when the socket has taken it.
    pub(super) fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        to: &impl Duplex,
        session: &mut Session,
    ) -> Poll<Result<(), Ended>> {
        loop {
            ready!(self.poll_deliver(cx, to))?;
            if let Some(ended) = self.failed.take() {
                return Poll::Ready(Err(ended));
            }
            if self.state != State::Moving || !self.open(session) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// As `poll`, of a server whose connection is gone: an end without close_notify is then none, whatever the
    /// configuration says.
    pub(super) fn poll_last(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Duplex,
        to: &impl Duplex,
        session: &mut Session,
    ) -> Poll<Result<(), Ended>> {
        self.eof = Eof::Strict;
        self.poll(cx, from, to, session, false)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    pub(super) fn holds(&self) -> bool {
        self.inbox.as_ref().is_some_and(|inbox| inbox.plain.count > 0)
    }

    pub(super) fn account(&mut self) -> &mut Account<'a> {
        &mut self.account
    }

    /// After an error of `poll`: the alert that the server is owed.
    pub(super) fn owed_alert(&self) -> Option<AlertDescription> {
        self.owed
    }

    /// Ready when the socket has taken all plaintext.
    fn poll_deliver(&mut self, cx: &mut Context<'_>, to: &impl Duplex) -> Poll<Result<(), Ended>> {
        let Some(inbox) = &mut self.inbox else { return Poll::Ready(Ok(())) };
        while inbox.plain.count > 0 {
            match inbox.write(to, self.state == State::Finishing) {
                Ok(n) => {
                    inbox.plain.consume(n);
                    self.account.took(n as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(to.poll_write_ready(cx)).map_err(|error| Ended::from_downstream(&error))?;
                }
                Err(error) => return Poll::Ready(Err(Ended::from_downstream(&error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Opens what was received. False: there is nothing to deliver, more has to be received.
    fn open(&mut self, session: &mut Session) -> bool {
        let Some(inbox) = &mut self.inbox else { return false };
        while inbox.plain.count < PIECES {
            match session.open(&mut inbox.buffer[inbox.sealed..inbox.end]) {
                Ok(Opened::Data { wire, plain }) => {
                    if plain.len() > SHORT {
                        self.long = wire;
                    }
                    show(&mut self.first, &inbox.buffer[inbox.sealed..][plain.clone()]);
                    inbox.add(plain, wire);
                }
                Ok(Opened::Quiet { wire }) => inbox.sealed += wire,
                Ok(Opened::Partial(needed)) => {
                    self.needed = needed;
                    break;
                }
                Ok(Opened::Closed) => {
                    self.state = State::Finishing;
                    break;
                }
                Err(error) => {
                    self.owed = error.alert();
                    self.failed = Some(Ended::from_tls(error.into_rustls()));
                    break;
                }
            }
        }
        if inbox.plain.count > 0 {
            self.account.first();
        }
        inbox.plain.count > 0 || self.failed.is_some() || self.state != State::Moving
    }

    /// One read, and what it brought opened.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Duplex,
        session: &mut Session,
        alone: bool,
    ) -> Poll<Result<(), Ended>> {
        self.inbox = self.inbox.take().filter(|inbox| inbox.sealed < inbox.end);
        if self.inbox.is_none() {
            kernel::hand_over(session, Direction::Receive, from);
        }
        if session.in_kernel(Direction::Receive) {
            ready!(self.poll_take(cx, from, session, alone))?;
        } else {
            // The hand-over has to begin with a whole record.
            let most = if session.is_asked(Direction::Receive) { self.needed } else { usize::MAX };
            if ready!(self.poll_receive(cx, from, most))? == 0 {
                let is_amid = session.is_amid() || self.inbox.as_ref().is_some_and(|inbox| inbox.sealed < inbox.end);
                self.end_of_input(is_amid, alone);
            }
            self.open(session);
        }
        Poll::Ready(Ok(()))
    }

    /// One read of bytes that the kernel has opened. Pending leaves no memory behind.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Duplex,
        session: &mut Session,
        alone: bool,
    ) -> Poll<Result<(), Ended>> {
        loop {
            if from.poll_read_ready(cx).map_err(|error| Ended::from_upstream(&error))?.is_pending() {
                self.inbox = None;
                return Poll::Pending;
            }
            let size = self.size;
            let inbox = self.inbox.get_or_insert_with(|| Inbox::new(size));
            match kernel_tls::try_receive(from, &mut inbox.buffer) {
                Ok(Taken { kind: None, len: 0 }) => {
                    // The kernel keeps a partial record without reporting it.
                    let is_amid = session.is_amid() || net::unread(from).is_ok_and(|bytes| bytes > 0);
                    self.end_of_input(is_amid, alone);
                }
                Ok(taken) => {
                    self.size = size.after(taken.len, inbox.buffer.len());
                    self.process_taken(taken, session);
                    if let Err(ended) = kernel::renew(session, Direction::Receive, from) {
                        self.failed.get_or_insert(ended);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => {
                    let (ended, owed) = kernel::refused(&error);
                    self.failed = Some(ended);
                    self.owed = owed;
                }
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// The bytes that the kernel has opened are at the front of the inbox.
    fn process_taken(&mut self, taken: Taken, session: &mut Session) {
        let Taken { kind, len } = taken;
        let Some(inbox) = &mut self.inbox else { return };
        // Without a type, all records were of this one.
        let kind = kind.map_or(ContentType::ApplicationData, ContentType::from);
        self.account.gave();
        match session.process_record(kind, &inbox.buffer[..len]) {
            Ok(Processed::Data) => {
                show(&mut self.first, &inbox.buffer[..len]);
                inbox.plain.push(0, len);
                self.account.first();
            }
            Ok(Processed::Quiet) => {}
            Ok(Processed::Closed) => self.state = State::Finishing,
            Err(error) => {
                self.owed = error.alert();
                self.failed = Some(Ended::from_tls(error.into_rustls()));
            }
        }
    }

    /// The server's FIN came before its close_notify. `is_amid`: amid a record or a message, so that something is
    /// missing. `alone`: it answers the client's end, as nginx does; nobody who waits for more is left.
    fn end_of_input(&mut self, is_amid: bool, alone: bool) {
        match self.eof {
            _ if is_amid => self.failed = Some(Ended::Truncated),
            Eof::Strict if !alone => self.failed = Some(Ended::Truncated),
            Eof::Strict | Eof::Lenient => self.state = State::Finishing,
        }
    }

    /// One read of at most `most` bytes of the record at the front; zero is the server's FIN. Pending leaves no memory
    /// behind but what part of a record needs.
    fn poll_receive(&mut self, cx: &mut Context<'_>, from: &impl Duplex, most: usize) -> Poll<Result<usize, Ended>> {
        loop {
            self.inbox = self.inbox.take().filter(|inbox| inbox.sealed < inbox.end);
            let is_ready = from.poll_read_ready(cx).map_err(|error| Ended::from_upstream(&error))?.is_ready();
            // A server's urgent byte is the last of a record, and a read ends before it: what is behind is announced by
            // no event, and a part of a record waits here.
            let is_cut = || self.inbox.is_some() && net::unread(from).is_ok_and(|bytes| bytes > 0);
            if !(is_ready || is_cut()) {
                if let Some(inbox) = &mut self.inbox {
                    inbox.shrink();
                }
                return Poll::Pending;
            }
            let inbox = match &mut self.inbox {
                None => self.inbox.insert(Inbox::new(self.size)),
                Some(inbox) => {
                    inbox.make_room(self.size);
                    inbox
                }
            };
            let room = inbox.room(self.long).min(most);
            let free = &mut inbox.buffer[inbox.end..room];
            match if is_ready { net::try_read_unchecked(from, free) } else { net::read_now(from, free) } {
                Ok(n) => {
                    if n > 0 {
                        self.size = self.size.after(n, room - inbox.end);
                        inbox.end += n;
                        self.account.gave();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(Ended::from_upstream(&error))),
            }
        }
    }
}

fn show(first: &mut Option<FirstBytes<'_>>, plain: &[u8]) {
    if first.as_mut().is_some_and(|first| !first(plain)) {
        *first = None;
    }
}

impl Inbox {
    fn new(size: Size) -> Self {
        Self { buffer: Buffer::take(size), plain: Plain::default(), sealed: 0, end: 0 }
    }

    /// Moves the part of a record that is left to the front of a buffer of this size.
    fn make_room(&mut self, size: Size) {
        let left = self.sealed..self.end;
        if size > self.buffer.size() {
            let mut larger = Buffer::take(size);
            larger[..left.len()].copy_from_slice(&self.buffer[left.clone()]);
            self.buffer = larger;
        } else if self.sealed > 0 {
            self.buffer.copy_within(left.clone(), 0);
        }
        self.sealed = 0;
        self.end = left.len();
    }

    /// Where the next read ends: after a whole number of records like the last long one.
    fn room(&self, long: usize) -> usize {
        let whole = self.buffer.len() / long * long;
        if self.buffer.size() > Size::Small && whole > self.end { whole } else { self.buffer.len() }
    }

    /// A part of a record that waits for its rest needs no more than the smallest buffer.
    fn shrink(&mut self) {
        if self.buffer.size() > Size::Small {
            let left = self.sealed..self.end;
            let mut smaller = Buffer::take(Size::Small);
            smaller[..left.len()].copy_from_slice(&self.buffer[left.clone()]);
            self.buffer = smaller;
            self.sealed = 0;
            self.end = left.len();
        }
    }

    /// Records that `plain`, relative to the sealed bytes, is opened.
    fn add(&mut self, plain: Range<usize>, wire: usize) {
        let start = self.sealed + plain.start;
        let len = plain.len();
        self.sealed += wire;
        match self.plain.last() {
            Some(last) if len <= SHORT => {
                let end = (last.0 + last.1) as usize;
                last.1 += len as u32;
                self.buffer.copy_within(start..start + len, end);
            }
            _ => self.plain.push(start, len),
        }
    }

    /// `last`: the end follows.
    fn write(&self, to: &impl Duplex, last: bool) -> io::Result<usize> {
        let write = if last { net::try_write_last } else { net::try_write };
        let piece = |&(start, len): &(u32, u32)| IoSlice::new(&self.buffer[start as usize..(start + len) as usize]);
        let pieces = &self.plain.pieces[self.plain.first..self.plain.first + self.plain.count];
        if let [only] = pieces {
            return write(to, &[piece(only)]);
        }
        let mut slices = [IoSlice::new(&[]); PIECES];
        slices.iter_mut().zip(pieces).for_each(|(slice, at)| *slice = piece(at));
        write(to, &slices[..pieces.len()])
    }
}

impl Plain {
    fn last(&mut self) -> Option<&mut (u32, u32)> {
        self.count.checked_sub(1).map(|last| &mut self.pieces[self.first + last])
    }

    fn push(&mut self, start: usize, len: usize) {
        if len > 0 {
            self.pieces[self.first + self.count] = (start as u32, len as u32);
            self.count += 1;
        }
    }

    fn consume(&mut self, mut n: usize) {
        while n > 0 {
            let piece = &mut self.pieces[self.first];
            let taken = n.min(piece.1 as usize);
            *piece = (piece.0 + taken as u32, piece.1 - taken as u32);
            n -= taken;
            if piece.1 == 0 {
                self.first += 1;
                self.count -= 1;
            }
        }
        if self.count == 0 {
            self.first = 0;
        }
    }
}
