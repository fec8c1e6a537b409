//! Drives rustls over a socket until the secrets can be taken.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustls::AlertDescription;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::handed;
use super::kernel::Offers;
use super::pool::{Buffer, Size};
use super::record::{HEADER, MAX_WIRE};
use super::session::{CONTROL, Session};
use crate::secret::on_wiped_stack;

/// A connection whose handshake is over.
pub struct Established {
    /// The socket.
    pub tcp: TcpStream,
    pub(crate) session: Session,
    /// What was received beyond the handshake: tickets, the greeting of a server that speaks first.
    pub(crate) received: Option<Received>,
    /// The client's last flight. Nothing else may be sent before it; the first write sends both at once, which saves a
    /// system call and a packet.
    pub unsent: Vec<u8>,
    /// What the server said in plaintext before TLS, if its client has to read it first.
    pub greeting: Bytes,
    /// The client's last flight was sent just now: the server's tickets may be under way.
    pub(crate) tickets_due: bool,
    /// Bytes of the client that were sent already, or are sealed at the end of `unsent`.
    pub(crate) client_sent: u64,
}

/// Received bytes that were not passed on.
pub(crate) struct Received {
    pub(crate) buffer: Buffer,
    /// Opened data, which comes first.
    pub(crate) opened: Range<usize>,
    /// Where the first sealed record begins.
    pub(crate) start: usize,
    /// Where the last received byte stands.
    pub(crate) end: usize,
}

/// Why there was no handshake, and how far it came.
#[derive(Debug)]
pub struct Failed {
    pub(crate) error: Error,
    /// The server had begun to answer.
    pub(crate) answered: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// rustls ended it. What alert there was to send has been sent.
    #[error(transparent)]
    Tls(rustls::Error),
    #[error(transparent)]
    Io(io::Error),
    #[error("the server closed the connection during the handshake")]
    Closed,
    /// The first bytes, which these are, begin no record of TLS.
    #[error("the server does not answer in TLS")]
    NotTls(Vec<u8>),
    /// Our own ClientHello has this many bytes: nothing was sent.
    #[error("the ClientHello would have {0} bytes, more than a record")]
    LongHello(usize),
    /// A message longer than the largest buffer, or bytes where none may be.
    #[error("the handshake does not follow the protocol")]
    Protocol,
}

/// The longest ClientHello that is sent: one record. Many servers read no longer one, and a ticket of 64 KiB makes lengths
/// that its encoding cannot hold.
const MAX_HELLO: usize = HEADER + 16_384;

/// How far a handshake has come: can be read while it is under way.
#[derive(Debug, Default)]
pub struct Progress {
    answered: AtomicBool,
    /// What was sent before the server answered; `None`: it is not kept.
    hello: Option<Mutex<Vec<u8>>>,
}

impl Progress {
    /// For a handshake whose ClientHello is shown to a person.
    pub(crate) fn keeping_hello() -> Self {
        Self { hello: Some(Mutex::default()), ..Self::default() }
    }

    /// The server has begun to answer.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// The records of the ClientHello; empty if they are not kept.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let hello = self.hello.as_ref();
        hello.map(|hello| hello.lock().expect("no writer panics").clone()).unwrap_or_default()
    }

    fn sending(&self, bytes: &[u8]) {
        if let Some(hello) = self.hello.as_ref().filter(|_| !self.is_answered()) {
            hello.lock().expect("no writer panics").extend_from_slice(bytes);
        }
    }
}

/// The rest of a handshake that `establish` needs.
pub struct Rest {
    received: Option<Received>,
    unsent: Vec<u8>,
    tickets_due: bool,
}

/// Does the handshake. Facts about the peer can be read from `connection` afterwards; then `establish`.
///
/// rustls is shown one record at a time, so what follows the handshake stays sealed: its records are
/// ours to open, with sequence numbers that rustls has not moved.
///
/// # Cancel safety
///
/// Not cancel safe: a handshake that was given up cannot go on. The caller bounds its time.
pub async fn handshake(
    tcp: &mut TcpStream,
    connection: &mut UnbufferedClientConnection,
    progress: &Progress,
) -> Result<Rest, Failed> {
    let mut incoming = Incoming::default();
    let mut outgoing = Vec::new();
    let done = drive(tcp, connection, &mut incoming, &mut outgoing, progress).await;
    match done {
        Ok(()) => Ok(Rest { received: incoming.rest(), unsent: outgoing, tickets_due: false }),
        Err(error) => {
            send_alert(tcp, connection, &mut incoming, outgoing).await;
            Err(Failed { error, answered: incoming.received > 0 })
        }
    }
}

