//! Both ends of a handshake over buffers, for the tests and for the checks that the fuzzer shares with them: so
//! there is nothing of egret in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, UnbufferedClientConnection,
};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeTlsData};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, NamedGroup, RootCertStore, ServerConfig, SupportedCipherSuite};

/// One end's turn: takes all of `incoming`, or none if the handshake is over. Whether it is.
macro_rules! turn {
    ($connection:expr, $incoming:expr, $out:expr) => {{
        loop {
            let status = $connection.process_tls_records(&mut $incoming);
            let discard = status.discard;
            let done = match status.state.unwrap() {
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, &mut $out);
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    None
                }
                ConnectionState::BlockedHandshake => Some(false),
                ConnectionState::WriteTraffic(_) => Some(true),
                state => panic!("{state:?}"),
            };
            $incoming.drain(..discard);
            if let Some(done) = done {
                break done;
            }
        }
    }};
}

pub(super) struct Handshaken {
    pub(super) client: UnbufferedClientConnection,
    pub(super) server: UnbufferedServerConnection,
    /// What the server sent right after the handshake: in TLS 1.3 two tickets.
    pub(super) down: Vec<u8>,
    pub(super) tickets: Arc<Tickets>,
}

impl Handshaken {
    pub(super) fn of(suite: SupportedCipherSuite) -> Self {
        let tickets = Arc::new(Tickets::default());
        let (client, server) = configs(suite, Arc::clone(&tickets));
        let name = ServerName::try_from("server.example.com").unwrap();
        let mut client = UnbufferedClientConnection::new(client, name).unwrap();
        let mut server = UnbufferedServerConnection::new(server).unwrap();
        let mut up = Vec::new();
        let mut down = Vec::new();
        let mut client_done = false;
        let mut server_done = false;
        while !(client_done && server_done) {
            if !client_done {
                client_done = turn!(client, down, up);
            }
            server_done = turn!(server, up, down);
        }
        Self { client, server, down, tickets }
    }
}

/// Counts the tickets it is given, and gives none back.
#[derive(Debug, Default)]
pub(super) struct Tickets(pub(super) AtomicUsize);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

fn configs(suite: SupportedCipherSuite, tickets: Arc<Tickets>) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..default_provider() });
    let versions = if suite.tls13().is_some() { [&TLS13] } else { [&TLS12] };
    let certificate = rcgen::generate_simple_self_signed(["server.example.com".to_owned()]).unwrap();
    let der = certificate.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(der.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.enable_secret_extraction = true;
    client.resumption = Resumption::store(tickets);
    let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions).unwrap();
    let mut server = server.with_no_client_auth().with_single_cert(vec![der], key.into()).unwrap();
    server.enable_secret_extraction = true;
    server.ticketer = Ticketer::new().unwrap();
    (Arc::new(client), Arc::new(server))
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let mut chunk = [0; 1 << 14];
    let n = data.encode(&mut chunk).unwrap();
    out.extend_from_slice(&chunk[..n]);
}
