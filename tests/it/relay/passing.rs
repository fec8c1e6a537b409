//! What goes through untouched arrives untouched, and so do its ends.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use egret::net::{Pipe, Stream, abort_on_close};
use egret::pipeline::relay::{Ended, Outcome, pass_through};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::stage::{self, Setup, counters, read_all, read_error, read_exactly, within};
use crate::support::pattern::{Digest, Pattern};

/// A running relay with its two ends in the test's hands.
pub(crate) struct Stage<C = TcpStream> {
    pub(crate) client: C,
    pub(crate) server: TcpStream,
    pub(crate) force: oneshot::Sender<()>,
    pub(crate) relay: JoinHandle<Outcome>,
    pub(crate) counted: [Arc<AtomicU64>; 2],
}

pub(crate) async fn start(setup: Setup) -> Stage {
    let (client, downstream) = setup.sockets().await;
    over(setup, client, Stream::Tcp(downstream)).await
}

async fn over<C>(setup: Setup, client: C, downstream: Stream) -> Stage<C> {
    let (upstream, server) = setup.sockets().await;
    let (force, forced) = oneshot::channel::<()>();
    let counted = [Arc::default(), Arc::default()];
    let counters = counters(&counted);
    let relay = tokio::spawn(async move {
        let forced = async {
            if forced.await.is_err() {
                std::future::pending().await
            }
            Ended::Drained
        };
        pass_through(downstream, setup.early, upstream, &setup.limits, &counters, forced).await
    });
    Stage { client, server, force, relay, counted }
}

async fn outcome(relay: JoinHandle<Outcome>, counted: &[Arc<AtomicU64>; 2]) -> Outcome {
    stage::Stage::<()>::outcome(relay, counted).await
}

/// Sends so many bytes and ends; gives their digest.
async fn send(mut to: impl AsyncWrite + Unpin, seed: u64, bytes: u64) -> String {
    let (mut pattern, mut digest, mut piece) = (Pattern::new(seed), Digest::new(), vec![0; 100_000]);
    while digest.length < bytes {
        let n = (bytes - digest.length).min(piece.len() as u64) as usize;
        pattern.fill(&mut piece[..n]);
        digest.update(&piece[..n]);
        to.write_all(&piece[..n]).await.unwrap();
    }
    to.shutdown().await.unwrap();
    digest.hex()
}

/// The digest of everything up to a clean end.
async fn receive(mut from: impl AsyncRead + Unpin) -> String {
    let (mut digest, mut piece) = (Digest::new(), vec![0; 100_000]);
    loop {
        match from.read(&mut piece).await.unwrap() {
            0 => return digest.hex(),
            n => digest.update(&piece[..n]),
        }
    }
}

/// Both ways at once, unequal amounts.
async fn both_ways(client: impl AsyncRead + AsyncWrite, server: impl AsyncRead + AsyncWrite, up: u64, down: u64) {
    let ((client_reads, client_writes), (server_reads, server_writes)) = (split(client), split(server));
    let transfers = async {
        tokio::join!(
            send(client_writes, 1, up),
            receive(server_reads),
            send(server_writes, 2, down),
            receive(client_reads)
        )
    };
    let (sent, got, answered, read) = within(transfers).await;
    assert_eq!((sent, answered), (got, read));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_arrives_both_ways_at_once_bit_by_bit() {
    const UP: u64 = 192 << 20;
    const DOWN: u64 = (64 << 20) + 1;
    let Stage { client, server, relay, counted, .. } = start(Setup::new()).await;
    both_ways(client, server, UP, DOWN).await;
    let outcome = outcome(relay, &counted).await;
    assert_eq!((outcome.ended, outcome.sent, outcome.received), (Ended::Finished, UP, DOWN));
    assert!(outcome.first_byte.is_some());
}

#[tokio::test]
async fn a_unix_socket_is_served_as_well() {
    let (client, downstream) = UnixStream::pair().unwrap();
    let Stage { client, server, relay, counted, .. } = over(Setup::new(), client, Stream::Unix(downstream)).await;
    both_ways(client, server, 5_000_000, 9_000_000).await;
    assert_eq!(outcome(relay, &counted).await.ended, Ended::Finished);
}

#[tokio::test]
async fn without_a_pipe_bytes_are_copied() {
    let all: Vec<Pipe> = std::iter::from_fn(Pipe::take).collect();
    assert!(all.len() > 8);
    let Stage { client, server, relay, counted, .. } = start(Setup::new()).await;
    both_ways(client, server, 20_000_000, 20_000_000).await;
    assert_eq!(outcome(relay, &counted).await.ended, Ended::Finished);
    drop(all);
}

#[tokio::test]
async fn small_messages_go_at_once_and_early_bytes_go_first() {
    let early = Bytes::from_static(b"read before");
    let Stage { mut client, mut server, relay, counted, .. } = start(Setup { early, ..Setup::new() }).await;
    assert_eq!(read_exactly(&mut server, 11).await, b"read before");
    for message in 0..100_u32 {
        client.write_all(&message.to_be_bytes()).await.unwrap();
        assert_eq!(read_exactly(&mut server, 4).await, message.to_be_bytes());
        server.write_all(b"yes").await.unwrap();
        assert_eq!(read_exactly(&mut client, 3).await, b"yes");
    }
    drop(client);
    assert_eq!(read_all(&mut server).await, b"");
    drop(server);
    let outcome = outcome(relay, &counted).await;
    assert_eq!((outcome.ended, outcome.sent, outcome.received), (Ended::Finished, 411, 300));
}

#[tokio::test]
async fn either_side_may_end_and_still_receive() {
    for client_first in [true, false] {
        let Stage { client, server, relay, counted, .. } = start(Setup::new()).await;
        let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };
        first.write_all(b"all I have").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(read_all(&mut second).await, b"all I have");
        // More than a buffer, so that the direction that is left goes through a pipe.
        let rest = vec![7; 1_000_000];
        let (written, read) = tokio::join!(second.write_all(&rest), read_exactly(&mut first, rest.len()));
        written.unwrap();
        assert_eq!(read, rest);
        second.shutdown().await.unwrap();
        assert_eq!(read_all(&mut first).await, b"");
        assert_eq!(outcome(relay, &counted).await.ended, Ended::Finished);
    }
}

