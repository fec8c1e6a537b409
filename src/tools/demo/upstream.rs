//! The server behind egret: answers over HTTPS which client it saw, and refuses clients without a certificate.
//!
//! Its certificate depends on SNI, client certificates are optional, sessions are resumed for any client: what
//! makes a careless proxy fail, or mix up its clients.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::credentials::certificate::CertificateFacts;
use crate::credentials::fingerprint::hex;
use crate::net::AcceptBackoff;
use crate::tools::demo::certificates::{Certificates, Leaf};
use crate::tools::demo::{Error, SERVER_NAME};

pub(super) struct Upstream {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

/// Connections at once: more than a person with curl makes, and what a load generator asks for.
const MAX_CONNECTIONS: usize = 1024;
/// A handshake over loopback takes milliseconds; the rest is for a machine that is busy.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

impl Upstream {
    pub(super) async fn bind(certificates: &Certificates) -> Result<Self, Error> {
        let config = server_config(certificates)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::Listen)?;
        // Tickets and the answer are small writes that follow each other: with Nagle's algorithm (RFC 896) the last waits
        // for a delayed acknowledgement, 40 ms on Linux. Accepted connections inherit the option.
        SockRef::from(&listener).set_tcp_nodelay(true).map_err(Error::Listen)?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    pub(super) fn address(&self) -> Result<SocketAddr, Error> {
        self.listener.local_addr().map_err(Error::Listen)
    }

    /// Answers until it is dropped.
    pub(super) async fn serve(self) {
        let mut connections = JoinSet::new();
        let mut backoff = AcceptBackoff::new();
        loop {
            let accepted = tokio::select! {
                biased;
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
            };
            if let Some((tcp, _)) = backoff.accepted(accepted, |_, _| {}).await {
                connections.spawn(converse(tcp, self.acceptor.clone()));
            }
        }
    }
}

/// A failure is logged by egret, which is what the demo shows.
async fn converse(tcp: TcpStream, acceptor: TlsAcceptor) {
    let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await else { return };
    let (status, text) = answer(stream.get_ref().1);
    let respond = service_fn(|_: Request<Incoming>| {
        let mut response = Response::new(Full::new(Bytes::from(text.clone())));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), respond);
    let _ = connection.await;
}

/// Every request of a connection has the same answer: it describes the connection.
fn answer(tls: &ServerConnection) -> (StatusCode, String) {
    let client = tls.peer_certificates().and_then(|chain| describe(chain.first()?));
    let status = if client.is_some() { StatusCode::OK } else { StatusCode::FORBIDDEN };
    let body = json!({
        "client_certificate": client,
        "server_name": tls.server_name(),
        "tls_version": tls.protocol_version().and_then(|version| version.as_str()),
        "cipher_suite": tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()),
        "resumed": tls.handshake_kind() == Some(HandshakeKind::Resumed),
    });
    (status, format!("{body:#}\n"))
}

fn describe(der: &[u8]) -> Option<Value> {
    let facts = CertificateFacts::read(der)?;
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(json!({
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": hex(magnitude(parsed.raw_serial())),
        "not_before": facts.not_before.to_string(),
        "not_after": facts.not_after.to_string(),
        "sha256": hex(&facts.sha256),
    }))
}

/// A positive number without the octet that DER (X.690 section 8.3) puts before one whose first bit is set.
fn magnitude(integer: &[u8]) -> &[u8] {
    match integer {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => integer,
    }
}

/// TLS 1.2 and 1.3. One ticket key for all, as on many servers: a session is resumed for any client that presents it.
fn server_config(certificates: &Certificates) -> Result<ServerConfig, Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::Tls(error.to_string());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificates.root.clone()).map_err(|error| wrong(&error))?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| wrong(&error))?;
    let by_name = ByName {
        right: certified(&certificates.server).map_err(|error| wrong(&error))?,
        wrong: certified(&certificates.wrong).map_err(|error| wrong(&error))?,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|error| wrong(&error))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(by_name));
    config.ticketer = Ticketer::new().map_err(|error| wrong(&error))?;
    Ok(config)
}

fn certified(leaf: &Leaf) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf.key.serialize_der()));
    Ok(Arc::new(CertifiedKey::new(vec![leaf.der.clone()], any_supported_type(&key)?)))
}

/// The certificate of a host among others: a client that sends no name gets that of another.
#[derive(Debug)]
struct ByName {
    right: Arc<CertifiedKey>,
    wrong: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().is_some_and(|name| name.eq_ignore_ascii_case(SERVER_NAME));
        Some(Arc::clone(if named { &self.right } else { &self.wrong }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_writes_of_a_connection_do_not_wait_for_each_other() {
        let upstream = Upstream::bind(&Certificates::new().unwrap()).await.unwrap();
        let _client = TcpStream::connect(upstream.address().unwrap()).await.unwrap();
        let (accepted, _) = upstream.listener.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn a_serial_is_shown_without_its_sign_octet() {
        assert_eq!(magnitude(&[0, 0xc4, 0xa6]), [0xc4, 0xa6]);
        assert_eq!(magnitude(&[0x44, 0]), [0x44, 0]);
        assert_eq!(magnitude(&[0]), [0]);
    }
}
