//! A handshake over loopback with a rustls server that asks for a certificate. Figures hold the work of both ends
//! and the way between them: compare them with each other.

mod stage;

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use divan::Bencher;
use egret::config::values::{Eof, KeyExchange, Name, StreamLimits, TlsVersion, Upstream};
use egret::credentials::identity::Identity;
use egret::credentials::trust::Trust;
use egret::net;
use egret::pipeline::originate::handshake::{Negotiated, handshake};
use egret::pipeline::originate::origin::resumption::Resumption;
use egret::pipeline::originate::origin::{Origin, OriginKey};
use egret::pipeline::relay::{Counters, relay};
use egret::tls::handshake::Established;
use metrics::Counter;
use rustls::ServerConfig;
use stage::credentials::{Credentials, NAME};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

fn main() {
    divan::main();
}

/// Version and group.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tls12X25519,
    Tls13X25519,
    Tls13Hybrid,
}

const KINDS: [Kind; 3] = [Kind::Tls12X25519, Kind::Tls13X25519, Kind::Tls13Hybrid];

#[divan::bench(args = KINDS, sample_count = 300, sample_size = 1)]
fn full(bencher: Bencher<'_, '_>, kind: Kind) {
    measure(bencher, kind, Resumption::Off);
}

#[divan::bench(args = KINDS, sample_count = 300, sample_size = 1)]
fn resumed(bencher: Bencher<'_, '_>, kind: Kind) {
    measure(bencher, kind, Resumption::Resumed);
}

/// Connecting, and reading what follows a handshake, is not in the figure.
fn measure(bencher: Bencher<'_, '_>, kind: Kind, expected: Resumption) {
    let lane = Lane::new(kind, expected == Resumption::Resumed);
    lane.shake(lane.connect());
    bencher.with_inputs(|| lane.connect()).bench_local_values(|tcp| {
        let negotiated = lane.shake(tcp);
        assert_eq!(negotiated.resumed, expected);
    });
}

/// An origin and its server.
struct Lane {
    runtime: Runtime,
    server: SocketAddr,
    origin: Origin,
    /// The last stream that stands; its last flight is unsent, and its tickets are still to be read.
    last: RefCell<Option<Established>>,
}

impl Lane {
    fn new(kind: Kind, resumption: bool) -> Self {
        let credentials = Credentials::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = listener.local_addr().expect("bound");
        let config = credentials.server(2); // rustls' default
        std::thread::spawn(move || runtime().block_on(serve(listener, config)));
        let origin = origin(&credentials, kind, resumption);
        Self { runtime: runtime(), server, origin, last: RefCell::default() }
    }

    fn connect(&self) -> TcpStream {
        if let Some(last) = self.last.take() {
            self.runtime.block_on(read_one(last));
        }
        let tcp = self.runtime.block_on(TcpStream::connect(self.server)).expect("the server");
        net::Options::default().set(&tcp).expect("options");
        tcp
    }

    fn shake(&self, tcp: TcpStream) -> Negotiated {
        let done = self.runtime.block_on(handshake(tcp, self.server, &self.origin));
        let (stream, negotiated) = done.expect("a handshake");
        self.last.replace(Some(stream));
        negotiated
    }
}

/// Reads one byte of the server, and with it whatever TLS says before it.
async fn read_one(upstream: Established) {
    let (mut near, far) = UnixStream::pair().expect("a pair");
    let hour = Duration::from_secs(3600);
    let limits = StreamLimits { idle: None, lifetime: None, half_closed: hour, eof: Eof::Strict };
    let counters = Counters { sent: Counter::noop(), received: Counter::noop(), near_key_limit: Counter::noop() };
    let relay = relay(net::Stream::Unix(far), Bytes::new(), upstream, &limits, &counters, std::future::pending());
    tokio::select! {
        byte = near.read_u8() => drop(byte.expect("the server's byte")),
        outcome = relay => panic!("{outcome:?}"),
    }
}

async fn serve(listener: TcpListener, config: Arc<ServerConfig>) {
    listener.set_nonblocking(true).expect("an option");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    let acceptor = TlsAcceptor::from(config);
    while let Ok((tcp, _)) = listener.accept().await {
        tcp.set_nodelay(true).expect("an option");
        let mut tls = acceptor.accept(tcp).await.expect("a handshake");
        // The client of the last handshake is gone by now.
        let _ = tls.write_u8(7).await;
        let _ = tls.flush().await;
        let _ = tls.read(&mut [0]).await;
    }
}

fn origin(credentials: &Credentials, kind: Kind, resumption: bool) -> Origin {
    let config = credentials.config(1);
    let name = Name::new("bench");
    let identity = config.identities.values().next().expect("it is configured");
    let identity = Arc::new(Identity::load(identity).expect("an identity"));
    let trust = config.trusts.values().next().expect("it is configured");
    let trust = Arc::new(Trust::load(&name, trust).expect("a trust"));
    let mut upstream: Upstream = config.upstreams.into_values().next().expect("it is configured");
    upstream.tls.settings.resumption = resumption;
    let (version, group) = match kind {
        Kind::Tls12X25519 => (TlsVersion::V1_2, vec![KeyExchange::X25519, KeyExchange::Secp256r1]),
        Kind::Tls13X25519 => (TlsVersion::V1_3, vec![KeyExchange::X25519]),
        Kind::Tls13Hybrid => (TlsVersion::V1_3, vec![KeyExchange::X25519Mlkem768]),
    };
    let tls = &mut upstream.tls.settings;
    tls.min_version = version;
    tls.max_version = version;
    tls.key_exchange = group;
    let key = OriginKey::new(&upstream, &NAME.try_into().expect("a name"), Some(&identity), &trust);
    Origin::new(key, Some(identity), trust).expect("an origin")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