async fn drive(
    tcp: &mut TcpStream,
    connection: &mut UnbufferedClientConnection,
    incoming: &mut Incoming,
    outgoing: &mut Vec<u8>,
    progress: &Progress,
) -> Result<(), Error> {
    loop {
        let (discard, step) = handed::with(incoming.received, || step(connection, incoming.shown(), outgoing));
        incoming.discard(discard);
        match step? {
            Step::Again => {}
            Step::Receive if incoming.show_one_more() => {}
            Step::Receive => {
                // Not before we have to wait: what rustls says between two records that were received
                // together goes out with what it says after the second.
                if incoming.received == 0 && outgoing.len() > MAX_HELLO {
                    let bytes = std::mem::take(outgoing).len();
                    return Err(Error::LongHello(bytes));
                }
                progress.sending(outgoing);
                // Part of a flight: a server with Nagle's algorithm holds the rest back until this is acknowledged.
                if incoming.received > 0 && outgoing.is_empty() {
                    crate::net::acknowledge_at_once(tcp);
                }
                tcp.write_all(outgoing).await.map_err(Error::Io)?;
                outgoing.clear();
                let received = incoming.receive(tcp).await;
                progress.answered.store(incoming.received > 0, Ordering::Relaxed);
                received?;
            }
            Step::Finished if incoming.is_amid() => return Err(Error::Protocol),
            Step::Finished => return Ok(()),
        }
    }
}

impl Rest {
    /// Sends as much of the client's last flight as the socket takes now. An error is left to the stream, whose first write
    /// fails of it.
    pub(crate) fn send_now(&mut self, tcp: &TcpStream) {
        let sent = crate::net::try_write(tcp, &[IoSlice::new(&self.unsent)]).unwrap_or(0);
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            // An empty vector still holds its memory.
            self.unsent = Vec::new();
            self.tickets_due = true;
            crate::net::acknowledge_at_once(tcp);
        }
    }

    /// Sends the client's last flight now and by itself: for a stream that waits on a shelf, or a server that
    /// is to be heard before anything is said.
    ///
    /// # Errors
    /// Those of writing.
    pub async fn flush(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        tcp.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }
}

/// Takes the secrets of a finished handshake.
///
/// # Errors
/// The configuration does not allow it (`enable_secret_extraction`), or the suite is unknown.
pub fn establish(
    tcp: TcpStream,
    connection: UnbufferedClientConnection,
    rest: Rest,
) -> Result<Established, rustls::Error> {
    establish_for(None, tcp, connection, rest)
}

/// As `establish`, for a stream of which the kernel may make records.
pub(crate) fn establish_for(
    offers: Option<&Offers>,
    tcp: TcpStream,
    connection: UnbufferedClientConnection,
    rest: Rest,
) -> Result<Established, rustls::Error> {
    let session = on_wiped_stack(|| {
        let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
        Session::new(secrets, kernel, offers)
    })?;
    Ok(Established {
        tcp,
        session,
        received: rest.received,
        unsent: rest.unsent,
        tickets_due: rest.tickets_due,
        greeting: Bytes::new(),
        client_sent: 0,
    })
}

impl Established {
    /// Closes with an alert, without a byte of data. Best effort: the peer may be gone.
    pub(crate) async fn leave(mut self, why: AlertDescription) {
        let mut record = [0; CONTROL];
        if let Ok(n) = self.session.alert(&mut record, why) {
            self.unsent.extend_from_slice(&record[..n]);
        }
        let _ = self.tcp.write_all(&self.unsent).await;
    }
}

enum Step {
    Again,
    Receive,
    Finished,
}

fn step(
    connection: &mut UnbufferedClientConnection,
    incoming: &mut [u8],
    outgoing: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { discard, state } = connection.process_tls_records(incoming);
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, outgoing).map(|()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Receive),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Finished),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Err(Error::Closed),
        Ok(_) => Err(Error::Protocol),
        Err(error) => Err(Error::Tls(error)),
    };
    (discard, step)
}

/// Appends the bytes that rustls has to send; it reports the length it needs if there is too little room.
fn encode<D>(data: &mut EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) -> Result<(), Error> {
    let start = outgoing.len();
    loop {
        match data.encode(&mut outgoing[start..]) {
            Ok(written) => {
                outgoing.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(short)) => outgoing.resize(start + short.required_size, 0),
            Err(EncodeError::AlreadyEncoded) => return Err(Error::Protocol),
        }
    }
}

