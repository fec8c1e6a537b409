//! What a server sees of a handshake that is under way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::UnbufferedClientConnection;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use super::{Progress, handshake};
use crate::net::{Options, unacknowledged};

/// The kernel delays an acknowledgement by no less (TCP_DELACK_MIN), unless it was asked not to.
const DELAY: Duration = Duration::from_millis(40);
/// A busy machine may take as long for one; for so many in a row it does not.
const TRIES: usize = 50;

/// How long a server waits until the first part of its flight is acknowledged.
async fn until_acknowledged(part: Vec<u8>) -> Duration {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    Options::default().set(&tcp).unwrap();
    socket2::SockRef::from(&tcp).set_tcp_quickack(false).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = "origin.example.com".try_into().unwrap();
    let mut client = UnbufferedClientConnection::new(Arc::new(config), name).unwrap();
    let shaking = tokio::spawn(async move { handshake(&mut tcp, &mut client, &Progress::default()).await.is_ok() });
    let waiting = spawn_blocking(move || {
        assert!(server.read(&mut [0; 4096]).unwrap() > 0, "a ClientHello");
        let began = Instant::now();
        server.write_all(&part).unwrap();
        while unacknowledged(&server).unwrap() > 0 {
            thread::yield_now();
        }
        began.elapsed()
    });
    let waited = waiting.await.unwrap();
    shaking.abort();
    waited
}

/// A server with Nagle's algorithm holds the rest of its flight back until what it sent is acknowledged, and on a connection
/// that was made to speak first the kernel delays that. Java's server sends each message by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_the_servers_flight_is_acknowledged_at_once() {
    let record = [&[22, 3, 3, 0, 90, 2, 0, 0, 86][..], &[3; 80]].concat();
    // Of a header, a header, of a message, all but the end.
    for length in [1, 5, 9, record.len()] {
        let mut tries = 0;
        while until_acknowledged(record[..length].to_vec()).await >= DELAY {
            tries += 1;
            assert!(tries < TRIES, "{length} bytes are acknowledged late every time");
        }
    }
}
