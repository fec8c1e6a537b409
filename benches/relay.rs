//! The relay on loopback: the relay has a thread of its own, client and TLS server share another.
//! Figures hold the work of all three; compare them with each other, not with a network's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use egret::config::values::{Eof, StreamLimits};
use egret::net;
use egret::pipeline::relay::{Counters, relay};
use egret::tls::handshake::{Progress, establish, handshake};
use metrics::Counter;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, server};

fn main() {
    divan::main();
}

/// Large against what the sockets hold, so that the flow is steady.
const BULK: usize = 64 << 20;

#[divan::bench(sample_count = 10)]
fn bulk_up(bencher: Bencher<'_, '_>) {
    let Lane { runtime, mut client, mut server } = Lane::new();
    let (bytes, mut sink) = (vec![7; BULK], vec![0; 1 << 20]);
    bencher.counter(BytesCount::new(BULK)).bench_local(|| {
        runtime.block_on(async { tokio::join!(client.write_all(&bytes), read(&mut server, &mut sink)) }).0.expect("up")
    });
}

#[divan::bench(sample_count = 10)]
fn bulk_down(bencher: Bencher<'_, '_>) {
    let Lane { runtime, mut client, mut server } = Lane::new();
    let (bytes, mut sink) = (vec![7; BULK], vec![0; 1 << 20]);
    bencher.counter(BytesCount::new(BULK)).bench_local(|| {
        let send = async {
            server.write_all(&bytes).await.expect("down");
            server.flush().await.expect("down");
        };
        runtime.block_on(async { tokio::join!(send, read(&mut client, &mut sink)) });
    });
}

/// A message each way.
#[divan::bench(sample_count = 50, sample_size = 200)]
fn ping_pong_64(bencher: Bencher<'_, '_>) {
    let Lane { runtime, mut client, mut server } = Lane::new();
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

async fn read(from: &mut (impl AsyncReadExt + Unpin), sink: &mut [u8]) {
    let mut left = BULK;
    while left > 0 {
        let n = from.read(sink).await.expect("bytes");
        assert!(n > 0, "the stream ended early");
        left -= n;
    }
}

/// One stream through the relay, and both of its ends.
struct Lane {
    runtime: Runtime,
    client: TcpStream,
    server: server::TlsStream<TcpStream>,
}

impl Lane {
    fn new() -> Self {
        let (client_config, server_config) = configs();
        let runtime = runtime();
        let plain = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let tls = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let (downstream, upstream) = (plain.local_addr().expect("bound"), tls.local_addr().expect("bound"));
        let plain = plain.into_std().expect("a socket");
        std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || self::runtime().block_on(serve_one(plain, upstream, client_config)))
            .expect("a thread");
        let (client, server) = runtime.block_on(async {
            let client = TcpStream::connect(downstream).await.expect("the relay's thread");
            client.set_nodelay(true).expect("an option");
            let (server, _) = tls.accept().await.expect("the relay's connection");
            server.set_nodelay(true).expect("an option");
            (client, TlsAcceptor::from(server_config).accept(server).await.expect("a handshake"))
        });
        Self { runtime, client, server }
    }
}

async fn serve_one(plain: std::net::TcpListener, upstream: SocketAddr, config: Arc<ClientConfig>) {
    let plain = TcpListener::from_std(plain).expect("a socket");
    let (downstream, _) = plain.accept().await.expect("the client");
    let mut tcp = TcpStream::connect(upstream).await.expect("the server");
    let options = net::Options::default();
    options.set(&downstream).and_then(|()| options.set(&tcp)).expect("options");
    let name = "localhost".try_into().expect("a name");
    let mut session = UnbufferedClientConnection::new(config, name).expect("a session");
    let rest = handshake(&mut tcp, &mut session, &Progress::default()).await.expect("a handshake");
    let upstream = establish(tcp, session, rest).expect("secrets");
    let hour = Duration::from_secs(3600);
    let limits = StreamLimits { idle: Some(hour), lifetime: None, half_closed: hour, eof: Eof::Strict };
    let counters = Counters { sent: Counter::noop(), received: Counter::noop(), near_key_limit: Counter::noop() };
    let downstream = net::Stream::Tcp(downstream);
    relay(downstream, bytes::Bytes::new(), upstream, &limits, &counters, std::future::pending()).await;
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_secret_extraction = true;
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key);
    (Arc::new(client), Arc::new(server.expect("key and certificate")))
}
