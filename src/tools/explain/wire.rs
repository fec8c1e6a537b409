//! An established stream that no client uses: waits for the server's reaction, asks it a question, and leaves.

use std::time::Duration;

use rustls::AlertDescription;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::tls::handshake::{Error, Established, Received};
use crate::tls::record::Exhausted;
use crate::tls::session::{CONTROL, Opened, Session};
use crate::tools::explain::question::{LONGEST_ANSWER, Question};

pub(super) struct Wire {
    tcp: TcpStream,
    session: Session,
    /// Received, and not opened.
    sealed: Vec<u8>,
    /// Opened, and not read.
    plain: Vec<u8>,
    /// The server has sent a record since the handshake was over.
    heard: bool,
    /// The server has sent close_notify.
    closed: bool,
}

impl Wire {
    /// Sends the client's last flight.
    pub(super) async fn start(established: Established) -> Result<Self, Error> {
        let Established { mut tcp, session, received, unsent, .. } = established;
        tcp.write_all(&unsent).await.map_err(Error::Io)?;
        let sealed = received.map(|Received { buffer, start, end, .. }| buffer[start..end].to_vec());
        let sealed = sealed.unwrap_or_default();
        Ok(Self { tcp, session, sealed, plain: Vec::new(), heard: false, closed: false })
    }

    /// Waits until the server accepts: by data, or, with `by_record`, by any record, such as a ticket.
    pub(super) async fn accepted(&mut self, by_record: bool) -> Result<(), Error> {
        self.open().await?;
        while self.plain.is_empty() && !(by_record && self.heard) {
            self.receive().await?;
        }
        Ok(())
    }

    /// Sends, and receives until the answer is whole, ends, or is too long.
    pub(super) async fn exchange(
        &mut self,
        question: &Question,
        bytes: &[u8],
        received: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.send(bytes).await?;
        self.open().await?;
        loop {
            let room = (LONGEST_ANSWER - received.len()).min(self.plain.len());
            received.extend(self.plain.drain(..room));
            if received.len() == LONGEST_ANSWER || question.is_whole(received) {
                return Ok(());
            }
            self.receive().await?;
        }
    }

    /// Best effort, and short: the peer may be gone.
    pub(super) async fn leave(mut self) {
        let farewell = async {
            self.send_alert(AlertDescription::CloseNotify).await;
            let _ = self.tcp.shutdown().await;
        };
        let _ = timeout(FAREWELL, farewell).await;
    }

    async fn receive(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 16 << 10];
        let read = if self.closed { 0 } else { self.tcp.read(&mut buffer).await.map_err(Error::Io)? };
        if read == 0 {
            return Err(Error::Closed);
        }
        self.sealed.extend_from_slice(&buffer[..read]);
        self.open().await
    }

    async fn open(&mut self) -> Result<(), Error> {
        let mut start = 0;
        while !self.closed {
            match self.session.open(&mut self.sealed[start..]) {
                Ok(Opened::Partial(_)) => break,
                Ok(Opened::Closed) => self.closed = true,
                Ok(Opened::Quiet { wire }) => start += wire,
                Ok(Opened::Data { wire, plain }) => {
                    self.plain.extend_from_slice(&self.sealed[start..][plain]);
                    start += wire;
                }
                Err(error) => {
                    // The server gets the alert, so that its log says why too.
                    if let Some(alert) = error.alert() {
                        self.send_alert(alert).await;
                    }
                    return Err(Error::Tls(error.into_rustls()));
                }
            }
        }
        self.heard |= start > 0;
        self.sealed.drain(..start);
        if self.session.owes_reply() { self.send(&[]).await } else { Ok(()) }
    }

    /// Sends what the session owes, then the bytes as one record: a question is far shorter than the longest.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let exhausted = |_: Exhausted| Error::Tls(rustls::Error::EncryptError);
        let mut control = [0; CONTROL];
        let length = self.session.control(&mut control, 1).map_err(exhausted)?;
        let mut records = control[..length].to_vec();
        if !bytes.is_empty() {
            let layout = self.session.layout();
            let mut slot = vec![0; layout.front() + bytes.len() + layout.back()];
            slot[layout.front()..][..bytes.len()].copy_from_slice(bytes);
            self.session.seal(&mut slot, bytes.len()).map_err(exhausted)?;
            records.extend(slot);
        }
        self.tcp.write_all(&records).await.map_err(Error::Io)
    }

    async fn send_alert(&mut self, alert: AlertDescription) {
        let mut record = [0; CONTROL];
        if let Ok(length) = self.session.alert(&mut record, alert) {
            let _ = self.tcp.write_all(&record[..length]).await;
        }
    }
}

/// A socket takes an alert at once, unless its peer is stuck.
const FAREWELL: Duration = Duration::from_millis(200);
