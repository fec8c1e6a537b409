//! TLS with a server before a stream begins: little is said, and no buffer is held.

use std::io::{self, IoSlice};

use bytes::Bytes;
use rustls::AlertDescription;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::net;
use crate::tls::handshake::{Established, Received};
use crate::tls::pool::{Buffer, Size};
use crate::tls::record::MAX_PLAINTEXT;
use crate::tls::session::{self, CONTROL, Opened, Session};

/// An established connection that is read and written record by record.
pub(super) struct Channel {
    pub(super) tcp: TcpStream,
    session: Session,
    /// What the server has said and was not taken.
    pub(super) plain: Vec<u8>,
    /// What was received and not opened: part of a record whose rest has not come, in a login also whole ones.
    sealed: Vec<u8>,
    /// Records for the server, which go before all others.
    unsent: Vec<u8>,
    /// The server has sent a record since its handshake was over.
    pub(super) heard: bool,
    /// Bytes of data that were sent.
    client_sent: u64,
}

/// Why a channel is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Closed,
    /// It was reset, or the path to the server broke.
    Reset,
    Alert(AlertDescription),
    /// The server, or someone on the way, broke the protocol.
    Broken,
    /// The server has sent more than is kept.
    Overflow,
}

/// Which of the received records are opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Records {
    All,
    FirstData,
}

/// Bytes that are kept of a server: one full record. Greetings of SMTP, FTP, SSH and MySQL have some hundred bytes.
const MOST: usize = 16_384;

/// Reads in a row before others are polled.
const ROUNDS: usize = 4;

impl Channel {
    /// Opens what has come with the end of the handshake. Also returns what the server said before TLS.
    pub(super) fn new(established: Established) -> Result<(Self, Bytes), Ended> {
        let Established { tcp, session, received, unsent, tickets_due: _, greeting, client_sent } = established;
        let plain = Vec::new();
        let sealed = Vec::new();
        let mut channel = Self { tcp, session, plain, sealed, unsent, heard: false, client_sent };
        if let Some(Received { buffer, opened, start, end }) = received {
            channel.plain.extend_from_slice(&buffer[opened]);
            channel.sealed = buffer[start..end].to_vec();
            channel.open(Records::All)?;
        }
        Ok((channel, greeting))
    }

    /// As a new stream.
    pub(super) fn into_established(self, greeting: Bytes) -> Established {
        let received = (self.plain.len() + self.sealed.len() > 0).then(|| received(&self.plain, &self.sealed));
        let Self { tcp, session, unsent, client_sent, .. } = self;
        Established { tcp, session, received, unsent, tickets_due: false, greeting, client_sent }
    }