#[tokio::test]
async fn a_reset_of_either_side_reaches_the_other_after_what_came_before() {
    for client_resets in [true, false] {
        let Stage { client, server, relay, counted, .. } = start(Setup::new()).await;
        let (mut one, mut other) = if client_resets { (client, server) } else { (server, client) };
        one.write_all(b"the last words").await.unwrap();
        assert_eq!(read_exactly(&mut other, 14).await, b"the last words");
        abort_on_close(&one);
        drop(one);
        assert_eq!(read_error(&mut other).await, ErrorKind::ConnectionReset);
        let wanted = if client_resets { Ended::DownstreamReset } else { Ended::UpstreamReset };
        assert_eq!(outcome(relay, &counted).await.ended, wanted);
    }
}

#[tokio::test]
async fn an_answer_of_a_server_that_takes_no_more_is_read_to_its_end() {
    let Stage { mut client, mut server, relay, counted, .. } = start(Setup::new()).await;
    server.write_all(&vec![b'n'; 100_000]).await.unwrap();
    server.shutdown().await.unwrap();
    // Unread bytes make a reset of the close.
    client.write_all(b"not wanted").await.unwrap();
    server.readable().await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    let end = within(client.read_to_end(&mut answer)).await;
    drop(client);
    let outcome = outcome(relay, &counted).await;
    // The server's reset may overtake its own answer; what the relay got, the client gets.
    assert_eq!(outcome.received, answer.len() as u64, "{end:?} {outcome:?}");
}

#[tokio::test]
async fn limits_and_force_reset_both_sides() {
    let limit = Duration::from_millis(100);
    let mut idle = Setup::new();
    idle.limits.idle = Some(limit);
    let mut life = Setup::new();
    life.limits.lifetime = Some(limit);
    for (setup, wanted) in [(idle, Ended::Idle), (life, Ended::Lifetime), (Setup::new(), Ended::Drained)] {
        let Stage { mut client, mut server, force, relay, counted } = start(setup).await;
        // A sender that is dropped does not force.
        if wanted == Ended::Drained {
            force.send(()).unwrap();
        }
        assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
        assert_eq!(read_error(&mut server).await, ErrorKind::ConnectionReset);
        assert_eq!(outcome(relay, &counted).await.ended, wanted);
    }
}

#[tokio::test]
async fn a_half_closed_stream_that_rests_is_ended() {
    let mut setup = Setup::new();
    setup.limits.half_closed = Duration::from_millis(100);
    let Stage { client: _client, mut server, relay, counted, .. } = start(setup).await;
    server.shutdown().await.unwrap();
    assert_eq!(outcome(relay, &counted).await.ended, Ended::HalfClosed);
}

#[tokio::test]
async fn a_dropped_relay_resets_both_sides() {
    let Stage { mut client, mut server, relay, .. } = start(Setup::new()).await;
    client.write_all(b"begun").await.unwrap();
    assert_eq!(read_exactly(&mut server, 5).await, b"begun");
    relay.abort();
    assert_eq!(read_error(&mut client).await, ErrorKind::ConnectionReset);
    assert_eq!(read_error(&mut server).await, ErrorKind::ConnectionReset);
}

/// What the system may hold between two ends that were asked for small buffers, and a grown pipe.
const HELD: u64 = 2 << 20;

#[tokio::test]
async fn a_slow_reader_slows_the_writer_and_nothing_piles_up() {
    let setup = Setup { small_sockets: true, ..Setup::new() };
    let Stage { mut client, mut server, relay, counted, .. } = start(setup).await;
    let piece = [7; 16384];
    let mut accepted = 0;
    while let Ok(n) = tokio::time::timeout(Duration::from_millis(300), client.write(&piece)).await {
        accepted += n.unwrap() as u64;
        assert!(accepted < HELD, "{accepted} bytes were taken that nobody reads");
    }
    client.shutdown().await.unwrap();
    let mut got = 0;
    loop {
        match within(server.read(&mut [0; 65536])).await.unwrap() {
            0 => break,
            n => got += n as u64,
        }
    }
    assert_eq!(got, accepted);
    drop(server);
    assert_eq!(outcome(relay, &counted).await.sent, accepted);
}

/// Bytes of the future of one stream: two sockets, two directions, one timer.
const FUTURE: std::ops::RangeInclusive<usize> = 750..=850;

#[tokio::test]
async fn future_of_a_stream_keeps_its_size() {
    let setup = Setup::new();
    let ((_client, downstream), (upstream, _server)) = (setup.sockets().await, setup.sockets().await);
    let (counters, downstream) = (counters(&[Arc::default(), Arc::default()]), Stream::Tcp(downstream));
    let future =
        pass_through(downstream, Bytes::new(), upstream, &setup.limits, &counters, std::future::ready(Ended::Drained));
    let size = size_of_val(&future);
    assert!(FUTURE.contains(&size), "{size} bytes; if that is meant, say so in FUTURE");
}
