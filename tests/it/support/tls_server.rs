//! A TLS server that tells what it saw: SNI, whether the session was resumed, whose certificate came, which
//! alert ended a handshake. It answers each connection with one line and keeps what failed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{Ca, Leaf};

/// The versions that a server may speak alone.
pub const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// How the server behaves; the default speaks both versions and asks for no certificate.
pub struct Setup<'a> {
    pub versions: &'static [&'static SupportedProtocolVersion],
    pub clients: Clients<'a>,
    pub alpn: &'a [&'a str],
    /// Doors: ports of the same server. It marks a session with the door at which it was made.
    pub doors: usize,
    /// Remember sessions. Each is good for one handshake.
    pub sessions: bool,
    /// So many sessions are given to each TLS 1.3 client.
    pub tickets: usize,
}

pub enum Clients<'a> {
    NotAsked,
    Optional(&'a Ca),
    Required(&'a Ca),
}

impl Default for Setup<'_> {
    fn default() -> Self {
        let (versions, clients) = (rustls::ALL_VERSIONS, Clients::NotAsked);
        Self { versions, clients, alpn: &[], doors: 1, sessions: true, tickets: 4 }
    }
}

pub struct TlsServer {
    pub doors: Vec<SocketAddr>,
    failures: Arc<Mutex<Vec<rustls::Error>>>,
    _tasks: JoinSet<()>,
}

/// What the server says of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub resumed: bool,
    /// The door at which the resumed session was made.
    pub made_at: Option<usize>,
    pub client: Option<String>,
    pub sni: Option<String>,
}

impl TlsServer {
    pub async fn start(leaf: &Leaf, setup: Setup<'_>) -> Self {
        let config = config(leaf, &setup);
        let failures = Arc::<Mutex<Vec<_>>>::default();
        let (mut doors, mut tasks) = (Vec::new(), JoinSet::new());
        for door in 0..setup.doors {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            doors.push(listener.local_addr().unwrap());
            let (config, failures) = (config.clone(), Arc::clone(&failures));
            tasks.spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    let (config, failures) = (config.clone(), Arc::clone(&failures));
                    tokio::spawn(async move {
                        if let Err(error) = serve(tcp, config, door).await
                            && let Some(error) = error.get_ref().and_then(|error| error.downcast_ref())
                        {
                            failures.lock().unwrap().push(rustls::Error::clone(error));
                        }
                    });
                }
            });
        }
        Self { doors, failures, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.doors[0]
    }

    /// The first failure of a handshake, as the server saw it.
    pub async fn failure(&self) -> rustls::Error {
        for _ in 0..500 {
            if let Some(error) = self.failures.lock().unwrap().pop() {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no handshake failed");
    }
}

impl Seen {
    /// Reads the server's line to its end, and with it the tickets before it.
    pub async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Self> {
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let field = |name: &str| {
            let value = text.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("{name} in {text:?}")).to_owned()
        };
        let some = |value: String| (value != "-").then_some(value);
        Ok(Self {
            resumed: field("resumed") == "true",
            made_at: some(field("made_at")).map(|door| door.parse().unwrap()),
            client: some(field("client")),
            sni: some(field("sni")),
        })
    }
}

fn config(leaf: &Leaf, setup: &Setup<'_>) -> ServerConfig {
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&leaf.key_der()).unwrap();
    // Not the builder's method for one certificate: it would refuse X.509 v1.
    let own = Arc::new(SingleCertAndKey::from(CertifiedKey::new(leaf.chain.clone(), key)));
    let builder = ServerConfig::builder_with_protocol_versions(setup.versions);
    let roots = |ca: &Ca| {
        let mut roots = RootCertStore::empty();
        let pem = egret::credentials::pem::sections(ca.pem.as_bytes()).unwrap();
        roots.add(pem[0].body.expose().to_vec().into()).unwrap();
        WebPkiClientVerifier::builder(Arc::new(roots))
    };
    let builder = match setup.clients {
        Clients::NotAsked => builder.with_no_client_auth(),
        Clients::Optional(ca) => builder.with_client_cert_verifier(roots(ca).allow_unauthenticated().build().unwrap()),
        Clients::Required(ca) => builder.with_client_cert_verifier(roots(ca).build().unwrap()),
    };
    let mut config = builder.with_cert_resolver(own);
    config.alpn_protocols = setup.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.send_tls13_tickets = setup.tickets;
    config.session_storage =
        if setup.sessions { ServerSessionMemoryCache::new(65_536) } else { Arc::new(NoServerSessionStorage {}) };
    config
}

/// The server's sessions, as one connection sees them: it marks those that it makes with its door, and
/// notes the mark of the one that it finds.
#[derive(Debug)]
struct Marked {
    sessions: Arc<dyn StoresServerSessions>,
    door: u8,
    found: Mutex<Option<u8>>,
}

impl Marked {
    fn read(&self, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut value = value?;
        *self.found.lock().unwrap() = value.pop();
        Some(value)
    }
}

impl StoresServerSessions for Marked {
    fn put(&self, key: Vec<u8>, mut value: Vec<u8>) -> bool {
        value.push(self.door);
        self.sessions.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.read(self.sessions.get(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.read(self.sessions.take(key))
    }

    fn can_cache(&self) -> bool {
        self.sessions.can_cache()
    }
}

async fn serve(tcp: TcpStream, mut config: ServerConfig, door: usize) -> std::io::Result<()> {
    let sessions = Arc::clone(&config.session_storage);
    let marked = Arc::new(Marked { sessions, door: door as u8, found: Mutex::default() });
    config.session_storage = Arc::clone(&marked) as _;
    let start = LazyConfigAcceptor::new(Default::default(), tcp).await?;
    let sni = start.client_hello().server_name().map(str::to_owned);
    let mut tls = start.into_stream(Arc::new(config)).await?;
    let session = tls.get_ref().1;
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let made_at = marked.found.lock().unwrap().filter(|_| resumed).map(|door| door.to_string());
    let client = session.peer_certificates().map(|chain| common_name(&chain[0]));
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let (made_at, client, sni) = (or_none(made_at), or_none(client), or_none(sni));
    let line = format!("resumed={resumed} made_at={made_at} client={client} sni={sni}\n");
    tls.write_all(line.as_bytes()).await?;
    tls.shutdown().await?;
    // To the client's end, so that what it still says does not meet a closed port.
    let mut rest = Vec::new();
    let _ = tls.read_to_end(&mut rest).await;
    Ok(())
}

pub(crate) fn common_name(der: &[u8]) -> String {
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    certificate.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}
