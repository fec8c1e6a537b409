//! A client, the relay and a TLS server, over real sockets of loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use egret::config::values::{Eof, StreamLimits};
use egret::net;
use egret::pipeline::relay::{Counters, Ended, Outcome, relay};
use egret::tls::handshake::{Established, Progress, establish, handshake};
use metrics::Counter;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, server};

/// How the relay under test is set up; `start` gives the stage.
pub(crate) struct Setup {
    pub(crate) limits: StreamLimits,
    pub(crate) early: Bytes,
    pub(crate) version: &'static SupportedProtocolVersion,
    /// Sockets that hold little, for tests of back-pressure.
    pub(crate) small_sockets: bool,
}

/// A running relay with its two ends in the test's hands.
pub(crate) struct Stage<C = TcpStream> {
    pub(crate) client: C,
    pub(crate) server: server::TlsStream<TcpStream>,
    pub(crate) force: oneshot::Sender<()>,
    pub(crate) relay: JoinHandle<Outcome>,
    /// What the metrics say: sent, received.
    pub(crate) counted: [Arc<AtomicU64>; 2],
}

type Running = (JoinHandle<Outcome>, oneshot::Sender<()>, [Arc<AtomicU64>; 2]);

/// What the socket of a test that wants small ones is asked to hold; Linux doubles it.
pub(crate) const SMALL_SOCKET: usize = 32 * 1024;

impl Setup {
    pub(crate) fn new() -> Self {
        let limits =
            StreamLimits { idle: None, lifetime: None, half_closed: Duration::from_secs(60), eof: Eof::Strict };
        Self { limits, early: Bytes::new(), version: &rustls::version::TLS13, small_sockets: false }
    }

    pub(crate) async fn start(self) -> Stage {
        let (client, downstream) = self.sockets().await;
        self.over(client, net::Stream::Tcp(downstream)).await
    }

    pub(crate) async fn start_unix(self) -> Stage<UnixStream> {
        let (client, downstream) = UnixStream::pair().unwrap();
        self.over(client, net::Stream::Unix(downstream)).await
    }

    /// As `start`, with the client's last flight of the handshake still unsent.
    pub(crate) async fn start_with_flight(self) -> Stage {
        let (client, downstream) = self.sockets().await;
        let (mut near, far) = self.sockets().await;
        let (client_config, server_config) = configs(self.version);
        let accepted = tokio::spawn(TlsAcceptor::from(server_config).accept(far));
        let mut session = UnbufferedClientConnection::new(client_config, "localhost".try_into().unwrap()).unwrap();
        let rest = handshake(&mut near, &mut session, &Progress::default()).await.unwrap();
        let upstream = establish(near, session, rest).unwrap();
        assert_eq!(upstream.unsent.is_empty(), self.version.version == rustls::ProtocolVersion::TLSv1_2);
        let (relay, force, counted) = self.relay(net::Stream::Tcp(downstream), upstream);
        Stage { client, server: accepted.await.unwrap().unwrap(), force, relay, counted }
    }

    async fn over<C>(self, client: C, downstream: net::Stream) -> Stage<C> {
        let (upstream, server) = self.tls().await;
        let (relay, force, counted) = self.relay(downstream, upstream);
        Stage { client, server, force, relay, counted }
    }

    fn relay(self, downstream: net::Stream, upstream: Established) -> Running {
        let (force, forced) = oneshot::channel();
        let counted = [Arc::default(), Arc::default()];
        let counters = counters(&counted);
        let Self { limits, early, .. } = self;
        let relay = tokio::spawn(async move {
            let forced = async {
                // A sender that is dropped must not end the stream.
                if forced.await.is_err() {
                    std::future::pending().await
                }
                Ended::Drained
            };
            relay(downstream, early, upstream, &limits, &counters, forced).await
        });
        (relay, force, counted)
    }

    /// Both ends of a finished handshake.
    pub(crate) async fn tls(&self) -> (Established, server::TlsStream<TcpStream>) {
        let (mut near, far) = self.sockets().await;
        let (client_config, server_config) = configs(self.version);
        let connect = async {
            let mut session = UnbufferedClientConnection::new(client_config, "localhost".try_into().unwrap()).unwrap();
            let mut rest = handshake(&mut near, &mut session, &Progress::default()).await.unwrap();
            rest.flush(&mut near).await.unwrap();
            establish(near, session, rest).unwrap()
        };
        let (upstream, server) = tokio::join!(connect, TlsAcceptor::from(server_config).accept(far));
        (upstream, server.unwrap())
    }

    /// Both ends of a TCP connection: the one that connected, the one that was accepted.
    pub(crate) async fn sockets(&self) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let pair = (connected.unwrap(), accepted.unwrap().0);
        for socket in [&pair.0, &pair.1] {
            net::Options::default().set(socket).unwrap();
            if self.small_sockets {
                let socket = socket2::SockRef::from(socket);
                socket.set_send_buffer_size(SMALL_SOCKET).unwrap();
                socket.set_recv_buffer_size(SMALL_SOCKET).unwrap();
            }
        }
        pair
    }
}

impl<C> Stage<C> {
    /// How the stream ended, once it has; the metrics must say the same as the outcome.
    pub(crate) async fn outcome(relay: JoinHandle<Outcome>, counted: &[Arc<AtomicU64>; 2]) -> Outcome {
        let outcome = within(relay).await.unwrap();
        let counted = counted.each_ref().map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counted, [outcome.sent, outcome.received]);
        outcome
    }
}

pub(crate) fn counters(counted: &[Arc<AtomicU64>; 2]) -> Counters {
    let [sent, received] = counted.each_ref().map(|count| Counter::from_arc(Arc::clone(count)));
    Counters { sent, received, near_key_limit: Counter::noop() }
}

fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_protocol_versions(&[version]);
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.enable_secret_extraction = true;
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let server = ServerConfig::builder_with_protocol_versions(&[version]).with_no_client_auth();
    let mut server = server.with_single_cert(vec![cert.der().clone()], key).unwrap();
    server.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Waits until the metrics have counted so many bytes.
pub(crate) async fn counted_to(counted: &AtomicU64, bytes: usize) {
    let reached = async {
        while counted.load(Ordering::Relaxed) < bytes as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(reached).await;
}

pub(crate) static CHUNK: [u8; 16384] = [7; 16384];

/// Writes until nothing was accepted for a while; yields how much was.
pub(crate) async fn fill(to: &mut (impl AsyncWrite + Unpin), most: usize) -> usize {
    let mut accepted = 0;
    while accepted < most {
        match tokio::time::timeout(Duration::from_millis(500), to.write(&CHUNK)).await {
            Ok(n) => accepted += n.unwrap(),
            Err(_) => return accepted,
        }
    }
    accepted
}

/// The test's patience; far above what anything here takes.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute")
}

/// Exactly `n` bytes.
pub(crate) async fn read_exactly(from: &mut (impl AsyncRead + Unpin), n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    within(from.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// Everything up to a clean end.
pub(crate) async fn read_all(from: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(from.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

/// The error that the next read meets; anything else is a failure.
pub(crate) async fn read_error(from: &mut (impl AsyncRead + Unpin)) -> std::io::ErrorKind {
    within(from.read(&mut [0; 16])).await.expect_err("an error, not bytes or an end").kind()
}

/// Lets rustls speak to the socket until it has nothing more to write.
pub(crate) async fn send_all(tcp: &mut TcpStream, session: &mut ServerConnection) {
    let mut records = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut records).unwrap();
    }
    tcp.write_all(&records).await.unwrap();
}
