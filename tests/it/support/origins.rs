//! Origins as a configuration would make them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use egret::config::values::{
    Anchors, Eof, Host, Identity as IdentitySpec, Name, Server, StreamLimits, Tls, TlsVersion, Trust as TrustSpec,
    Upstream, Verify,
};
use egret::originate::handshake::{Error, Negotiated, handshake};
use egret::originate::identity::Identity;
use egret::originate::origin::{Origin, OriginKey};
use egret::originate::trust::Trust;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

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
        tls: Tls {
            identity: None,
            trust: None,
            server_name: None,
            sni: true,
            verify: Verify::Full,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            alpn: Vec::new(),
            key_exchange: Vec::new(),
            resumption: true,
        },
        upgrade: None,
        originate_timeout: Duration::from_secs(10),
        stream: StreamLimits { idle: None, lifetime: None, half_closed: Duration::from_secs(60), eof: Eof::Strict },
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
    Arc::new(Identity::load(&name("id"), &spec).unwrap())
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

/// Dials `door` and speaks TLS with it as if it were `endpoint`.
pub async fn originate(
    door: SocketAddr,
    endpoint: SocketAddr,
    origin: &Origin,
) -> Result<(TlsStream<TcpStream>, Negotiated), Error> {
    let tcp = TcpStream::connect(door).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), handshake(tcp, endpoint, origin)).await.expect("in time")
}

/// A whole connection: what both sides say of it.
pub async fn visit(door: SocketAddr, endpoint: SocketAddr, origin: &Origin) -> (Negotiated, Seen) {
    let (mut tls, negotiated) = originate(door, endpoint, origin).await.expect("a handshake");
    let seen = Seen::read(&mut tls).await.expect("the server's line");
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut tls).await;
    (negotiated, seen)
}
