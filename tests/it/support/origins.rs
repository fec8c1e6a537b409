//! Origins as a configuration would make them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use egret::config::values::{
    Anchors, Balance, Ejection, Eof, Host, Identity as IdentitySpec, Name, Server, StreamLimits, Tcp, Tls, TlsSettings,
    Trust as TrustSpec, Upstream, UpstreamSettings, Verify,
};
use egret::credentials::identity::Identity;
use egret::credentials::trust::Trust;
use egret::net;
use egret::pipeline::originate::handshake::{Error, Negotiated, handshake};
use egret::pipeline::originate::origin::{Origin, OriginKey};
use egret::pipeline::relay::{Counters, Ended, Outcome, relay};
use egret::tls::handshake::Established;
use metrics::Counter;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::authority::{Ca, Leaf};
use super::tls_server::Seen;

pub fn name(text: &str) -> Name {
    Name::new(text)
}

/// An upstream on localhost with everything at its default.
pub fn upstream(endpoint: SocketAddr) -> Upstream {
    let server = Server { host: Host::Dns("localhost".try_into().unwrap()), port: endpoint.port() };
    Upstream {
        servers: vec![server],
        balance: Balance::default(),
        ejection: Ejection::default(),
        active_check: None,
        tls: Tls {
            identity: None,
            trust: None,
            server_name: None,
            verify: Verify::Full,
            settings: TlsSettings::default(),
        },
        upgrade: None,
        answer: None,
        pool: None,
        tcp: Tcp::default(),
        settings: UpstreamSettings { idle_timeout: None, ..UpstreamSettings::default() },
    }
}

/// Trust in these authorities.
pub fn roots(folder: &Path, cas: &[&Ca]) -> TrustSpec {
    let file = folder.join(format!("roots-{:08x}.pem", fastrand::u32(..)));
    std::fs::write(&file, cas.iter().map(|ca| ca.pem.as_str()).collect::<String>()).unwrap();
    TrustSpec { anchors: Anchors::Roots { system: false, paths: vec![file] }, ..TrustSpec::default() }
}

pub fn trust(spec: &TrustSpec) -> Arc<Trust> {
    Arc::new(Trust::load(&name("test"), spec).unwrap())
}

pub fn identity(folder: &Path, leaf: &Leaf) -> Arc<Identity> {
    let (certificate, key) = leaf.write(folder, &format!("id-{:08x}", fastrand::u32(..)));
    let spec =
        IdentitySpec { certificate, private_key: Some(key), password_file: None, allow_loose_key_permissions: false };
    Arc::new(Identity::load(&spec).unwrap())
}

pub fn origin(upstream: &Upstream, identity: Option<&Arc<Identity>>, trust: &Arc<Trust>) -> Origin {
    let server_name = upstream.tls.server_name.clone().unwrap_or_else(|| upstream.servers[0].host.server_name());
    named_origin(upstream, &server_name, identity, trust)
}

pub fn named_origin(
    upstream: &Upstream,
    server_name: &ServerName<'static>,
    identity: Option<&Arc<Identity>>,
    trust: &Arc<Trust>,
) -> Origin {
    let key = OriginKey::new(upstream, server_name, identity.map(|identity| &**identity), trust);
    Origin::new(key, identity.cloned(), Arc::clone(trust)).unwrap()
}

/// Dials `door` and speaks TLS with it as if it were `endpoint`; gives the plaintext side.
pub async fn originate(
    door: SocketAddr,
    endpoint: SocketAddr,
    origin: &Origin,
) -> Result<(TcpStream, Negotiated), Error> {
    let tcp = TcpStream::connect(door).await.unwrap();
    let done = tokio::time::timeout(Duration::from_secs(20), handshake(tcp, endpoint, origin)).await;
    let (established, negotiated) = done.expect("in time")?;
    Ok((plain_side(established).await, negotiated))
}

/// How a stream ends whose client says nothing.
pub async fn silent_client(endpoint: SocketAddr, origin: &Origin) -> (Ended, Negotiated) {
    let tcp = TcpStream::connect(endpoint).await.unwrap();
    let (established, negotiated) = handshake(tcp, endpoint, origin).await.unwrap();
    let (_client, relay) = relayed(established).await;
    let outcome = tokio::time::timeout(Duration::from_secs(20), relay).await.expect("in time").unwrap();
    (outcome.ended, negotiated)
}

async fn plain_side(established: Established) -> TcpStream {
    relayed(established).await.0
}

/// A client's socket, relayed to this stream.
async fn relayed(established: Established) -> (TcpStream, JoinHandle<Outcome>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let downstream = net::Stream::Tcp(listener.accept().await.unwrap().0);
    let relay = tokio::spawn(async move {
        let limits =
            StreamLimits { idle: None, lifetime: None, half_closed: Duration::from_secs(60), eof: Eof::Lenient };
        let counters = Counters { sent: Counter::noop(), received: Counter::noop(), near_key_limit: Counter::noop() };
        relay(downstream, Bytes::new(), established, &limits, &counters, std::future::pending()).await
    });
    (client, relay)
}

/// A whole connection: what both sides say of it.
pub async fn visit(door: SocketAddr, endpoint: SocketAddr, origin: &Origin) -> (Negotiated, Seen) {
    let (mut tls, negotiated) = originate(door, endpoint, origin).await.expect("a handshake");
    let seen = Seen::read(&mut tls).await.expect("the server's line");
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut tls).await;
    (negotiated, seen)
}
