//! The server's side of a connection whose records a test makes itself: what no TLS library would send.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use egret::tls::record::{Frame, Opener, Sealer};
use egret::tls::session::CONTROL;
use rustls::{ContentType, ProtocolVersion};

use super::peer::Accepted;

/// A connection after its handshake, whose configuration has `enable_secret_extraction`.
pub(crate) struct Records {
    tcp: TcpStream,
    sealer: Sealer,
    opener: Opener,
    received: Vec<u8>,
}

/// Finishes the handshake, tickets included.
pub(crate) fn shake(tls: &mut Accepted) {
    while tls.conn.is_handshaking() || tls.conn.wants_write() {
        tls.conn.complete_io(&mut tls.sock).unwrap();
    }
}

impl Records {
    pub(crate) fn of(tls: Accepted) -> Self {
        let Accepted { conn, sock: tcp } = tls;
        let tls13 = conn.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let secrets = conn.dangerous_extract_secrets().unwrap();
        let sealer = Sealer::new(tls13, &secrets.tx.1, secrets.tx.0, u64::MAX).unwrap();
        let opener = Opener::new(tls13, &secrets.rx.1, secrets.rx.0).unwrap();
        Self { tcp, sealer, opener, received: Vec::new() }
    }

    /// Sends one record. The client may be gone.
    pub(crate) fn send(&mut self, kind: ContentType, body: &[u8]) {
        let (mut record, front) = ([0; CONTROL], self.sealer.layout().front());
        record[front..front + body.len()].copy_from_slice(body);
        let wire = self.sealer.seal(kind, &mut record, body.len()).unwrap();
        let _ = self.tcp.write_all(&record[..wire]);
    }

    /// The client's next record; `None` after its last.
    pub(crate) fn receive(&mut self) -> Option<(ContentType, Vec<u8>)> {
        loop {
            if let Ok(Frame::Whole(wire)) = self.opener.frame(&self.received) {
                let mut record: Vec<u8> = self.received.drain(..wire).collect();
                let (kind, plain) = self.opener.open(&mut record).unwrap();
                return Some((kind, record[plain].to_vec()));
            }
            let mut piece = [0; 4096];
            match self.tcp.read(&mut piece) {
                Ok(read @ 1..) => self.received.extend_from_slice(&piece[..read]),
                _ => return None,
            }
        }
    }

    /// A FIN, and what the client still says until it leaves.
    pub(crate) fn finish(mut self) {
        let _ = self.tcp.shutdown(Shutdown::Write);
        let _ = self.tcp.read_to_end(&mut Vec::new());
    }

    pub(crate) fn reset(self) {
        super::plain::reset(self.tcp);
    }
}
