//! What clients say first on a plaintext listener.

use std::sync::Arc;
use std::time::Duration;

use egret::net::Stream;
use egret::pipeline::classify::{Class, Error, Expect, Protocol, classify};
use egret::protocols::Upgrade;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSSENC_REQUEST: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
/// Protocol 3.0, user and database.
const SESSION: &[u8] = b"\0\0\0\x1b\0\x03\0\0user\0app\0database\0";

async fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, Stream::Tcp(listener.accept().await.unwrap().0))
}

async fn postgres(downstream: &mut Stream) -> Result<Class, Error> {
    let wait = Duration::from_secs(5);
    timeout(wait * 2, classify(Expect::Upgrade(Upgrade::of("postgres").unwrap()), downstream, wait))
        .await
        .expect("bounded")
}

async fn is_refused(first: &[u8]) -> Error {
    let (mut client, mut downstream) = pair().await;
    client.write_all(first).await.unwrap();
    let error = postgres(&mut downstream).await.unwrap_err();
    drop(client);
    error
}

#[tokio::test]
async fn anything_reads_nothing_and_waits_for_nothing() {
    let (_silent, mut downstream) = pair().await;
    let class = classify(Expect::Anything, &mut downstream, Duration::ZERO).await.unwrap();
    assert_eq!((class.protocol, &class.early[..]), (Protocol::Plaintext, &b""[..]));
    let (mut client, mut downstream) = pair().await;
    client.write_all(b"hello").await.unwrap();
    classify(Expect::Anything, &mut downstream, Duration::ZERO).await.unwrap();
    let mut first = [0; 5];
    downstream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"hello");
}

#[tokio::test]
async fn encryption_is_declined_and_no_byte_of_the_session_is_lost() {
    let (near, far) = UnixStream::pair().unwrap();
    let (mut client, mut downstream) = (near, Stream::Unix(far));
    let talk = tokio::spawn(async move {
        for request in [GSSENC_REQUEST, SSL_REQUEST] {
            client.write_all(request).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'N');
        }
        client.write_all(SESSION).await.unwrap();
    });
    let class = postgres(&mut downstream).await.unwrap();
    talk.await.unwrap();
    let mut session = class.early.to_vec();
    downstream.read_to_end(&mut session).await.unwrap();
    assert_eq!(session, SESSION);
}

#[tokio::test]
async fn cancel_request_is_passed_on() {
    let (mut client, mut downstream) = pair().await;
    let cancel = [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 2];
    client.write_all(&cancel).await.unwrap();
    let class = postgres(&mut downstream).await.unwrap();
    assert_eq!(&class.early[..], &cancel[..]);
}

#[tokio::test]
async fn client_that_speaks_tls_is_told_what_to_change() {
    let error = is_refused(b"\x16\x03\x01\x02\x00\x01").await;
    assert_eq!(error.reason(), "downstream_speaks_tls");
    assert!(error.repair().unwrap().contains("sslmode=disable"));
}

#[tokio::test]
async fn garbage_and_repeated_requests_are_not_postgres() {
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x04", b"\x7f", &[SSL_REQUEST, SSL_REQUEST].concat()] {
        assert_eq!(is_refused(first).await.reason(), "downstream_not_postgres", "{first:?}");
    }
}

#[tokio::test]
async fn silence_and_half_a_packet_end_within_the_wait() {
    for first in [&b""[..], &SESSION[..5], SSL_REQUEST] {
        let (mut client, mut downstream) = pair().await;
        client.write_all(first).await.unwrap();
        let wait = Duration::from_millis(50);
        let error =
            classify(Expect::Upgrade(Upgrade::of("postgres").unwrap()), &mut downstream, wait).await.unwrap_err();
        assert_eq!(error.reason(), "downstream_silent");
    }
}

#[tokio::test]
async fn client_that_leaves_because_of_the_n_is_told_why() {
    let (mut client, mut downstream) = pair().await;
    client.write_all(SSL_REQUEST).await.unwrap();
    client.shutdown().await.unwrap();
    let error = postgres(&mut downstream).await.unwrap_err();
    assert_eq!(error.reason(), "downstream_closed");
    assert!(error.repair().unwrap().contains("sslmode=disable"));
    let (client, mut downstream) = pair().await;
    drop(client);
    let error = postgres(&mut downstream).await.unwrap_err();
    assert_eq!((error.reason(), error.repair()), ("downstream_closed", None));
}

/// A ClientHello for `db.example.com`, as rustls makes it.
fn client_hello() -> Vec<u8> {
    let config = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let name = "db.example.com".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config.with_no_client_auth()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

async fn tls(downstream: &mut Stream, wait: Duration) -> Result<Class, Error> {
    timeout(Duration::from_secs(20), classify(Expect::Tls, downstream, wait)).await.expect("bounded")
}

#[tokio::test]
async fn a_hello_over_many_segments_is_read_and_nothing_is_lost() {
    let (mut client, mut downstream) = pair().await;
    let sent = [client_hello(), b"early data".to_vec()].concat();
    let written = sent.clone();
    let writing = tokio::spawn(async move {
        for piece in written.chunks(100) {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        client
    });
    let class = tls(&mut downstream, Duration::from_secs(10)).await.unwrap();
    let Protocol::Tls(hello) = class.protocol else { panic!("{:?}", class.protocol) };
    assert_eq!(hello.server_name.as_deref(), Some("db.example.com"));
    drop(writing.await.unwrap());
    let mut got = class.early.to_vec();
    downstream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, sent);
}

#[tokio::test]
async fn what_is_no_hello_or_half_of_one_is_refused_within_bounds() {
    let cases: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\n\r\n", "downstream_not_tls"),
        (SSL_REQUEST, "downstream_not_tls"),
        (&client_hello()[..100], "downstream_closed"),
        (b"\x16\x03\x01\x00\x00", "downstream_hello_malformed"),
    ];
    for (first, reason) in cases {
        let (mut client, mut downstream) = pair().await;
        client.write_all(first).await.unwrap();
        client.shutdown().await.unwrap();
        let error = tls(&mut downstream, Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
    let (_silent, mut downstream) = pair().await;
    assert_eq!(tls(&mut downstream, Duration::from_millis(20)).await.unwrap_err().reason(), "downstream_silent");
}

#[tokio::test]
async fn a_hello_without_end_is_refused_at_64_kib() {
    let (mut client, mut downstream) = pair().await;
    // A message of 65,000 bytes in records of one byte each.
    let endless = [22, 3, 1, 0, 1].into_iter();
    let message = [1, 0, 0xfd, 0xe8].into_iter().chain(std::iter::repeat(0));
    let bytes: Vec<u8> = message.take(30_000).flat_map(|byte| endless.clone().chain([byte])).collect();
    let writing = tokio::spawn(async move {
        let written = client.write_all(&bytes).await;
        (client, written)
    });
    let error = tls(&mut downstream, Duration::from_secs(10)).await.unwrap_err();
    assert_eq!(error.reason(), "downstream_hello_malformed");
    // 64 KiB were read, the rest is left to the kernel.
    let mut left = vec![0; 200_000];
    let (_client, _) = writing.await.unwrap();
    let more = downstream.read(&mut left).await.unwrap();
    assert!(more > 0, "no more is read than the bound");
}
