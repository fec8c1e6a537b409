//! Every byte arrives once, in order, and is counted once.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use egret::pipeline::relay::Ended;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::stage::{Setup, Stage, read_all, read_exactly, send_all, within};

#[tokio::test]
async fn early_bytes_are_sent_first() {
    // More than one buffer of them.
    for size in [1, 200_000] {
        let early: Vec<u8> = (0..size).map(|i| i as u8).collect();
        let setup = Setup { early: early.clone().into(), ..Setup::new() };
        let Stage { mut client, mut server, relay, counted, .. } = setup.start().await;
        client.write_all(b"late").await.unwrap();
        client.shutdown().await.unwrap();
        let arrived = read_all(&mut server).await;
        assert!(arrived == [&early[..], b"late"].concat());
        server.shutdown().await.unwrap();
        let outcome = Stage::<()>::outcome(relay, &counted).await;
        assert_eq!((outcome.ended, outcome.sent), (Ended::Finished, size as u64 + 4));
    }
}

#[tokio::test]
async fn server_that_speaks_first_is_heard() {
    let Stage { mut client, mut server, relay, counted, .. } = Setup::new().start().await;
    server.write_all(b"220 ready\r\n").await.unwrap();
    assert_eq!(read_exactly(&mut client, 11).await, b"220 ready\r\n");
    client.shutdown().await.unwrap();
    server.shutdown().await.unwrap();
    let outcome = Stage::<()>::outcome(relay, &counted).await;
    assert_eq!((outcome.sent, outcome.received), (0, 11));
    assert!(outcome.first_byte.is_some());
}

/// TLS 1.3 lets the client send its last flight with its first data; a server that speaks first must not wait
/// for that.
#[tokio::test]
async fn last_flight_leaves_with_early_bytes_or_alone() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for early in [&b""[..], b"early"] {
            let setup = Setup { version, early: Bytes::from_static(early), ..Setup::new() };
            let Stage { mut client, mut server, relay, counted, .. } = setup.start_with_flight().await;
            assert_eq!(read_exactly(&mut server, early.len()).await, early);
            server.write_all(b"220 ready\r\n").await.unwrap();
            assert_eq!(read_exactly(&mut client, 11).await, b"220 ready\r\n");
            client.shutdown().await.unwrap();
            assert_eq!(read_all(&mut server).await, b"");
            server.shutdown().await.unwrap();
            assert_eq!(Stage::<()>::outcome(relay, &counted).await.sent, early.len() as u64);
        }
    }
}

#[tokio::test]
async fn tiny_writes_are_delivered_at_once() {
    let Stage { mut client, mut server, .. } = Setup::new().start().await;
    for byte in 0..100 {
        client.write_all(&[byte]).await.unwrap();
        assert_eq!(read_exactly(&mut server, 1).await, [byte]);
        server.write_all(&[byte]).await.unwrap();
        assert_eq!(read_exactly(&mut client, 1).await, [byte]);
    }
}

#[tokio::test]
async fn tiny_writes_that_wait_become_one_record() {
    // A Unix socket, where a write is at once in the other end's queue: TCP waits for acknowledgements.
    let Stage { client, server, .. } = Setup::new().start_unix().await;
    // The relay runs on this thread and gets its turn only at the next await.
    for _ in 0..100 {
        assert_eq!(client.try_write(b"x").unwrap(), 1);
    }
    let (mut tcp, _session) = server.into_inner();
    let header = read_exactly(&mut tcp, 5).await;
    // 100 bytes, their type and their tag.
    assert_eq!(u16::from_be_bytes([header[3], header[4]]), 100 + 1 + 16);
}

#[tokio::test]
async fn key_update_of_the_server_is_followed_and_answered() {
    let Stage { mut client, server, .. } = Setup::new().start().await;
    let (mut tcp, mut session) = server.into_inner();
    for _ in 0..3 {
        session.refresh_traffic_keys().unwrap();
        std::io::Write::write_all(&mut session.writer(), b"new keys").unwrap();
        send_all(&mut tcp, &mut session).await;
        assert_eq!(read_exactly(&mut client, 8).await, b"new keys");
        // The request obliges the other side to change its keys with the next bytes it sends.
        client.write_all(b"mine too").await.unwrap();
        let mut arrived = Vec::new();
        while arrived.len() < 8 {
            let mut records = [0; 1024];
            let n = within(tcp.read(&mut records)).await.unwrap();
            session.read_tls(&mut &records[..n]).unwrap();
            let state = session.process_new_packets().unwrap();
            let mut bytes = vec![0; state.plaintext_bytes_to_read()];
            std::io::Read::read_exact(&mut session.reader(), &mut bytes).unwrap();
            arrived.extend(bytes);
        }
        assert_eq!(arrived, b"mine too");
    }
}