/// Best effort: the handshake has failed whatever becomes of it.
async fn send_alert(
    tcp: &mut TcpStream,
    connection: &mut UnbufferedClientConnection,
    incoming: &mut Incoming,
    mut outgoing: Vec<u8>,
) {
    // Only while there is something to take: rustls still points into the bytes that it was shown last, and
    // would look at what is wrong with them once more.
    while connection.wants_write() {
        let (discard, step) = step(connection, incoming.shown(), &mut outgoing);
        incoming.discard(discard);
        if step.is_err() {
            break;
        }
    }
    if !outgoing.is_empty() {
        let _ = tcp.write_all(&outgoing).await;
    }
}

/// Bytes of the handshake, received in large pieces and shown to rustls record by record.
#[derive(Default)]
struct Incoming {
    buffer: Option<Buffer>,
    start: usize,
    /// What rustls sees ends here.
    shown: usize,
    end: usize,
    /// Bytes received so far.
    received: usize,
}

/// Enough to recognise the greeting of any protocol.
const FIRST_BYTES: usize = 64;

impl Incoming {
    fn shown(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer[self.start..self.shown])
    }

    fn discard(&mut self, n: usize) {
        self.start += n;
    }

    /// Whether rustls holds on to part of a message.
    fn is_amid(&self) -> bool {
        self.start < self.shown
    }

    /// False: it is not all there yet.
    fn show_one_more(&mut self) -> bool {
        let hidden = self.buffer.as_ref().map_or(&[][..], |buffer| &buffer[self.shown..self.end]);
        let &[_, _, _, high, low, ..] = hidden else { return false };
        // A length that cannot be is shown for rustls to refuse it; this only finds the end.
        let wire = (HEADER + usize::from(u16::from_be_bytes([high, low]))).min(MAX_WIRE);
        if hidden.len() < wire {
            return false;
        }
        self.shown += wire;
        true
    }

    async fn receive(&mut self, tcp: &TcpStream) -> Result<(), Error> {
        // No memory is taken before there is something to read.
        tcp.readable().await.map_err(Error::Io)?;
        self.make_room()?;
        let Some(buffer) = self.buffer.as_mut() else { return Err(Error::Protocol) };
        match crate::net::try_read(tcp, &mut buffer[self.end..]) {
            Ok(0) => Err(Error::Closed),
            Ok(n) => {
                self.received += n;
                self.end += n;
                self.check_first()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(Error::Io(error)),
        }
    }

    /// A server that does not speak TLS is recognized by its first bytes: taken for a length, they would make us wait
    /// for a record that never comes.
    fn check_first(&self) -> Result<(), Error> {
        let Some(buffer) = self.buffer.as_ref().filter(|_| self.shown == 0) else { return Ok(()) };
        match &buffer[..self.end] {
            [] | [20..=24] | [20..=24, 3, ..] => Ok(()),
            bytes => Err(Error::NotTls(bytes[..bytes.len().min(FIRST_BYTES)].to_vec())),
        }
    }

    /// Moves to the front, or to the next size, when the end is reached.
    fn make_room(&mut self) -> Result<(), Error> {
        let held = self.end - self.start;
        let Some(buffer) = self.buffer.as_mut() else {
            self.buffer = Some(Buffer::take(Size::Small));
            return Ok(());
        };
        if buffer.len() - self.end >= MAX_WIRE / 2 {
            return Ok(());
        }
        if self.start >= MAX_WIRE / 2 {
            buffer.copy_within(self.start..self.end, 0);
        } else {
            let size = match buffer.size() {
                Size::Small => Size::Medium,
                Size::Medium => Size::Large,
                Size::Large => return if self.end < buffer.len() { Ok(()) } else { Err(Error::Protocol) },
            };
            let mut larger = Buffer::exactly(size);
            larger[..held].copy_from_slice(&buffer[self.start..self.end]);
            *buffer = larger;
        }
        self.shown -= self.start;
        self.start = 0;
        self.end = held;
        Ok(())
    }

    fn rest(self) -> Option<Received> {
        let start = self.start;
        let end = self.end;
        self.buffer.filter(|_| start < end).map(|buffer| Received { buffer, opened: 0..0, start, end })
    }
}

#[cfg(test)]
mod tests;
