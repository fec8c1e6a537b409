//! Accepts: bind, admit, back off, hand over to [`connection`](crate::pipeline::connection).

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::config::values::{self, ListenerKey, Name};
use crate::drain::Watch;
use crate::net::{self, AcceptBackoff, BindError, Options, Peer, Role, Socket, Stream};
use crate::observe::logging::flood::{self, Event, Key};
use crate::observe::metrics::Registry;
use crate::observe::tasks::{self, Task};
use crate::pipeline::admit::Admission;
use crate::pipeline::connection::{self, Accepted};
use crate::pipeline::route::RouteTable;

pub(crate) struct Listener {
    key: ListenerKey,
    socket: Arc<Socket>,
}

pub(crate) trait Generation: Send + Sync + 'static {
    /// `None` once a reload has removed the listener.
    fn entry(&self, key: &ListenerKey) -> Option<Arc<Entry>>;
}

/// What a generation says of a listener.
pub struct Entry {
    /// Who may come.
    pub(crate) admission: Admission,
    /// Where connections go.
    pub routes: Arc<RouteTable>,
    pub(crate) permits: Option<Arc<Semaphore>>,
    pub(crate) max_connections: Option<usize>,
}

pub(crate) struct Shared<G> {
    /// The running generation; a listener reads it once for each connection.
    pub(crate) snapshot: Arc<G>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) bound: Bound,
    /// Wakes waiters for a permit when a generation is replaced: the bound may be another.
    pub(crate) swapped: Arc<Notify>,
    /// Streams hold it until they end.
    pub(crate) streams: Watch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// `limits.max_connections`.
    Configured,
    OpenFiles,
    Memory,
    /// `max_connections` of the listener.
    Listener,
}

impl Bound {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Configured => "max_connections",
            Self::OpenFiles => "open_files",
            Self::Memory => "memory_budget",
            Self::Listener => "listener_max_connections",
        }
    }
}

impl<G> Clone for Shared<G> {
    fn clone(&self) -> Self {
        Self {
            snapshot: Arc::clone(&self.snapshot),
            permits: Arc::clone(&self.permits),
            bound: self.bound,
            swapped: Arc::clone(&self.swapped),
            streams: self.streams.clone(),
        }
    }
}

impl Listener {
    pub(crate) fn bind(spec: &values::Listener) -> Result<Self, BindError> {
        let options = Options::of_or_warn(&spec.tcp, Role::Listen, &spec.name);
        Ok(Self {
            key: spec.key(),
            socket: Arc::new(Socket::take_or_bind(spec.name.as_str(), &spec.listen, &options)?),
        })
    }

    pub(crate) fn key(&self) -> &ListenerKey {
        &self.key
    }

    /// With the port that the kernel chose, where the configuration says 0.
    pub(crate) fn local_address(&self) -> String {
        self.socket.local_address()
    }

    /// Shared with the reload, which changes its options while it is in use. Closed with its last owner.
    pub(crate) fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    pub(crate) fn name<G: Generation>(&self, shared: &Shared<G>) -> Name {
        self.entry(shared).map_or_else(|| Name::new(self.local_address()), |entry| entry.routes.listener.clone())
    }

    /// Accepts until its address is gone from the running generation, or the future is dropped. An error of
    /// accept never ends it: it pauses and goes on. After a panic it accepts again.
    pub(crate) async fn run<G: Generation>(self, shared: Shared<G>, registry: Registry) {
        let is_over = || self.entry(&shared).is_none();
        tasks::keep_running(Task::Listener, &registry, is_over, || self.accept_from(&shared, &registry)).await;
    }

    /// While it waits for a client it holds neither a permit, which another listener may need, nor anything
    /// of a generation, which may be replaced meanwhile and has keys in it.
    async fn accept_from<G: Generation>(&self, shared: &Shared<G>, registry: &Registry) {
        let mut backoff = AcceptBackoff::new();
        while self.permits(shared).await.is_some() {
            let accepted = self.socket.accept().await;
            let report = |error: &io::Error, pause| self.count(error, pause, shared);
            if let Some((stream, peer)) = backoff.accepted(accepted, report).await {
                self.hand_over(InHand(Some(stream)), peer, shared, registry).await;
            }
        }
    }

