//! Several TLS servers in this process, each of which can be made to misbehave or to go away, and counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, SockRef, Socket, Type};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::authority::{Ca, Wish};
use super::{PATIENCE, free_port};

/// The name in the servers' certificate.
pub(crate) const HOST: &str = "fleet.example.com";

/// What makes the servers alike: certificate and authority.
pub(crate) struct Fleet {
    folder: TempDir,
    config: Arc<ServerConfig>,
}

/// One server.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    config: Arc<ServerConfig>,
    counts: Arc<Counts>,
    running: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    answered: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
    /// Connections that the server had when it was killed.
    cut: AtomicUsize,
    /// Connections on which a client spoke after the server had ended them.
    stale: AtomicUsize,
}

/// What a server does with a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers `ping` with its port.
    Answers,
    /// The same, but ends it when nothing was said for so long.
    Idles(Duration),
    /// Resets it.
    Resets,
    /// Says nothing.
    Stalls,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let ca = Ca::new("Fleet");
        std::fs::write(folder.path().join("root.pem"), &ca.pem).unwrap();
        let leaf = ca.leaf(&Wish { cn: "fleet", names: &[HOST], ..Wish::default() });
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(leaf.chain.clone(), leaf.key_der()).unwrap();
        Self { folder, config: Arc::new(config) }
    }

    /// The sections of an upstream called `fleet`; `lines` are its keys, `servers` among them.
    pub(crate) fn upstream(&self, lines: &str) -> String {
        let root: PathBuf = self.folder.path().join("root.pem");
        format!(
            "[trust.fleet]\nroots = [{root:?}]\n[upstreams.fleet]\n{lines}\n\
             tls = {{ trust = \"fleet\", server_name = \"{HOST}\" }}\n"
        )
    }

    /// A server that does not run yet.
    pub(crate) fn node(&self, address: SocketAddr) -> Node {
        Node { address, config: Arc::clone(&self.config), counts: Arc::default(), running: Mutex::new(None) }
    }

    /// So many servers that answer, each on a port of its own.
    pub(crate) async fn nodes(&self, number: usize) -> Vec<Node> {
        let nodes: Vec<_> =
            (0..number).map(|_| self.node(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())))).collect();
        for node in &nodes {
            node.start(Manner::Answers).await;
        }
        nodes
    }
}

impl Node {
    /// Listens, and does this with every connection.
    pub(crate) async fn start(&self, manner: Manner) {
        let listener = listen(self.address).await;
        let (config, counts) = (Arc::clone(&self.config), Arc::clone(&self.counts));
        *self.running.lock().unwrap() = Some(tokio::spawn(serve(listener, config, counts, manner)));
    }

