//! Which end comes first, and whether the server says close_notify: what that makes of a stream.

use std::io::{ErrorKind, Write};

use egret::config::values::Eof;
use egret::pipeline::relay::Ended;
use rustls::{ContentType, StreamOwned, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::support::records::Records;

use super::stage::{Setup, Stage, VERSIONS, read_all, read_error, read_exactly};

/// A FIN without close_notify.
async fn bare_fin(mut server: TlsStream<TcpStream>) -> TcpStream {
    server.flush().await.unwrap();
    let mut tcp = server.into_inner().0;
    tcp.shutdown().await.unwrap();
    tcp
}

#[tokio::test]
async fn bare_fin_after_the_clients_end_is_a_clean_end() {
    for version in VERSIONS {
        for length in [0, 11, 300_000] {
            let Stage { mut client, mut server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(read_all(&mut server).await, b"question");
            let answer = vec![7; length];
            let (written, arrived) = tokio::join!(
                async {
                    server.write_all(&answer).await.unwrap();
                    bare_fin(server).await
                },
                read_all(&mut client),
            );
            assert!(arrived == answer);
            drop(written);
            let outcome = Stage::<()>::outcome(relay, &counted).await;
            assert_eq!((outcome.ended, outcome.received), (Ended::Finished, length as u64));
        }
    }
}

#[tokio::test]
async fn bare_fin_after_a_client_that_closed_both_ways_is_a_clean_end() {
    for version in VERSIONS {
        let Stage { client, mut server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
        drop(client);
        assert_eq!(read_all(&mut server).await, b"");
        let _tcp = bare_fin(server).await;
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::Finished);
    }
}

#[tokio::test]
async fn bare_fin_while_the_client_waits_is_a_truncation() {
    for version in VERSIONS {
        for answer in [&b""[..], b"half an ans"] {
            let Stage { mut client, mut server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
            client.write_all(b"question").await.unwrap();
            assert_eq!(read_exactly(&mut server, 8).await, b"question");
            server.write_all(answer).await.unwrap();
            let _tcp = bare_fin(server).await;
            assert_eq!(read_exactly(&mut client, answer.len()).await, answer);
            assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
            assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::Truncated);
        }
    }
}

/// The server has sent `whole`; the client has ended its direction, or not.
async fn answering(version: &'static SupportedProtocolVersion, eof: Eof, client_ends: bool) -> Stage {
    let mut setup = Setup { version, ..Setup::new() };
    setup.limits.eof = eof;
    let mut stage = setup.start().await;
    if client_ends {
        stage.client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut stage.server).await, b"");
    }
    stage.server.write_all(b"whole").await.unwrap();
    stage
}

/// Part of the record is missing, so part of the data is: neither the configuration nor the client's end makes that
/// clean.
#[tokio::test]
async fn fin_amid_a_record_is_a_truncation_always() {
    for version in VERSIONS {
        for eof in [Eof::Strict, Eof::Lenient] {
            for client_ends in [false, true] {
                // Up to within the header, the body, and the tag.
                for kept in [1, 2, 4, 5, 6, 20, -16, -1] {
                    let stage = answering(version, eof, client_ends).await;
                    let Stage { mut client, server, relay, counted, .. } = stage;
                    let (mut tcp, mut session) = server.into_inner();
                    session.writer().write_all(b"cut off").unwrap();
                    let mut record = Vec::new();
                    session.write_tls(&mut record).unwrap();
                    let end = if kept > 0 { 0 } else { record.len() };
                    let end = end.checked_add_signed(kept).unwrap();
                    tcp.write_all(&record[..end]).await.unwrap();
                    tcp.shutdown().await.unwrap();
                    assert_eq!(read_exactly(&mut client, 5).await, b"whole");
                    assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset, "{eof:?} {kept}");
                    let outcome = Stage::<()>::outcome(relay, &counted).await;
                    assert_eq!((outcome.ended, outcome.received), (Ended::Truncated, 5), "{eof:?} {kept}");
                }
            }
        }
    }
}

/// The record is whole, and what it carries is not: a ticket, a key update, a request.
#[tokio::test]
async fn fin_amid_a_handshake_message_is_a_truncation_always() {
    const TICKET: &[u8] = &[4, 0, 0, 100, 1, 2, 3];
    let tls12: [&[&[u8]]; 3] = [&[&[0]], &[&[0, 0, 0]], &[&[0], &[0]]];
    let tls13: [&[&[u8]]; 4] = [&[&[4]], &[TICKET], &[TICKET, &[7; 30]], &[&[24, 0, 0, 1]]];
    for (version, messages) in VERSIONS.into_iter().zip([&tls12[..], &tls13]) {
        for records in messages {
            for (eof, client_ends) in [(Eof::Strict, false), (Eof::Strict, true), (Eof::Lenient, false)] {
                let stage = answering(version, eof, client_ends).await;
                let Stage { mut client, mut server, relay, counted, .. } = stage;
                server.flush().await.unwrap();
                let (tcp, session) = server.into_inner();
                let tcp = tcp.into_std().unwrap();
                tcp.set_nonblocking(false).unwrap();
                let mut server = Records::of(StreamOwned::new(session, tcp));
                records.iter().for_each(|body| server.send(ContentType::Handshake, body));
                let gone = tokio::task::spawn_blocking(move || server.finish());
                let what = format!("{:?}, {eof:?}, the client ends: {client_ends}, {records:?}", version.version);
                assert_eq!(read_exactly(&mut client, 5).await, b"whole", "{what}");
                assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset, "{what}");
                let outcome = Stage::<()>::outcome(relay, &counted).await;
                assert_eq!((outcome.ended, outcome.received), (Ended::Truncated, 5), "{what}");
                gone.await.unwrap();
            }
        }
    }
}
