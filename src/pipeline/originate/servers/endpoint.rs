//! One address of one server of an upstream, for as long as DNS names it.
//!
//! The state of an address (its origin, its streams, its health) is here and nowhere else: the same object is held by
//! the set of its upstream, by each stream, and by the next generation if nothing of its origin changed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::config::values::{Ejection, Server};
use crate::pipeline::originate::hello::Tolerances;
use crate::pipeline::originate::origin::Origin;
use crate::pipeline::originate::servers::account::Account;
use crate::pipeline::originate::servers::health::{AttemptKind, Breaker, Gate};

pub(crate) struct Endpoint {
    server: Server,
    address: SocketAddr,
    origin: Option<Arc<Origin>>,
    account: Arc<Account>,
    in_flight: AtomicUsize,
    retired: watch::Sender<bool>,
    circuit: watch::Sender<Circuit>,
    tolerances: Mutex<Tolerances>,
    confirming: AtomicBool,
    proven: AtomicBool,
}

#[derive(Default)]
struct Circuit {
    breaker: Breaker,
    last_failure: Option<LastFailure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastFailure {
    pub(crate) reason: &'static str,
    pub(crate) at: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HealthStatus {
    pub(crate) gate: Gate,
    pub(crate) failures: usize,
    pub(crate) last_failure: Option<LastFailure>,
}

impl HealthStatus {
    /// `healthy`; `failing`, but not yet often enough; `ejected`; `trial`, one stream tries it or may.
    pub(crate) fn as_str(&self) -> &'static str {
        match self.gate {
            Gate::Closed if self.failures == 0 => "healthy",
            Gate::Closed => "failing",
            Gate::Open { .. } => "ejected",
            Gate::Due | Gate::Trial { .. } => "trial",
        }
    }
}

impl Endpoint {
    /// Without streams, healthy.
    pub(crate) fn new(server: Server, address: SocketAddr, origin: Option<Arc<Origin>>, account: Account) -> Self {
        let retired = watch::Sender::new(false);
        let circuit = watch::Sender::default();
        let account = Arc::new(account);
        let in_flight = AtomicUsize::new(0);
        let tolerances = Mutex::default();
        let confirming = AtomicBool::new(false);
        let proven = AtomicBool::new(false);
        Self { server, address, origin, account, in_flight, retired, circuit, tolerances, confirming, proven }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `None`: passed through, the client itself makes TLS. All addresses of one server, and all servers of one name,
    /// share it.
    pub(crate) fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    pub(crate) fn tolerances(&self) -> MutexGuard<'_, Tolerances> {
        // Each change is one assignment: a panic leaves no partial state.
        self.tolerances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn warm(&self) -> usize {
        self.origin.as_ref().map_or(0, |origin| origin.shelf().stock_of(self.address))
    }

    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { endpoint: Arc::clone(self) }
    }

