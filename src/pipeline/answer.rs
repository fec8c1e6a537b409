//! The last words to a client that cannot be served, in its own protocol; or a reset.
//!
//! An answer that is followed by a reset may be lost, and a close with unread bytes of the client is a reset. So the
//! client's bytes are read and thrown away until it has closed too, within a bound.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::net;
use crate::protocols::answers::{Answer, AnswerFormat};

/// How a client that cannot be served is answered.
pub(crate) struct Parting<'a> {
    pub(crate) format: AnswerFormat,
    pub(crate) answer: Answer<'a>,
    /// A server's own refusal, as it was sent. Empty: egret answers.
    pub(crate) message: Bytes,
}

/// For the whole of it: a client in the same network closes within milliseconds of the answer, and the drain forces
/// streams 5 s before the process ends.
const TOTAL: Duration = Duration::from_secs(1);
/// For the first bytes of a client that speaks first. It has connected, so they are on their way.
const REQUEST: Duration = Duration::from_millis(500);
/// Bytes that are read and thrown away, as for servers after their close_notify (`relay`).
const DISCARDED: usize = 1 << 20;

impl Parting<'_> {
    /// Answers, ends this direction, and waits until the client has closed. `request` are bytes of the client that were
    /// read and went nowhere. Cancel safe: the answer may be missing.
    pub(crate) async fn give(self, client: net::Stream, request: &[u8]) {
        let deadline = Instant::now() + TOTAL;
        let mut piece = [0; 4096];
        let mut read = 0;
        let has_spoken = !request.is_empty() || self.answer.fault.is_about_first_bytes();
        if self.format.after_request && !has_spoken {
            let first = timeout_at(Instant::now() + REQUEST, receive(&client, &mut piece)).await;
            read = first.ok().and_then(Result::ok).unwrap_or(0);
        }
        let request = if request.is_empty() { &piece[..read] } else { request };
        let bytes = self.bytes(request);
        if net::say(&client, &bytes) {
            finish_and_discard(&client, deadline).await;
        }
    }

    /// For a client whose bytes went to the server, which has not answered.
    pub(crate) async fn give_late(self, client: &net::Stream) {
        if net::say(client, &self.bytes(self.answer.request)) {
            finish_and_discard(client, Instant::now() + TOTAL).await;
        }
    }

    fn bytes(&self, request: &[u8]) -> Vec<u8> {
        match self.message.is_empty() {
            true => self.format.bytes(&Answer { request, ..self.answer }),
            false => self.message.to_vec(),
        }
    }
}

async fn finish_and_discard(client: &net::Stream, deadline: Instant) {
    // A connection that is gone needs no FIN.
    let _ = net::finish(client);
    let mut piece = [0; 4096];
    let mut left = DISCARDED;
    while let Ok(Ok(read @ 1..)) = timeout_at(deadline, receive(client, &mut piece)).await {
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}

async fn receive(client: &net::Stream, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        client.readable().await?;
        match net::try_read(client, piece) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}
