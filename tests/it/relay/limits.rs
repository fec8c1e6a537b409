//! Time, memory and force: what ends a stream that does not end by itself, and what it may hold.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use egret::pipeline::relay::Ended;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::stage::{CHUNK, Setup, Stage, counters, fill, read_all, read_error, read_exactly, within};

/// Long enough to be seen, short enough to be waited for.
const LIMIT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn idle_stream_is_reset_on_both_sides() {
    let mut setup = Setup::new();
    setup.limits.idle = Some(LIMIT);
    let Stage { mut client, mut server, relay, counted, .. } = setup.start().await;
    let start = Instant::now();
    client.write_all(b"one").await.unwrap();
    assert_eq!(read_exactly(&mut server, 3).await, b"one");
    assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
    assert_eq!(read_error(&mut server).await, ErrorKind::ConnectionReset);
    assert!(start.elapsed() >= LIMIT);
    assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::Idle);
}

#[tokio::test]
async fn lifetime_ends_a_busy_stream() {
    let mut setup = Setup::new();
    setup.limits.lifetime = Some(LIMIT);
    setup.limits.idle = Some(Duration::from_secs(60));
    let Stage { client, mut server, relay, counted, .. } = setup.start().await;
    let (_answer, mut upload) = client.into_split();
    let uploading = tokio::spawn(async move { while upload.write_all(&[0; 1000]).await.is_ok() {} });
    let downloading = tokio::spawn(async move { tokio::io::copy(&mut server, &mut tokio::io::sink()).await });
    assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::Lifetime);
    within(uploading).await.unwrap();
    within(downloading).await.unwrap().expect_err("a reset, not an end");
}

#[tokio::test]
async fn half_closed_stream_ends_when_the_other_direction_rests() {
    for client_ends in [true, false] {
        let mut setup = Setup::new();
        setup.limits.half_closed = LIMIT;
        let Stage { mut client, mut server, relay, counted, .. } = setup.start().await;
        if client_ends {
            client.shutdown().await.unwrap();
            assert_eq!(read_all(&mut server).await, b"");
            assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
        } else {
            server.shutdown().await.unwrap();
            assert_eq!(read_all(&mut client).await, b"");
        }
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::HalfClosed);
    }
}

#[tokio::test]
async fn forced_ends_a_stream_within_its_grace_even_a_stalled_one() {
    for stalled in [false, true] {
        let Stage { mut client, server, relay, force, counted } = Setup::new().start().await;
        if stalled {
            fill(&mut client, 64 << 20).await;
        }
        force.send(()).unwrap();
        assert_eq!(Stage::<()>::outcome(relay, &counted).await.ended, Ended::Drained);
        let error = read_error(&mut client).await;
        assert_eq!(error, ErrorKind::ConnectionReset);
        drop(server);
    }
}

#[tokio::test]
async fn peer_that_never_reads_ends_by_the_idle_limit() {
    let mut setup = Setup { small_sockets: true, ..Setup::new() };
    setup.limits.idle = Some(LIMIT);
    let Stage { mut client, server, relay, counted, .. } = setup.start().await;
    let start = Instant::now();
    within(async { while client.write_all(&[0; 65536]).await.is_ok() {} }).await;
    assert!(start.elapsed() >= LIMIT);
    let outcome = Stage::<()>::outcome(relay, &counted).await;
    assert_eq!(outcome.ended, Ended::Idle);
    assert!(outcome.sent > 0 && outcome.sent < BOUND as u64, "{}", outcome.sent);
    drop(server);
}

/// What may be under way to a reader that does not read: the relay's 160 KiB, and four sockets of
/// 64 KiB (as doubled by Linux), each with as much again for Linux's accounting to be generous.
const BOUND: usize = 1 << 20;
const OFFERED: usize = 16 << 20;

#[tokio::test]
async fn slow_client_keeps_memory_bounded() {
    let Stage { mut client, mut server, relay, counted, .. } =
        Setup { small_sockets: true, ..Setup::new() }.start().await;
    slow_reader(&mut server, &mut client).await;
    client.shutdown().await.unwrap();
    let outcome = Stage::<()>::outcome(relay, &counted).await;
    assert_eq!((outcome.ended, outcome.received), (Ended::Finished, OFFERED as u64));
}

#[tokio::test]
async fn slow_server_keeps_memory_bounded() {
    let Stage { mut client, mut server, relay, counted, .. } =
        Setup { small_sockets: true, ..Setup::new() }.start().await;
    slow_reader(&mut client, &mut server).await;
    server.shutdown().await.unwrap();
    let outcome = Stage::<()>::outcome(relay, &counted).await;
    assert_eq!((outcome.ended, outcome.sent), (Ended::Finished, OFFERED as u64));
}

/// A writer that could go on is stopped by a reader that rests, and nothing is lost when it wakes up.
async fn slow_reader(fast: &mut (impl AsyncWrite + Unpin), slow: &mut (impl AsyncRead + Unpin)) {
    let accepted = fill(fast, OFFERED).await;
    assert!(accepted < BOUND, "{accepted} bytes were accepted for a reader that rests");
    let rest = async {
        let mut left = OFFERED - accepted;
        while left > 0 {
            let n = left.min(CHUNK.len());
            fast.write_all(&CHUNK[..n]).await.unwrap();
            left -= n;
        }
        fast.shutdown().await.unwrap();
    };
    let (arrived, ()) = within(async { tokio::join!(read_all(slow), rest) }).await;
    assert_eq!(arrived.len(), OFFERED);
    assert!(arrived.iter().all(|&byte| byte == 7));
}

/// Bytes of the future of one stream: keys, two directions, one timer. Both ways: a bound
/// that is not tight would not notice growth.
const FUTURE: std::ops::RangeInclusive<usize> = 950..=1150;

#[tokio::test]
async fn future_of_a_stream_keeps_its_size() {
    let setup = Setup::new();
    let (_client, downstream) = setup.sockets().await;
    let (upstream, _server) = setup.tls().await;
    let counters = counters(&[Default::default(), Default::default()]);
    let downstream = egret::net::Stream::Tcp(downstream);
    // Without a size of its own.
    let forced = std::future::poll_fn(|_| std::task::Poll::Ready(Ended::Drained));
    let future =
        egret::pipeline::relay::relay(downstream, Default::default(), upstream, &setup.limits, &counters, forced);
    let size = size_of_val(&future);
    assert!(FUTURE.contains(&size), "{size} bytes; if that is meant, say so in FUTURE");
}
