//! The plaintext before TLS, against servers that behave and servers that do not.

use bytes::Bytes;
use egret::config::values::Name;
use egret::pipeline::originate::upgrade::{Error, upgrade};
use egret::protocols::postgres::Server;
use egret::protocols::{Upgrade, drive};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Both ends of a connection, the server's with the request already read and this already sent.
async fn answered(answer: &[u8]) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(answer).await.unwrap();
    // Loopback delivers before the write returns; a readable client is the proof.
    if !answer.is_empty() {
        client.readable().await.unwrap();
    }
    (client, server)
}

async fn postgres(tcp: &mut TcpStream) -> Result<Bytes, Error> {
    timeout(Duration::from_secs(10), upgrade(Upgrade::of("postgres").unwrap(), tcp, "db.example.com"))
        .await
        .expect("bounded")
}

async fn fails(answer: &[u8]) -> Error {
    let (mut client, mut server) = answered(answer).await;
    server.shutdown().await.unwrap();
    postgres(&mut client).await.unwrap_err()
}

#[tokio::test]
async fn postgres_asks_and_takes_a_yes() {
    let (mut client, mut server) = answered(b"S").await;
    postgres(&mut client).await.unwrap();
    let mut asked = [0; 8];
    server.read_exact(&mut asked).await.unwrap();
    assert_eq!(asked, SSL_REQUEST);
    // What the server sends from here on is TLS, from its first byte.
    server.write_all(b"\x16\x03\x03").await.unwrap();
    let mut first = [0; 3];
    client.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"\x16\x03\x03");
}

#[tokio::test]
async fn postgres_reads_exactly_one_byte() {
    let (mut client, mut server) = duplex(64);
    server.write_all(b"Sand all the rest").await.unwrap();
    drive(&mut Server::default(), &mut client).await.unwrap();
    drop(server);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"and all the rest");
}

#[tokio::test]
async fn plaintext_behind_the_yes_is_refused() {
    let (mut client, _server) = answered(b"SE").await;
    assert_eq!(postgres(&mut client).await.unwrap_err().reason(), "upgrade_plaintext_injection");
}

#[tokio::test]
async fn server_without_tls_is_refused_and_the_setting_named() {
    let error = fails(b"N").await;
    assert_eq!(error.reason(), "upgrade_refused");
    assert!(error.repair(&Name::new("db")).unwrap().contains("ssl = on"));
}

#[tokio::test]
async fn server_that_is_not_postgres_is_named_with_the_line_to_remove() {
    // A TLS alert, as a TLS server gives to an SSLRequest, and a web server's answer.
    for answer in [&b"\x15\x03\x03\x00\x02\x02\x0a"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let error = fails(answer).await;
        assert_eq!(error.reason(), "upgrade_not_the_protocol");
        let repair = error.repair(&Name::new("web")).unwrap();
        assert!(repair.contains("[upstreams.web]") && repair.contains("upgrade = \"postgres\""), "{repair}");
    }
}

#[tokio::test]
async fn error_of_the_server_is_shown_and_bounded() {
    let error = fails(b"E\0\0\0\x30SFATAL\0C53300\0Msorry, too many clients already\0\0").await;
    assert_eq!(error.reason(), "upgrade_error");
    assert!(error.to_string().contains("sorry, too many clients already (SQLSTATE 53300)"), "{error}");
    let error = fails(&[b"E".as_slice(), &b"\x1b]x".repeat(100_000)].concat()[..60_000]).await;
    assert_eq!(error.reason(), "upgrade_error");
    assert!(error.to_string().len() < 3000 && !error.to_string().contains('\x1b'));
}

#[tokio::test]
async fn error_of_a_server_that_stays_connected_is_not_waited_for() {
    let (mut client, _server) = answered(b"Ebusy\0").await;
    let error = postgres(&mut client).await.unwrap_err();
    assert!(error.to_string().ends_with("busy"), "{error}");
}

#[tokio::test]
async fn closing_server_and_broken_connection_differ() {
    assert_eq!(fails(b"").await.reason(), "upgrade_closed");
    assert_eq!(fails(b"S").await.reason(), "upgrade_closed", "closed behind its yes");
    let (mut client, server) = answered(b"").await;
    server.set_zero_linger().unwrap();
    drop(server);
    assert_eq!(postgres(&mut client).await.unwrap_err().reason(), "upgrade_io");
}
