//! The admin endpoint, to observe and control the process: HTTP/1.1 on a loopback address or a Unix socket.
//!
//! One request a connection, a bounded number of connections, a deadline for each: nothing a client
//! does here can take more than that from the streams, nor keep another client from its answer.

pub(crate) mod client;
mod exchanges;
mod guard;
mod page;
mod routes;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;

use crate::config::values::AdminRole;
use crate::net::{AcceptBackoff, Peer, Socket, SpareDescriptors, Stream};
use crate::observe::logging::flood::{self, Event, Key};
use crate::pipeline::admit::Admission;
use exchanges::{Exchanges, Progress};

/// What the routes show and do. Implemented by the supervisor.
pub trait Control: Send + Sync + 'static {
    /// The text that Prometheus reads.
    fn metrics(&self) -> String;

    /// Whether all new connections are served: listeners are up, nothing drains, and no upstream lacks its identity or
    /// its trust.
    fn ready(&self) -> bool;

    /// Whether `shown` is the bearer token in this file.
    fn accepts(&self, token_file: &Path, shown: &[u8]) -> bool;

    /// Whether it was ever ready.
    fn has_started(&self) -> bool;

    /// A line for each worker thread that makes no progress.
    fn stuck(&self) -> Vec<String>;

    /// A line for each of these upstreams that is not ready: egret itself has not reached it, or none of its addresses is
    /// healthy. No name stands for all that a listener leads to.
    fn lacks<'a>(&'a self, upstreams: &'a [&'a str]) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + 'a>>;

    /// The status as JSON; the HTML page shows the same.
    fn status(&self) -> serde_json::Value;

    /// The running configuration, without secrets.
    fn config(&self) -> serde_json::Value;

    /// The parts of the running generation, to compare it with another.
    fn outline(&self) -> serde_json::Value;

    /// Loads the configuration again; returns what runs now.
    ///
    /// Dropping the future (the client has disconnected) abandons the answer, never the reload half-way.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Swapped, Kept>> + Send + '_>>;

    /// Begins the drain of the process and returns at once.
    fn drain(&self);
}

/// A reload that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// The generation that runs now.
    pub generation: u64,
    /// A line for each identity and trust whose files cannot be used: kept or unavailable, and the reason.
    pub troubled: Vec<String>,
}

/// A reload that did not happen: the running generation was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// The configuration or a file it names has problems; this text lists them all.
    Rejected(String),
    /// The process drains.
    Draining,
}

/// A request line and its headers come in one segment; five seconds allow for retransmissions.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Request line and headers of a browser stay below 4 KiB without cookies, which egret never sets. Also the smallest
/// buffer that hyper accepts.
const MAX_HEADER: usize = 8192;
/// A whole exchange. The longest is a reload, which reads files and waits for no network.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections that are open when the process ends get this long to send their request: most requests are in the socket
/// by then, and a silent client delays the end by no more than people notice.
const LAST_REQUESTS: Duration = Duration::from_millis(250);

/// What the clients of an address may do.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Which routes there are.
    pub role: AdminRole,
    /// The file of the token that they have to show.
    pub token_file: Option<PathBuf>,
}

/// Answers requests until `stop` completes; answers under way are then finished, for a bounded time.
///
/// Stop it last: while the process drains, probes still need the answer "not ready".
pub async fn serve(
    socket: Arc<Socket>,
    admission: Admission,
    rights: Rights,
    control: Arc<dyn Control>,
    stop: impl Future<Output = ()> + Send,
) {
    let routes = Arc::new(routes::Routes::new(guard::Guard::of(&socket), rights, control));
    let spares = SpareDescriptors::hold();
    let mut acceptor = Acceptor { socket, admission, routes, exchanges: Exchanges::default(), spares };
    tokio::select! {
        biased;
        () = stop => {}
        () = acceptor.serve() => {}
    }
    // The client that asked for the drain waits for its answer.
    let _ = timeout(LAST_REQUESTS, acceptor.serve_waiting()).await;
    acceptor.exchanges.finish().await;
}

struct Acceptor {
    socket: Arc<Socket>,
    admission: Admission,
    routes: Arc<routes::Routes>,
    exchanges: Exchanges,
    /// Probes and people ask when streams have taken all descriptors, then above all.
    spares: SpareDescriptors,
}

impl Acceptor {
    async fn serve(&mut self) {
        let mut backoff = AcceptBackoff::new();
        let report = |error: &io::Error, pause| {
            if flood::is_first(Key::new(Event::AdminAcceptingPauses, "accept_failed")) {
                tracing::warn!(%error, ?pause, "admin cannot accept, pausing");
            }
        };
        loop {
            let accepted = tokio::select! {
                biased;
                true = self.exchanges.ended() => {
                    self.spares.refill();
                    continue;
                }
                accepted = self.socket.accept() => accepted,
            };
            if self.spares.make_room_after(&accepted) {
                continue;
            }
            match backoff.accepted(accepted, report).await {
                Some((stream, peer)) => self.admit(stream, &peer),
                None => self.spares.refill(),
            }
        }
    }

    /// Accepts the connections that wait, until every exchange has ended.
    async fn serve_waiting(&mut self) {
        loop {
            tokio::select! {
                biased;
                Ok((stream, peer)) = self.socket.accept() => self.admit(stream, &peer),
                more = self.exchanges.ended() => if !more { return },
            }
        }
    }

    fn admit(&mut self, stream: Stream, peer: &Peer) {
        match self.admission.check(peer) {
            Ok(()) => {
                let routes = Arc::clone(&self.routes);
                self.exchanges.start(|progress| exchange(stream, routes, progress));
            }
            Err(refused) => {
                if flood::is_first(Key::new(Event::AdminClientDenied, refused.reason())) {
                    tracing::info!(%peer, reason = refused.reason(), %refused, "admin client denied");
                }
            }
        }
    }
}

/// One request and its answer. Connections are not kept alive: clients come every few seconds at most, and an idle
/// connection would be one more thing to bound.
async fn exchange(stream: Stream, routes: Arc<routes::Routes>, progress: Progress) {
    let service = service_fn(|request| routes::answer(&routes, request, &progress));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(EXCHANGE_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin exchange failed"),
        Err(_) => tracing::debug!("admin exchange took too long"),
    }
}
