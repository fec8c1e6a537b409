//! Bytes that a server sends after its close_notify belong to nobody, and cost neither side what it has.

use rustls::{ServerConnection, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use egret::pipeline::relay::Ended;

use super::stage::{Setup, Stage, VERSIONS, read_all, send_all, within};

const GARBAGE: &[u8] = b"\n<!-- generated in 3 ms -->\n";
/// The header of a record of application data, and half of its body.
const HALF_A_RECORD: &[u8] = &[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

/// When the server sends what nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sent {
    /// Together with its close_notify.
    Together,
    /// While the client still sends.
    DuringUpload,
    /// Once both ends have been passed on.
    AtLast,
}

struct Server {
    tcp: TcpStream,
    session: ServerConnection,
}

impl Server {
    /// Data, close_notify, and after them `more` in the same write.
    async fn says(&mut self, data: &[u8], more: &[u8]) {
        std::io::Write::write_all(&mut self.session.writer(), data).unwrap();
        self.session.send_close_notify();
        let mut records = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut records).unwrap();
        }
        records.extend_from_slice(more);
        self.tcp.write_all(&records).await.unwrap();
    }

    /// All that the client sends, to its close_notify and its FIN.
    async fn hears(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut bytes = vec![0; 4096];
        loop {
            let n = within(self.tcp.read(&mut bytes)).await.expect("no reset");
            if n == 0 {
                return plain;
            }
            let mut rest = &bytes[..n];
            while !rest.is_empty() {
                self.session.read_tls(&mut rest).unwrap();
                self.session.process_new_packets().unwrap();
            }
            while let Ok(n @ 1..) = std::io::Read::read(&mut self.session.reader(), &mut [0; 4096]) {
                plain.resize(plain.len() + n, b'.');
            }
        }
    }
}

async fn plays(version: &'static SupportedProtocolVersion, sent: Sent, more: &[u8]) {
    let what = format!("{:?}, {sent:?}, {} bytes", version.version, more.len());
    let Stage { mut client, server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
    let (mut tcp, mut session) = server.into_inner();
    send_all(&mut tcp, &mut session).await;
    let mut server = Server { tcp, session };
    server.says(b"all of it", if sent == Sent::Together { more } else { b"" }).await;
    assert_eq!(read_all(&mut client).await, b"all of it", "{what}");
    if sent == Sent::DuringUpload {
        client.write_all(b"still ").await.unwrap();
        server.tcp.write_all(more).await.unwrap();
    }
    client.write_all(b"sending").await.unwrap();
    client.shutdown().await.unwrap();
    let heard = server.hears().await;
    let expected = if sent == Sent::DuringUpload { 13 } else { 7 };
    assert_eq!(heard.len(), expected, "{what}");
    if sent == Sent::AtLast {
        server.tcp.write_all(more).await.unwrap();
    }
    server.tcp.shutdown().await.unwrap();
    let outcome = Stage::<()>::outcome(relay, &counted).await;
    assert_eq!((outcome.ended, outcome.received), (Ended::Finished, 9), "{what}");
    let error = server.tcp.take_error().unwrap();
    assert!(error.is_none(), "{what}: the server sees {error:?}");
}

#[tokio::test]
async fn bytes_after_close_notify_are_no_data_and_the_server_sees_no_reset() {
    for version in VERSIONS {
        for sent in [Sent::Together, Sent::DuringUpload, Sent::AtLast] {
            for more in [&b""[..], GARBAGE, HALF_A_RECORD, &[0; 70_000]] {
                plays(version, sent, more).await;
            }
        }
    }
}

/// More than is read: the server gets a reset, and the client all that was sent to it.
#[tokio::test]
async fn a_server_that_never_stops_after_close_notify_is_left() {
    for version in VERSIONS {
        let Stage { mut client, server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
        let (tcp, session) = server.into_inner();
        let mut server = Server { tcp, session };
        server.says(b"all of it", GARBAGE).await;
        client.shutdown().await.unwrap();
        let floods = tokio::spawn(async move { while server.tcp.write_all(&[0; 65_536]).await.is_ok() {} });
        assert_eq!(read_all(&mut client).await, b"all of it");
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::Finished);
        within(floods).await.unwrap();
    }
}

/// A server that keeps its side open does not keep the client waiting, nor the stream for long.
#[tokio::test]
async fn a_server_without_a_fin_after_close_notify_holds_up_nobody() {
    for version in VERSIONS {
        let Stage { mut client, server, relay, counted, .. } = Setup { version, ..Setup::new() }.start().await;
        let (tcp, session) = server.into_inner();
        let mut server = Server { tcp, session };
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(server.hears().await.len(), 8);
        server.says(b"answer", b"").await;
        assert_eq!(read_all(&mut client).await, b"answer");
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::Finished);
        drop(server);
    }
}
