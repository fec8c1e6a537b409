//! A name server that knows one answer, and can be away.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Answers every A query with 127.0.0.1 and every other with "no such data", until it is dropped.
pub(crate) struct NameServer {
    stop: Arc<AtomicBool>,
    pub(crate) address: SocketAddr,
}

impl NameServer {
    pub(crate) fn start(port: u16) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut query) {
                    let _ = socket.send_to(&answer(&query[..length]), peer);
                }
            }
        });
        Self { stop, address }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// RFC 1035 section 4: the header, the question again, and for type A one record that points back to
/// the name of the question.
fn answer(query: &[u8]) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap_or(0) + 1;
    let question = &query[12..(name_end + 4).min(query.len())];
    let wants_address = question.ends_with(&[0, 1, 0, 1]);
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(wants_address), 0, 0, 0, 0]);
    reply.extend(question);
    if wants_address {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    reply
}