    /// `None` once a reload has removed this listener.
    fn entry<G: Generation>(&self, shared: &Shared<G>) -> Option<Arc<Entry>> {
        shared.snapshot.entry(&self.key)
    }

    /// Waits for a permit for one more connection; `None` once a reload has removed this listener.
    async fn permits<G: Generation>(&self, shared: &Shared<G>) -> Option<(Permits, Arc<Entry>)> {
        loop {
            // Register before reading the generation, so that no swap is missed.
            let swapped = shared.swapped.notified();
            let entry = self.entry(shared)?;
            tokio::select! {
                permits = Permits::acquire(&entry, shared) => return Some((permits, entry)),
                () = swapped => {}
            }
        }
    }

    /// The generation is loaded after accept: a connection that was accepted after a reload's answer never
    /// sees what the reload replaced. When all listeners together have taken the last permit at once, one
    /// connection of each may have to wait here.
    async fn hand_over<G: Generation>(&self, stream: InHand, peer: Peer, shared: &Shared<G>, registry: &Registry) {
        let Some((permits, entry)) = self.permits(shared).await else { return };
        let Some(stream) = stream.pass() else { return };
        entry.routes.metrics.accepted.increment(1);
        if let Err(refused) = entry.admission.check(&peer) {
            entry.routes.metrics.refused.increment(refused.reason());
            let key = Key::new(Event::ClientDenied, refused.reason()).listener(&entry.routes.listener);
            if flood::is_first(key) {
                tracing::warn!(listener = %entry.routes.listener, client = %peer, reason = refused.reason(), "client denied");
            }
            return stream.reset();
        }
        let accepted = Accepted { stream, peer, routes: Arc::clone(&entry.routes) };
        let watch = shared.streams.clone();
        let registry = registry.clone();
        tokio::spawn(async move {
            let _permits = permits;
            // By reference: the supervisor would lay the connection out a second time.
            let serving = pin!(connection::serve(accepted, watch));
            tasks::once(Task::Connection, &registry, serving).await;
        });
    }

    fn count<G: Generation>(&self, error: &io::Error, pause: Duration, shared: &Shared<G>) {
        let Some(entry) = self.entry(shared) else { return };
        let listener = &entry.routes.listener;
        let reason = accept_error(error);
        entry.routes.metrics.accept_errors.increment(reason);
        if flood::is_first(Key::new(Event::AcceptingPauses, reason).listener(listener)) {
            tracing::warn!(%listener, reason, %error, ?pause, "accepting pauses");
        }
    }
}

/// An accepted connection that is not served yet. If its listener ends before, the client sees a reset, as do clients
/// in the kernel's queue.
struct InHand(Option<Stream>);

impl InHand {
    fn pass(mut self) -> Option<Stream> {
        self.0.take()
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset();
        }
    }
}

struct Permits {
    _process: Option<OwnedSemaphorePermit>,
    _listener: Option<OwnedSemaphorePermit>,
}

impl Permits {
    async fn acquire<G: Generation>(entry: &Entry, shared: &Shared<G>) -> Self {
        let listener = match &entry.permits {
            Some(permits) => acquire(permits, Bound::Listener, entry).await,
            None => None,
        };
        Self { _listener: listener, _process: acquire(&shared.permits, shared.bound, entry).await }
    }
}

/// Waits for a permit, and reports the wait if there is none. The semaphores are never closed, so an error cannot come;
/// it would mean no bound.
async fn acquire(permits: &Arc<Semaphore>, bound: Bound, entry: &Entry) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
        return Some(permit);
    }
    let listener = &entry.routes.listener;
    let reason = bound.reason();
    entry.routes.metrics.accept_waits.increment(reason);
    if flood::is_first(Key::new(Event::AcceptingWaits, reason).listener(listener)) {
        tracing::warn!(%listener, reason, "accepting waits");
    }
    Arc::clone(permits).acquire_owned().await.ok()
}

fn accept_error(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        _ if net::is_out_of_descriptors(error) => "no_descriptors",
        Some(rustix::io::Errno::NOBUFS | rustix::io::Errno::NOMEM) => "no_memory",
        _ => "accept_failed",
    }
}