    /// `None` if it already has `limit` streams.
    pub(crate) fn enter_below(self: &Arc<Self>, limit: Option<usize>) -> Option<InFlight> {
        let Some(limit) = limit else { return Some(self.enter()) };
        let one_more = |now: usize| (now < limit).then_some(now + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(InFlight { endpoint: Arc::clone(self) })
    }

    /// DNS names it no more: it gets no new streams. For good; if DNS names the address again, that is another
    /// endpoint.
    pub(crate) fn retire(&self) {
        self.retired.send_replace(true);
    }

    pub(crate) fn is_retired(&self) -> bool {
        *self.retired.borrow()
    }

    /// Resolves once DNS names it no more. Cancel safe.
    pub(crate) async fn retired(&self) {
        // The sender lives as long as `self`, so an error cannot come.
        let _ = self.retired.subscribe().wait_for(|retired| *retired).await;
    }

    pub(crate) fn gate(&self, now: Instant) -> Gate {
        self.circuit.borrow().breaker.gate(now)
    }

    pub(crate) fn health_status(&self, now: Instant) -> HealthStatus {
        let circuit = self.circuit.borrow();
        let gate = circuit.breaker.gate(now);
        let failures = circuit.breaker.failures();
        HealthStatus { gate, failures, last_failure: circuit.last_failure }
    }

    /// Begins the trial of an open circuit; `None`: not now, another has begun it, or the circuit is closed.
    /// `urgent`: there is no other endpoint.
    pub(crate) fn begin_trial(self: &Arc<Self>, urgent: bool) -> Option<Trial> {
        let now = Instant::now();
        let mut begun = false;
        // No waiter is woken: none waits for the beginning of a trial.
        self.circuit.send_if_modified(|circuit| {
            begun = circuit.breaker.begin_trial(now, urgent);
            false
        });
        begun.then(|| Trial { endpoint: Arc::clone(self) })
    }

    /// Begins a connection of egret's own that checks whether a refusal of one client's stream applies to all; `None`:
    /// one is under way, so that a flood of refusals costs the server one handshake at a time.
    pub(crate) fn begin_confirmation(self: &Arc<Self>) -> Option<Confirmation> {
        let is_first = !self.confirming.swap(true, Ordering::Relaxed);
        is_first.then(|| Confirmation { endpoint: Arc::clone(self) })
    }

    /// An origination succeeded. True if that closed its circuit.
    pub(crate) fn succeeded(&self) -> bool {
        // The usual case takes no shared lock.
        if self.circuit.borrow().breaker.is_spotless() {
            return false;
        }
        let mut closed = false;
        self.circuit.send_modify(|circuit| closed = circuit.breaker.succeeded(Instant::now()));
        closed
    }

    /// Records a failed origination that took `took`. True if that opened its circuit.
    pub(crate) fn failed(&self, reason: &'static str, kind: AttemptKind, took: Duration, settings: &Ejection) -> bool {
        self.fail(reason, |breaker| breaker.failed(kind, took, Instant::now(), settings, fastrand::f64()))
    }

    /// Records a refusal of egret's own connection after its handshake. True if that opened its circuit.
    pub(crate) fn refused_late(&self, reason: &'static str, settings: &Ejection) -> bool {
        self.proven.store(false, Ordering::Relaxed);
        self.fail(reason, |breaker| breaker.refused_late(Instant::now(), settings, fastrand::f64()))
    }

    fn fail(&self, reason: &'static str, count: impl FnOnce(&mut Breaker) -> bool) -> bool {
        let mut opened = false;
        self.circuit.send_modify(|circuit| {
            circuit.last_failure = Some(LastFailure { reason, at: SystemTime::now() });
            opened = count(&mut circuit.breaker);
        });
        opened
    }

    /// Whether an origination has succeeded, the server's judgement of our certificate included, and the circuit is
    /// closed.
    pub(crate) fn is_proven(&self, now: Instant) -> bool {
        self.proven.load(Ordering::Relaxed) && self.gate(now) == Gate::Closed
    }

    /// Records an origination that the server has accepted.
    pub(crate) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Records that a stream carried bytes of the server.
    pub(crate) fn served(&self) {
        self.prove();
        if self.circuit.borrow().breaker.is_suspected() {
            self.circuit.send_modify(|circuit| circuit.breaker.served());
        }
    }

    /// Waits until its circuit changes, at most until `until`. Cancel safe.
    pub(crate) async fn found_out(&self, until: Instant) {
        let mut changes = self.circuit.subscribe();
        if !matches!(changes.borrow_and_update().breaker.gate(Instant::now()), Gate::Trial { .. }) {
            return;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep_until(until) => {}
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} at {})", self.server, self.address)
    }
}

#[derive(Debug)]
#[must_use = "the stream counts as long as this lives"]
pub(crate) struct InFlight {
    endpoint: Arc<Endpoint>,
}

impl InFlight {
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The one trial of an open circuit. Dropped without an outcome, it does not count.
#[derive(Debug)]
#[must_use = "the trial is over when this is dropped"]
pub(crate) struct Trial {
    endpoint: Arc<Endpoint>,
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.endpoint.circuit.send_if_modified(|circuit| circuit.breaker.abandon_trial());
    }
}

#[derive(Debug)]
pub(crate) struct Confirmation {
    endpoint: Arc<Endpoint>,
}

impl Confirmation {
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for Confirmation {
    fn drop(&mut self) {
        self.endpoint.confirming.store(false, Ordering::Relaxed);
    }
}