    /// Sends what the handshake has left. Not cancel safe.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        self.tcp.write_all(&self.unsent).await.map_err(|_| Ended::Reset)?;
        // An empty vector still holds its memory.
        self.unsent = Vec::new();
        Ok(())
    }

    /// Waits for something, and reads it. Cancel safe.
    pub(super) async fn read_more(&mut self) -> Result<(), Ended> {
        self.tcp.readable().await.map_err(|_| Ended::Reset)?;
        self.read_all()
    }

    /// Waits until there is data, and opens no record behind the first that has some: an end that follows it is for the
    /// stream. Cancel safe.
    pub(super) async fn read_data(&mut self) -> Result<(), Ended> {
        self.open(Records::FirstData)?;
        while self.plain.is_empty() {
            self.tcp.readable().await.map_err(|_| Ended::Reset)?;
            self.read(net::try_read, Records::FirstData)?;
        }
        Ok(())
    }

    /// Reads what has come.
    pub(super) fn read_all(&mut self) -> Result<(), Ended> {
        self.read_rounds(net::try_read)
    }

    /// As `read_all`, from the kernel, since the runtime may not know yet that there is something.
    pub(super) fn read_now(&mut self) -> Result<(), Ended> {
        self.read_rounds(net::read_now)
    }

    fn read_rounds(&mut self, read: fn(&TcpStream, &mut [u8]) -> io::Result<usize>) -> Result<(), Ended> {
        for _ in 0..ROUNDS {
            if !self.read(read, Records::All)? {
                break;
            }
        }
        Ok(())
    }

    /// One read. False: there is nothing now.
    fn read(&mut self, read: fn(&TcpStream, &mut [u8]) -> io::Result<usize>, records: Records) -> Result<bool, Ended> {
        let mut buffer = Buffer::take(Size::Small);
        match read(&self.tcp, &mut buffer) {
            Ok(0) => Err(Ended::Closed),
            Ok(n) => {
                self.sealed.extend_from_slice(&buffer[..n]);
                self.open(records)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => Err(Ended::Reset),
        }
    }

    fn open(&mut self, records: Records) -> Result<(), Ended> {
        let mut sealed = std::mem::take(&mut self.sealed);
        let mut opened = 0;
        while records == Records::All || self.plain.is_empty() {
            let left = &mut sealed[opened..];
            opened += match self.session.open(left).map_err(Ended::from)? {
                Opened::Partial(_) => break,
                Opened::Closed => return Err(Ended::Closed),
                Opened::Quiet { wire } => wire,
                Opened::Data { wire, plain } => {
                    self.plain.extend_from_slice(&left[plain]);
                    wire
                }
            };
            self.heard = true;
            if self.plain.len() > MOST {
                return Err(Ended::Overflow);
            }
        }
        self.sealed = sealed.split_off(opened);
        Ok(())
    }

    /// Writes all of `bytes`. Not cancel safe.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        for part in bytes.chunks(MAX_PLAINTEXT) {
            let mut buffer = Buffer::take(Size::Small);
            let end = self.seal(part, &mut buffer)?;
            self.unsent.extend_from_slice(&buffer[..end]);
            drop(buffer);
            self.flush().await?;
            // The server answers, and may hold its answer back until its tickets are acknowledged.
            net::acknowledge_at_once(&self.tcp);
        }
        Ok(())
    }

    /// Writes one record of the first of `bytes`, as far as the socket takes it; the rest of it is sent with the next.
    /// Returns the length of the data in it. An error means that no byte of it was written.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> Result<usize, Ended> {
        let part = &bytes[..bytes.len().min(MAX_PLAINTEXT)];
        let mut buffer = Buffer::take(Size::Small);
        let end = self.seal(part, &mut buffer)?;
        let written = match net::try_write(&self.tcp, &[IoSlice::new(&buffer[..end])]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(Ended::Reset),
        };
        self.unsent.extend_from_slice(&buffer[written..end]);
        Ok(part.len())
    }

    /// One record of `data`, with what has to go before it. Returns its end in `buffer`.
    fn seal(&mut self, data: &[u8], buffer: &mut [u8]) -> Result<usize, Ended> {
        let control: &mut [u8; CONTROL] = buffer.first_chunk_mut().expect("every size has room for it");
        // A key that is used up before its first byte does not exist: errors here cannot come.
        let head = self.session.control(control, 1).map_err(|_| Ended::Broken)?;
        let front = head + self.session.layout().front();
        buffer[front..front + data.len()].copy_from_slice(data);
        let end = head + self.session.seal(&mut buffer[head..], data.len()).map_err(|_| Ended::Broken)?;
        self.client_sent += data.len() as u64;
        Ok(end)
    }

    /// Closes with close_notify. Best effort: nothing is waited for.
    pub(super) fn leave(mut self) {
        let mut record = [0; CONTROL];
        if let Ok(n) = self.session.alert(&mut record, AlertDescription::CloseNotify) {
            let _ = net::try_write(&self.tcp, &[IoSlice::new(&record[..n])]);
        }
    }
}

impl From<session::Error> for Ended {
    fn from(error: session::Error) -> Self {
        match error {
            session::Error::Alert(alert) => Self::Alert(alert),
            session::Error::Fault(_) | session::Error::Rejected { .. } => Self::Broken,
        }
    }
}

/// The received bytes in the form that a stream gets.
fn received(plain: &[u8], sealed: &[u8]) -> Received {
    let opened = 0..plain.len();
    let end = plain.len() + sealed.len();
    let mut buffer = Buffer::exactly(Size::Small);
    if end > buffer.len() {
        buffer = Buffer::exactly(Size::Medium);
    }
    buffer[opened.clone()].copy_from_slice(plain);
    buffer[opened.end..end].copy_from_slice(sealed);
    Received { buffer, start: opened.end, opened, end }
}
