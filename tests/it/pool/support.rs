//! An upstream with a pool, and a server that counts.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ServerConfig;

use crate::support::egret::{Egret, listener, roots};
use crate::support::fleet::Fleet;
use crate::support::peer::{self, Accepted, Peer};
use crate::support::pki::{Pair, Pki};
use crate::support::{eventually, free_port, plain};

/// Answers every message with itself, and counts.
pub(crate) struct Counting {
    pub(crate) peer: Peer,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    /// Connections on which a client has said something.
    used: AtomicUsize,
}

impl Counting {
    /// A server that greets, waits `idle` for a client to speak, and closes those that do not.
    pub(crate) fn start(config: Arc<ServerConfig>, greeting: Option<&'static [u8]>, idle: Option<Duration>) -> Self {
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let peer = Peer::start(move |tcp| {
            counted.accepted.fetch_add(1, Ordering::SeqCst);
            let mut tls = peer::accepted(tcp, &config);
            if let Some(idle) = idle {
                tls.sock.set_read_timeout(Some(idle)).unwrap();
            }
            if let Some(greeting) = greeting {
                let _ = tls.conn.complete_io(&mut tls.sock);
                std::thread::sleep(Duration::from_millis(50));
                let _ = tls.write_all(greeting).and_then(|()| tls.flush());
            }
            echo(&mut tls, &counted);
        });
        Self { peer, counts }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.peer.address
    }

    /// Connections that came.
    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Connections on which a client said something.
    pub(crate) fn used(&self) -> usize {
        self.counts.used.load(Ordering::SeqCst)
    }
}

fn echo(tls: &mut Accepted, counts: &Counts) {
    let mut piece = [0; 4096];
    let mut first = true;
    while let Ok(length @ 1..) = tls.read(&mut piece) {
        if std::mem::take(&mut first) {
            counts.used.fetch_add(1, Ordering::SeqCst);
        }
        if tls.write_all(&piece[..length]).and_then(|()| tls.flush()).is_err() {
            return;
        }
    }
    peer::end(tls);
}

/// Certificates of one authority.
pub(crate) struct Certificates {
    pub(crate) pki: Pki,
    pub(crate) server: Pair,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let pki = Pki::new();
        let server = pki.server(&["127.0.0.1"]);
        Self { pki, server }
    }

    /// Mutual TLS.
    pub(crate) fn mutual(&self) -> Arc<ServerConfig> {
        peer::mutual(&self.server, &self.pki)
    }

    /// One upstream `app` with this pool, and a listener of that name.
    pub(crate) fn sections(&self, client: &Pair, to: SocketAddr, pool: &str) -> String {
        client.identity("client")
            + &roots("server", &self.pki.root())
            + &format!(
                "[upstreams.app]\nservers = [\"{to}\"]\npool = {{ {pool} }}\n\
                 tls = {{ identity = \"client\", trust = \"server\" }}\n"
            )
            + &listener("app", 0, "app")
    }
}

/// Says `text` and reads it back; the connection is then closed.
pub(crate) fn trip(address: SocketAddr, text: &[u8]) {
    let mut tcp = plain::connect(address);
    tcp.write_all(text).unwrap();
    let mut answer = vec![0; text.len()];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}

pub(crate) fn warm(egret: &Egret) -> f64 {
    egret.metrics().sum("egret_pool_warm", &[])
}

pub(crate) fn wait_for_warm(egret: &Egret, count: usize) {
    eventually(&format!("{count} warm connections"), || (warm(egret) == count as f64).then_some(()));
}

pub(crate) fn takes(egret: &Egret, result: &str) -> f64 {
    egret.metrics().sum("egret_pool_takes_total", &[("result", result)])
}

pub(crate) fn discards(egret: &Egret, reason: &str) -> f64 {
    egret.metrics().sum("egret_pool_discards_total", &[("reason", reason)])
}

pub(crate) fn fills(egret: &Egret, result: &str) -> f64 {
    egret.metrics().sum("egret_pool_fills_total", &[("result", result)])
}

/// Blocks, in a test whose servers are tasks.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// An egret before servers of a fleet, listening as `in`.
pub(crate) fn before(fleet: &Fleet, servers: &[SocketAddr], lines: &str) -> Egret {
    let list: Vec<_> = servers.iter().map(|address| format!("\"{address}\"")).collect();
    let lines = format!("servers = [{}]\n{lines}", list.join(", "));
    blocking(|| Egret::start(&(fleet.upstream(&lines) + &listener("in", free_port(), "fleet"))))
}
