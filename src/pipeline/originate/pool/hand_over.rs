//! Hands a warm connection to its client. If it dies before the first byte of the client is written to it, the client
//! does not notice.

use std::io;

use bytes::{Buf, Bytes};
use tokio::time::{Instant, sleep_until};

use super::warm::{Discard, Warm};
use crate::net;
use crate::pipeline::originate::negotiated::Negotiated;
use crate::protocols::login::Login;
use crate::tls::handshake::Established;
use crate::tls::pool::{Buffer, Size};
use crate::tls::record::MAX_PLAINTEXT;

pub(crate) struct Client<'a> {
    /// Nothing is read from it but the bytes in `early`.
    pub(crate) stream: &'a net::Stream,
    /// Bytes of the client that were read already and not yet sent to anyone.
    pub(crate) early: &'a mut Bytes,
    /// Its login, if that goes on inside TLS: over all connections that are tried for it.
    pub(crate) login: Option<Box<dyn Login>>,
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
    if client.early.is_empty() { Ok(warm.into_established()) } else { write_first_record(warm, client.early) }
}

impl<'a> Client<'a> {
    pub(crate) fn new(stream: &'a net::Stream, early: &'a mut Bytes) -> Self {
        Self { stream, early, login: None }
    }

    /// The number of the next packet to the client, if its protocol has numbers and it has read one.
    pub(crate) fn next_packet(&self) -> Option<u8> {
        self.login.as_ref()?.next_packet()
    }

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
    let length = warm.try_write(early)?;
    early.advance(length);
    if early.is_empty() {
        // An empty remainder would still hold the memory of the whole.
        *early = Bytes::new();
    }
    Ok(warm.into_established())
}
