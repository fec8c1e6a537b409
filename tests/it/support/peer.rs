//! Servers in this process: for what a real server cannot be made to do, and for what has to be counted
//! on both sides.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use super::PATIENCE;
use super::pki::{Pair, Pki};

/// A server with a thread for each connection.
pub(crate) struct Peer {
    stop: Arc<AtomicBool>,
    pub(crate) address: SocketAddr,
}

/// A TLS connection that was accepted.
pub(crate) type Accepted = StreamOwned<ServerConnection, TcpStream>;

impl Peer {
    /// Does the same to each connection.
    pub(crate) fn start(each: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let each = Arc::new(each);
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(tcp) = tcp else { continue };
                tcp.set_read_timeout(Some(PATIENCE * 2)).unwrap();
                tcp.set_write_timeout(Some(PATIENCE * 2)).unwrap();
                let each = Arc::clone(&each);
                std::thread::spawn(move || each(tcp));
            }
        });
        Self { stop, address }
    }

    /// Does the same to each connection, over TLS. The handshake is made by the first read or write.
    pub(crate) fn start_tls(config: Arc<ServerConfig>, each: impl Fn(Accepted) + Send + Sync + 'static) -> Self {
        Self::start(move |tcp| {
            each(accepted(tcp, &config));
        })
    }

    /// Sends back what it gets, and its own end when the client's has come.
    pub(crate) fn echo(config: Arc<ServerConfig>) -> Self {
        Self::start_tls(config, echo)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// TLS on this connection from here on.
pub(crate) fn accepted(tcp: TcpStream, config: &Arc<ServerConfig>) -> Accepted {
    tcp.set_nodelay(true).unwrap();
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), tcp)
}

/// Sends back what comes, and the end when the client's has come.
pub(crate) fn echo(mut tls: Accepted) {
    let mut piece = vec![0; 32_768];
    while let Ok(length @ 1..) = tls.read(&mut piece) {
        if tls.write_all(&piece[..length]).and_then(|()| tls.flush()).is_err() {
            return;
        }
    }
    end(&mut tls);
}

/// close_notify and FIN: no more will be said from this side.
pub(crate) fn end(tls: &mut Accepted) {
    tls.conn.send_close_notify();
    // The client may be gone.
    let _ = tls.flush();
    let _ = tls.sock.shutdown(Shutdown::Write);
}

/// TLS with this certificate, both versions, for clients without a certificate.
pub(crate) fn anonymous(pair: &Pair) -> Arc<ServerConfig> {
    versions(pair, rustls::ALL_VERSIONS)
}

/// TLS with this certificate and these versions, for clients without a certificate.
pub(crate) fn versions(pair: &Pair, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_protocol_versions(versions).with_no_client_auth();
    Arc::new(builder.with_single_cert(chain(pair), key(pair)).unwrap())
}

/// TLS with this certificate, for clients with a certificate of the authority only.
pub(crate) fn mutual(pair: &Pair, pki: &Pki) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.root()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let builder = ServerConfig::builder().with_client_cert_verifier(verifier);
    Arc::new(builder.with_single_cert(chain(pair), key(pair)).unwrap())
}

/// The certificates of a pair.
pub(crate) fn chain(pair: &Pair) -> Vec<CertificateDer<'static>> {
    let file = BufReader::new(File::open(&pair.certificate).unwrap());
    CertificateDer::pem_reader_iter(file).map(|certificate| certificate.unwrap()).collect()
}

/// The key of a pair.
pub(crate) fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(&pair.key).unwrap()
}

/// Reads the ClientHello and gives the bytes of the server's answer to it, not yet sent.
pub(crate) fn first_flight(tcp: &mut TcpStream, config: &Arc<ServerConfig>) -> Vec<u8> {
    let mut server = ServerConnection::new(Arc::clone(config)).unwrap();
    while !server.wants_write() {
        assert!(server.read_tls(tcp).unwrap() > 0, "the client left before its hello was complete");
        server.process_new_packets().unwrap();
    }
    let mut flight = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut flight).unwrap();
    }
    flight
}

/// Reads one record, such as a ClientHello, and throws it away.
pub(crate) fn read_record(tcp: &mut TcpStream) {
    let mut header = [0; 5];
    tcp.read_exact(&mut header).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    tcp.read_exact(&mut body).unwrap();
}
