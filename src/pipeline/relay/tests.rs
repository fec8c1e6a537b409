//! What needs a session that no handshake gives: one whose key is nearly used up.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use metrics::Counter;
use socket2::SockRef;
use tokio::net::TcpStream as TokioStream;
use tokio::time::timeout;

use super::{Counters, Ended, Outcome, relay};
use crate::config::values::{Eof, StreamLimits};
use crate::net;
use crate::tls::handshake::Established;
use crate::tls::record::{MAX_PLAINTEXT, blocks};
use crate::tls::session::tests::limited_to;

fn connection() -> (TokioStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    (TokioStream::from_std(near).unwrap(), far)
}

/// A client that sends all of it; how much a server got, and how the stream ended.
async fn send(mut left: usize, piece: usize, key: u64) -> (Ended, u64, u64) {
    let (downstream, mut client) = connection();
    let (tcp, mut server) = connection();
    let reads = thread::spawn(move || while let Ok(1..) = server.read(&mut [0; 65_536]) {});
    let writes = thread::spawn(move || {
        while left > 0 && client.write_all(&vec![7; piece.min(left)]).is_ok() {
            left = left.saturating_sub(piece);
        }
    });
    let (outcome, warned) = relayed(downstream, tcp, (Vec::new(), false), key).await;
    reads.join().unwrap();
    writes.join().unwrap();
    (outcome.ended, outcome.sent, warned)
}

/// A relay to a server that is sent the rest of a handshake first, and how often its key was warned of.
async fn relayed(client: TokioStream, tcp: TokioStream, rest: (Vec<u8>, bool), key: u64) -> (Outcome, u64) {
    let session = limited_to(key);
    let (unsent, tickets_due) = rest;
    let greeting = Bytes::new();
    let upstream = Established { tcp, session, received: None, unsent, tickets_due, greeting, client_sent: 0 };
    let warned = Arc::new(AtomicU64::new(0));
    let near_key_limit = Counter::from_arc(Arc::clone(&warned));
    let counters = Counters { sent: Counter::noop(), received: Counter::noop(), near_key_limit };
    let limits = StreamLimits { idle: None, lifetime: None, half_closed: Duration::from_secs(60), eof: Eof::Strict };
    let forced = std::future::pending();
    let outcome = relay(net::Stream::Tcp(client), Bytes::new(), upstream, &limits, &counters, forced).await;
    (outcome, warned.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_nears_its_limit_is_counted_once_and_ends_its_stream_by_name() {
    const FULL: u64 = blocks(MAX_PLAINTEXT);
    for (records, piece) in [(40, MAX_PLAINTEXT), (40, 300_000), (100, 1_000)] {
        let (ended, sent, warned) = send(64 << 20, piece, records * FULL).await;
        assert_eq!((ended, warned), (Ended::KeyUsageLimit, 1), "{records} records, pieces of {piece}");
        assert!(sent > 0 && sent <= records * MAX_PLAINTEXT as u64, "{sent} bytes with {records} records");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_after_the_warning_is_counted_and_clean_until_then() {
    const FULL: u64 = blocks(MAX_PLAINTEXT);
    for (bytes, warned) in [(10 * MAX_PLAINTEXT, 0), (60 * MAX_PLAINTEXT, 1)] {
        let (ended, sent, counted) = send(bytes, MAX_PLAINTEXT, 100 * FULL).await;
        assert_eq!((sent, counted), (bytes as u64, warned), "{ended:?}");
    }
}

/// The kernel delays acknowledgements on a connection that was made to speak first; a server that leaves Nagle's
/// algorithm on would hold its first answer back until its tickets are acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_sends_after_the_last_flight_is_acknowledged_at_once() {
    const KEY: u64 = 100 * blocks(MAX_PLAINTEXT);
    // A flight that leaves with the first request; one that has just left by itself; none, as on a warm connection.
    for (flight, tickets_due) in [(&b"last flight"[..], false), (b"", true), (b"", false)] {
        let (downstream, mut client) = connection();
        let (tcp, mut server) = connection();
        let socket = tcp.as_fd().try_clone_to_owned().unwrap();
        let socket = SockRef::from(&socket);
        socket.set_tcp_quickack(false).unwrap();
        client.write_all(b"first request").unwrap();
        let relaying = tokio::spawn(relayed(downstream, tcp, (flight.to_vec(), tickets_due), KEY));
        server.read_exact(&mut vec![0; flight.len() + b"first request".len()]).unwrap();
        // Both were one write; the call follows it.
        let acknowledges = async {
            while !socket.tcp_quickack().unwrap() {
                tokio::task::yield_now().await;
            }
        };
        let expected = tickets_due || !flight.is_empty();
        let bound = if expected { Duration::from_secs(10) } else { Duration::from_millis(20) };
        assert_eq!(timeout(bound, acknowledges).await.is_ok(), expected);
        relaying.abort();
    }
}
