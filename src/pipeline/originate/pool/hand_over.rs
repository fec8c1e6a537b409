//! Hands a warm connection to its client. If it dies before the first byte of the client is written to it, the client
//! does not notice.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::time::{Instant, sleep_until};

use super::warm::{Discard, Warm};
use crate::net;
use crate::pipeline::originate::negotiated::Negotiated;
use crate::tls::handshake::Established;
use crate::tls::pool::{Buffer, Size};
use crate::tls::record::MAX_PLAINTEXT;
use crate::tls::session::CONTROL;

pub(crate) struct Client<'a> {
    /// Nothing is read from it but the bytes in `early`.
    pub(crate) stream: &'a net::Stream,
    /// Bytes of the client that were read already and not yet sent to anyone.
    pub(crate) early: &'a mut Bytes,
}

/// Gives the connection to the client: when the client has spoken and the connection has taken the first of it, or
/// when the server has spoken, or at `until`.
/// Errors: The connection has ended before. No byte of the client was written to it: what was read is in `early`, for the
/// next connection.
///
/// Cancel safe: dropping the future closes the connection.
pub(crate) async fn hand_over(
    mut warm: Warm,
    client: &mut Client<'_>,
    until: Instant,
) -> Result<(Established, Negotiated), Discard> {
    warm.check_open()?;
    if client.early.is_empty() && !warm.speaks_first() {
        tokio::select! {
            biased;
            () = client.read_first_bytes() => {}
            ended = warm.listen() => ended?,
            () = sleep_until(until) => {}
        }
        // The connection may have ended while the client was waited for.
        warm.check_open()?;
    }
    if client.early.is_empty() {
        Ok(warm.into_established(Vec::new(), 0))
    } else {
        write_first_record(warm, client.early)
    }
}

impl Client<'_> {
    /// Reads the first bytes of the client. Returns without any if the client has ended: the relay has to see that
    /// itself, and the kernel reports a reset only once. Cancel safe.
    async fn read_first_bytes(&mut self) {
        loop {
            match self.stream.readable().await {
                Ok(ready) if !ready.is_read_closed() => {}
                Ok(_) | Err(_) => return,
            }
            let mut buffer = Buffer::take(Size::Small);
            match net::try_read(self.stream, &mut buffer[..MAX_PLAINTEXT]) {
                Ok(n) => return *self.early = Bytes::copy_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// Writes one record of the client's first bytes. If the socket takes any part of it, the connection belongs to the
/// client.
fn write_first_record(mut warm: Warm, early: &mut Bytes) -> Result<(Established, Negotiated), Discard> {
    let (tcp, session) = warm.parts();
    let mut buffer = Buffer::take(Size::Small);
    let control: &mut [u8; CONTROL] = buffer.first_chunk_mut().expect("every size has room for it");
    // A key that is used up before its first byte does not exist: errors here cannot come.
    let head = session.control(control, 1).map_err(|_| Discard::Broken)?;
    let length = early.len().min(MAX_PLAINTEXT);
    let front = head + session.layout().front();
    buffer[front..front + length].copy_from_slice(&early[..length]);
    let end = head + session.seal(&mut buffer[head..], length).map_err(|_| Discard::Broken)?;
    let written = match net::try_write(tcp, &[IoSlice::new(&buffer[..end])]) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(_) => return Err(Discard::Reset),
    };
    early.advance(length);
    if early.is_empty() {
        // An empty remainder would still hold the memory of the whole.
        *early = Bytes::new();
    }
    Ok(warm.into_established(buffer[written..end].to_vec(), length as u64))
}
