//! A store with real TLS 1.3 sessions in it: rustls has no other way to make one than a handshake.

use std::net::SocketAddr;
use std::sync::Arc;

use egret::credentials::certificate::Date;
use egret::credentials::observation::{Observed, note};
use egret::pipeline::originate::origin::resumption::Store;
use rustls::client::{ClientSessionStore, Resumption};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

use super::credentials::{Credentials, NAME};

/// Where the sessions are from.
pub(crate) const ENDPOINT: &str = "192.0.2.1:443";

/// An origin's store, as handshakes see it.
pub(crate) struct Sessions {
    store: Arc<Store>,
    name: ServerName<'static>,
    endpoint: SocketAddr,
    passed: Arc<Observed>,
}

/// Tickets of one handshake: more do not fit into the buffer in which rustls joins messages.
const AT_ONCE: usize = 32;

impl Sessions {
    /// A store that holds `count` sessions of [`ENDPOINT`].
    pub(crate) fn new(count: usize) -> Self {
        let (store, name) = (Store::new(Date(i64::MAX)), NAME.try_into().expect("a name"));
        let sessions = Self { store, name, endpoint: ENDPOINT.parse().expect("an address"), passed: passed() };
        let credentials = Credentials::new();
        while sessions.store.held() < count {
            // Each handshake but the first takes one to resume.
            let taken = usize::from(sessions.store.held() > 0);
            sessions.fill(&credentials, (count - sessions.store.held() + taken).min(AT_ONCE));
        }
        sessions
    }

    /// What a connection to `endpoint` does: it takes a session. One of [`ENDPOINT`] is put in its place, so that
    /// the next time is as this one.
    pub(crate) fn take_and_put(&self, endpoint: SocketAddr) {
        let view = self.store.view(endpoint, &Arc::default());
        let session = view.take_tls13_ticket(&self.name).expect("a session is there");
        self.store.view(self.endpoint, &self.passed).insert_tls13_ticket(self.name.clone(), session);
    }

    /// A handshake in memory that brings so many.
    fn fill(&self, credentials: &Credentials, tickets: usize) {
        let mut server = ServerConnection::new(credentials.server(tickets)).expect("a server");
        let mut client = ClientConnection::new(self.client(credentials), self.name.clone()).expect("a client");
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut there).expect("memory takes it");
            }
            let mut unread = &there[..];
            while !unread.is_empty() {
                server.read_tls(&mut unread).expect("memory gives it");
                server.process_new_packets().expect("a good client");
            }
            while server.wants_write() {
                server.write_tls(&mut back).expect("memory takes it");
            }
            let mut unread = &back[..];
            while !unread.is_empty() {
                client.read_tls(&mut unread).expect("memory gives it");
                client.process_new_packets().expect("a good server");
            }
        }
    }

    fn client(&self, credentials: &Credentials) -> Arc<ClientConfig> {
        let read = |file| credentials.folder().join(file);
        let mut roots = RootCertStore::empty();
        roots.add(PemObject::from_pem_file(read("ca.crt")).expect("a certificate")).expect("a root");
        let chain = vec![PemObject::from_pem_file(read("client.crt")).expect("a certificate")];
        let key = PemObject::from_pem_file(read("client.key")).expect("a key");
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = builder.with_client_auth_cert(chain, key).expect("key and certificate");
        config.resumption = Resumption::store(self.store.view(self.endpoint, &self.passed));
        Arc::new(config)
    }
}

/// The observation of a handshake whose server was believed; sessions of others are not kept.
fn passed() -> Arc<Observed> {
    let observed = Arc::new(Observed::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(observed.during(async { note(|facts| facts.passed = true) }));
    observed
}
