//! Background work of an upstream: refreshes names, checks addresses, begins a handshake ahead of its client.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::values::{ActiveCheck, Host};
use crate::observe::tasks::{self, Task};
use crate::pipeline::originate::attempts::Attempt;
use crate::pipeline::originate::origin::Origin;
use crate::pipeline::originate::pool::waiting;
use crate::pipeline::originate::servers::endpoint::Endpoint;
use crate::pipeline::originate::upstream::Originator;

/// Between two checks for expired DNS answers that are in use. The default `min_ttl`.
const LOOK: Duration = Duration::from_secs(1);

/// Checks are shifted by up to this part, so that many upstreams and processes do not check in step.
const JITTER: f64 = 0.1;

impl Originator {
    /// Ends when the originator is dropped. To be called once.
    pub(crate) fn start(self: &Arc<Self>) {
        if self.servers().iter().any(|server| !matches!(server.configured.host, Host::Ip(_))) {
            tasks::spawn_for(Task::DnsRefresh, &self.metrics.registry, self, keep_fresh);
        }
        if let Some(check) = self.check {
            let work = move |originator| keep_checking(originator, check);
            tasks::spawn_for(Task::HealthChecks, &self.metrics.registry, self, work);
        }
    }

    /// Begins the next handshake with an endpoint to which a stream has just ended, if no client waits. A client of an
    /// upstream with a pool finds a finished one. To be called in a runtime.
    pub(crate) fn begin_next(&self, endpoint: &Endpoint) {
        let Some(origin) = endpoint.origin().filter(|_| self.pool().is_none() && waiting::clients() == 0) else {
            return;
        };
        if endpoint.tolerances().leave_nothing_out() && origin.begin_ahead(endpoint.address()) {
            let (watch, registry) = (drop_when_old(Arc::downgrade(origin)), self.metrics.registry.clone());
            tokio::spawn(async move { tasks::once(Task::Ahead, &registry, watch).await });
        }
    }

    /// The answers of DNS are needed although no stream asks for them.
    fn is_in_use(&self) -> bool {
        self.check.is_some()
            || self.idle() > 0
            || self.endpoints.known().list().iter().any(|member| member.endpoint.in_flight() > 0)
    }

    /// Checks every endpoint that is not in back-off. Failures are counted, and logged when they eject.
    async fn check_all(self: Arc<Self>, check: ActiveCheck) {
        let deadline = Instant::now() + self.timeout;
        let members = self.endpoints.current(deadline).await;
        let mut checks = JoinSet::new();
        for member in members.list() {
            if let Some(attempt) = Attempt::check(&member.endpoint, deadline) {
                let originator = Arc::clone(&self);
                checks.spawn(async move {
                    let checked = originator.check(&attempt, check.kind);
                    let done = tasks::once(Task::HealthCheck, &originator.metrics.registry, checked).await;
                    if let Some(Err(failure)) = done {
                        originator.metrics.failures.increment(failure.reason());
                    }
                });
            }
        }
        while checks.join_next().await.is_some() {}
    }
}

async fn keep_fresh(originator: Weak<Originator>) {
    loop {
        sleep(LOOK).await;
        let Some(originator) = originator.upgrade() else { return };
        if originator.is_in_use() {
            originator.endpoints.refresh();
        }
    }
}

async fn drop_when_old(origin: Weak<Origin>) {
    while let Some(until) = origin.upgrade().and_then(|origin| origin.ahead().drop_old(Instant::now())) {
        sleep_until(until).await;
    }
}

async fn keep_checking(originator: Weak<Originator>, check: ActiveCheck) {
    loop {
        // The first check at once: with the pause before it, the health would be unknown for that long after a start or
        // reload.
        let Some(alive) = originator.upgrade() else { return };
        alive.check_all(check).await;
        sleep(check.interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())).await;
    }
}