    /// Listens no more, and cuts every connection.
    pub(crate) async fn kill(&self) {
        let running = self.running.lock().unwrap().take().expect("it runs");
        running.abort();
        let _ = running.await;
        self.counts.cut.fetch_add(self.counts.open.load(Ordering::SeqCst), Ordering::SeqCst);
        while self.counts.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn answered(&self) -> usize {
        self.counts.answered.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// The most that it ever had at once.
    pub(crate) fn most(&self) -> usize {
        self.counts.most.load(Ordering::SeqCst)
    }

    /// Connections that were cut when it was killed, over all times.
    pub(crate) fn cut(&self) -> usize {
        self.counts.cut.load(Ordering::SeqCst)
    }

    /// Connections on which a client spoke after the server had ended them.
    pub(crate) fn stale(&self) -> usize {
        self.counts.stale.load(Ordering::SeqCst)
    }
}

/// A server that was killed may have left connections behind that keep its address for a moment.
async fn listen(address: SocketAddr) -> TcpListener {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        if socket.bind(address).is_ok() {
            return socket.listen(1024).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn serve(listener: TcpListener, config: Arc<ServerConfig>, counts: Arc<Counts>, manner: Manner) {
    let acceptor = TlsAcceptor::from(config);
    let mut connections = JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        counts.accepted.fetch_add(1, Ordering::SeqCst);
        let open = Open::new(&counts);
        let (acceptor, port) = (acceptor.clone(), listener.local_addr().unwrap().port());
        connections.spawn(async move {
            let _open = open;
            match manner {
                Manner::Answers => drop(answer(tcp, acceptor, port, PATIENCE, &_open.0).await),
                Manner::Idles(idle) => drop(answer(tcp, acceptor, port, idle, &_open.0).await),
                Manner::Resets => SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap(),
                Manner::Stalls => drop(timeout(PATIENCE, hold(tcp)).await),
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

struct Open(Arc<Counts>);

impl Open {
    fn new(counts: &Arc<Counts>) -> Self {
        let open = counts.open.fetch_add(1, Ordering::SeqCst) + 1;
        counts.most.fetch_max(open, Ordering::SeqCst);
        Self(Arc::clone(counts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    port: u16,
    idle: Duration,
    counts: &Counts,
) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut tls = timeout(PATIENCE, acceptor.accept(tcp)).await??;
    let mut ping = [0; 4];
    // Streams that are held open are pinged as often as their client likes.
    loop {
        match timeout(idle, tls.read_exact(&mut ping)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return tls.shutdown().await,
            Err(_) => break,
        }
        counts.answered.fetch_add(1, Ordering::SeqCst);
        tls.write_all(format!("{port:05}").as_bytes()).await?;
        tls.flush().await?;
    }
    tls.shutdown().await?;
    if timeout(PATIENCE, tls.read(&mut ping)).await?? > 0 {
        counts.stale.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

async fn hold(mut tcp: TcpStream) {
    let mut bytes = [0; 1024];
    while tcp.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

/// An address that swallows connection attempts: a listener whose backlog is full.
pub(crate) struct BlackHole {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _backlog: Vec<Socket>,
}

impl BlackHole {
    pub(crate) fn new() -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&any_port.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let backlog = (0..4).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            // Time for the handshake on loopback, so that the queue is filled in order.
            std::thread::sleep(Duration::from_millis(20));
            socket
        });
        Self { address, _backlog: backlog.collect(), _listener: listener }
    }
}

/// A stream to egret that is held open.
pub(crate) struct Held(TcpStream);

impl Held {
    /// Connects; the stream stands once a ping was answered.
    pub(crate) async fn open(egret: SocketAddr) -> std::io::Result<(Self, u16)> {
        let mut held = Self(TcpStream::connect(egret).await?);
        let port = held.ping().await?;
        Ok((held, port))
    }

    /// The port of the server that answers.
    pub(crate) async fn ping(&mut self) -> std::io::Result<u16> {
        let asked = async {
            self.0.write_all(b"ping").await?;
            let mut port = [0; 5];
            self.0.read_exact(&mut port).await?;
            Ok(std::str::from_utf8(&port).unwrap().parse().unwrap())
        };
        timeout(PATIENCE, asked).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    }
}

/// One short stream: a request, its answer, the end. The port of the server that answered.
pub(crate) async fn ask(egret: SocketAddr) -> std::io::Result<u16> {
    let (mut held, port) = Held::open(egret).await?;
    held.0.shutdown().await?;
    let mut rest = Vec::new();
    // The answer has come; how the end comes is another promise's affair.
    let _ = timeout(PATIENCE, held.0.read_to_end(&mut rest)).await;
    Ok(port)
}

/// So many short streams by so many clients at once. The ports that answered, and what failed.
pub(crate) async fn ask_many(egret: SocketAddr, streams: usize, clients: usize) -> (Vec<u16>, Vec<String>) {
    let left = Arc::new(AtomicUsize::new(streams));
    let mut asking = JoinSet::new();
    for _ in 0..clients {
        let left = Arc::clone(&left);
        asking.spawn(async move {
            let (mut ports, mut failed) = (Vec::new(), Vec::new());
            while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                match ask(egret).await {
                    Ok(port) => ports.push(port),
                    Err(error) => failed.push(error.to_string()),
                }
            }
            (ports, failed)
        });
    }
    let (mut ports, mut failed) = (Vec::new(), Vec::new());
    while let Some(done) = asking.join_next().await {
        let (some_ports, some_failed) = done.unwrap();
        ports.extend(some_ports);
        failed.extend(some_failed);
    }
    (ports, failed)
}
