//! Untouched bytes on loopback, with and without pipes, beside tokio's plain copy. The relay has a thread of its own,
//! client and server share another. Figures hold the work of all three; compare them with each other.

use std::time::Duration;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use egret::config::values::{Eof, StreamLimits};
use egret::net::{self, Pipe};
use egret::pipeline::relay::{Counters, pass_through};
use metrics::Counter;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

/// Large against what the sockets hold, so that the flow is steady.
const BULK: usize = 256 << 20;

/// What moves the bytes.
#[derive(Clone, Copy, Debug)]
enum How {
    /// Through pipes.
    Spliced,
    /// As when no pipe is to be had.
    Copied,
    /// 64 KiB buffers of tokio's.
    Tokio,
}

const ALL: [How; 3] = [How::Spliced, How::Copied, How::Tokio];

#[divan::bench(args = ALL, sample_count = 10)]
fn bulk(bencher: Bencher<'_, '_>, how: How) {
    let Lane { runtime, mut client, mut server } = Lane::new(how);
    let (bytes, mut sink) = (vec![7; 1 << 20], vec![0; 1 << 20]);
    bencher.counter(BytesCount::new(BULK)).bench_local(|| {
        let write = async {
            for _ in 0..BULK / bytes.len() {
                client.write_all(&bytes).await.expect("up");
            }
        };
        let read = async {
            let mut left = BULK;
            while left > 0 {
                left -= server.read(&mut sink).await.expect("bytes");
            }
        };
        runtime.block_on(async { tokio::join!(write, read) });
    });
}

/// A message each way.
#[divan::bench(args = ALL, sample_count = 50, sample_size = 200)]
fn ping_pong_64(bencher: Bencher<'_, '_>, how: How) {
    let Lane { runtime, mut client, mut server } = Lane::new(how);
    let mut message = [7; 64];
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        runtime.block_on(async {
            client.write_all(&message).await.expect("ping");
            server.read_exact(&mut message).await.expect("ping");
            server.write_all(&message).await.expect("pong");
            client.read_exact(&mut message).await.expect("pong");
        });
    });
}

/// One stream through the relay, and both of its ends.
struct Lane {
    runtime: Runtime,
    client: TcpStream,
    server: TcpStream,
}

impl Lane {
    fn new(how: How) -> Self {
        let runtime = runtime();
        let (near, far) = runtime.block_on(async {
            (
                TcpListener::bind("127.0.0.1:0").await.expect("a port"),
                TcpListener::bind("127.0.0.1:0").await.expect("a port"),
            )
        });
        let (downstream, upstream) = (near.local_addr().expect("bound"), far.local_addr().expect("bound"));
        let near = near.into_std().expect("a socket");
        std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || {
                self::runtime().block_on(async {
                    let near = TcpListener::from_std(near).expect("a socket");
                    let (downstream, _) = near.accept().await.expect("the client");
                    let upstream = TcpStream::connect(upstream).await.expect("the server");
                    downstream.set_nodelay(true).and_then(|()| upstream.set_nodelay(true)).expect("options");
                    serve(how, downstream, upstream).await;
                });
            })
            .expect("a thread");
        let (client, server) = runtime.block_on(async {
            let client = TcpStream::connect(downstream).await.expect("the relay's thread");
            let (server, _) = far.accept().await.expect("the relay's connection");
            (client, server)
        });
        client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).expect("options");
        Self { runtime, client, server }
    }
}

async fn serve(how: How, mut downstream: TcpStream, mut upstream: TcpStream) {
    if let How::Tokio = how {
        drop(copy_bidirectional_with_sizes(&mut downstream, &mut upstream, 64 << 10, 64 << 10).await);
        return;
    }
    // With all pipes taken, it has to copy.
    let _all: Vec<Pipe> = match how {
        How::Copied => std::iter::from_fn(Pipe::take).collect(),
        _ => Vec::new(),
    };
    let hour = Duration::from_secs(3600);
    let limits = StreamLimits { idle: Some(hour), lifetime: None, half_closed: hour, eof: Eof::Strict };
    let counters = Counters { sent: Counter::noop(), received: Counter::noop(), near_key_limit: Counter::noop() };
    let (downstream, forced) = (net::Stream::Tcp(downstream), std::future::pending());
    pass_through(downstream, bytes::Bytes::new(), upstream, &limits, &counters, forced).await;
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