#[tokio::test]
async fn unix_client_is_served() {
    let Stage { mut client, mut server, relay, counted, .. } = Setup::new().start_unix().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"question");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"answer");
    let outcome = Stage::<()>::outcome(relay, &counted).await;
    assert_eq!((outcome.ended, outcome.sent, outcome.received), (Ended::Finished, 8, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_both_ways_at_once_arrives_whole() {
    const BULK: usize = 64 << 20;
    let Stage { client, server, relay, counted, .. } = Setup::new().start().await;
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = tokio::io::split(server);
    let tasks = [
        tokio::spawn(produce(client_out, BULK, 1)),
        tokio::spawn(produce(server_out, BULK, 2)),
        tokio::spawn(digest(client_in)),
        tokio::spawn(digest(server_in)),
    ];
    let mut digests = Vec::new();
    for task in tasks {
        digests.push(within(task).await.unwrap());
    }
    assert!(digests[0] == digests[3] && digests[1] == digests[2] && digests[0] != digests[1]);
    let outcome = Stage::<()>::outcome(relay, &counted).await;
    assert_eq!((outcome.ended, outcome.sent, outcome.received), (Ended::Finished, BULK as u64, BULK as u64));
}

/// Writes `n` bytes that do not repeat soon and yields their SHA-256.
async fn produce(mut to: impl AsyncWrite + Unpin, n: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut block: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1 << 20).collect();
    let (mut context, mut left) = (Context::new(&SHA256), n);
    while left > 0 {
        block[0] = block[0].wrapping_add(1);
        let part = &block[..left.min(random.usize(1..=1 << 20))];
        context.update(part);
        to.write_all(part).await.unwrap();
        left -= part.len();
    }
    to.shutdown().await.unwrap();
    context.finish().as_ref().to_vec()
}

async fn digest(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let (mut context, mut block) = (Context::new(&SHA256), vec![0; 100_000]);
    loop {
        match from.read(&mut block).await.unwrap() {
            0 => return context.finish().as_ref().to_vec(),
            n => context.update(&block[..n]),
        }
    }
}

/// A write: by the client or the server, and how many bytes.
fn writes() -> impl Strategy<Value = Vec<(bool, usize)>> {
    let size = prop_oneof![0..4usize, 16_380..16_390usize, 65_530..65_540usize, 0..200_000usize];
    proptest::collection::vec((any::<bool>(), size), 0..12)
}

proptest! {
    // Sockets and handshakes: a few cases of many writes each.
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_exact_for_any_pattern_of_writes(writes in writes()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(bytes_are_exact(writes));
    }
}

async fn bytes_are_exact(writes: Vec<(bool, usize)>) {
    let Stage { client, server, relay, counted, .. } = Setup::new().start().await;
    let sent = |by_client| writes.iter().filter(move |write| write.0 == by_client).flat_map(|write| pattern(write.1));
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = tokio::io::split(server);
    let write = async {
        for &(by_client, size) in &writes {
            let bytes: Vec<u8> = pattern(size).collect();
            if by_client {
                client_out.write_all(&bytes).await.unwrap();
            } else {
                server_out.write_all(&bytes).await.unwrap();
                server_out.flush().await.unwrap();
            }
        }
        client_out.shutdown().await.unwrap();
        server_out.shutdown().await.unwrap();
    };
    let ((), at_client, at_server) =
        within(async { tokio::join!(write, read_all(&mut client_in), read_all(&mut server_in)) }).await;
    assert!(at_server.iter().copied().eq(sent(true)) && at_client.iter().copied().eq(sent(false)));
    let outcome = Stage::<()>::outcome(relay, &counted).await;
    assert_eq!(outcome.ended, Ended::Finished);
    assert_eq!((outcome.sent, outcome.received), (at_server.len() as u64, at_client.len() as u64));
}

/// Bytes that differ by position, so that a lost or doubled chunk shows.
fn pattern(n: usize) -> impl Iterator<Item = u8> {
    (0..n).map(move |i| (i.wrapping_mul(31) ^ (i >> 8) ^ n) as u8)
}
