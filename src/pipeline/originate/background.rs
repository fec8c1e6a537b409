//! What goes on for an upstream while no stream comes: names are kept fresh, addresses are checked.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::config::values::{ActiveCheck, Host};
use crate::observe::tasks::{self, Task};
use crate::pipeline::originate::attempts::Attempt;
use crate::pipeline::originate::upstream::Originator;

/// Between two looks whether answers of DNS are over that somebody depends on. The shortest time to live by default.
const LOOK: Duration = Duration::from_secs(1);

/// A check comes earlier or later by up to this part, so that many upstreams and processes do not ask in step.
const JITTER: f64 = 0.1;

impl Originator {
    /// Begins the work; it ends when the originator is dropped. To be called once.
    pub(crate) fn start(self: &Arc<Self>) {
        if self.servers().iter().any(|server| !matches!(server.configured.host, Host::Ip(_))) {
            tasks::spawn_for(Task::DnsRefresh, &self.metrics.registry, self, keep_fresh);
        }
        if let Some(check) = self.check {
            let work = move |originator| keep_checking(originator, check);
            tasks::spawn_for(Task::HealthChecks, &self.metrics.registry, self, work);
        }
    }

    /// Somebody depends on what DNS says now, though nobody asks.
    fn is_in_use(&self) -> bool {
        self.check.is_some()
            || self.stock() > 0
            || self.endpoints.known().list().iter().any(|member| member.endpoint.in_flight() > 0)
    }

    /// One check of every endpoint that is not left alone. Failures are counted, and logged when they eject.
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

async fn keep_checking(originator: Weak<Originator>, check: ActiveCheck) {
    loop {
        // The first at once: with the pause before it, a start or reload would be blind for so long.
        let Some(alive) = originator.upgrade() else { return };
        alive.check_all(check).await;
        sleep(check.interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())).await;
    }
}
