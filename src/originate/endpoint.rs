//! One address of one server of an upstream, for as long as DNS names it.
//!
//! What is known of an address (who speaks to it, how many streams it has) lives here and nowhere else: the
//! same object is held by the set of its upstream, by each stream, and by the next generation if nothing of
//! its origin changed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::config::values::Server;
use crate::originate::origin::Origin;

/// An address that streams go to.
pub struct Endpoint {
    server: Server,
    address: SocketAddr,
    origin: Option<Arc<Origin>>,
    in_flight: AtomicUsize,
    retired: watch::Sender<bool>,
}

impl Endpoint {
    /// An endpoint without streams.
    pub fn new(server: Server, address: SocketAddr, origin: Option<Arc<Origin>>) -> Self {
        Self { server, address, origin, in_flight: AtomicUsize::new(0), retired: watch::Sender::new(false) }
    }

    /// The server that it belongs to, as configured.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who speaks to it; `None`: the client itself. All addresses of one server, and all servers of one name, share it.
    pub fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    /// Streams now, those that are being originated included.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more stream until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { endpoint: Arc::clone(self) }
    }

    /// DNS names it no more: it gets no new streams. For good; if DNS names the address again, that is another
    /// endpoint.
    pub fn retire(&self) {
        self.retired.send_replace(true);
    }

    /// Whether DNS names it no more.
    pub fn is_retired(&self) -> bool {
        *self.retired.borrow()
    }

    /// Resolves once DNS names it no more. Cancel safe.
    pub async fn retired(&self) {
        // The sender lives as long as `self`, so an error cannot come.
        let _ = self.retired.subscribe().wait_for(|retired| *retired).await;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} at {})", self.server, self.address)
    }
}

/// Counts a stream at its endpoint as long as it lives.
#[derive(Debug)]
#[must_use = "the stream counts as long as this lives"]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
}

impl InFlight {
    /// Where the stream goes.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
