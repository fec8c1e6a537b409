//! Records the outcome of originations in the health of their endpoints.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::observe::logging::flood::{self, Event, Key};
use crate::observe::logging::seconds;
use crate::observe::tasks::{self, Task};
use crate::pipeline::originate::attempts::Attempt;
use crate::pipeline::originate::dial;
use crate::pipeline::originate::failure::Failure;
use crate::pipeline::originate::servers::endpoint::{Confirmation, Endpoint};
use crate::pipeline::originate::servers::health::Gate;
use crate::pipeline::originate::upstream::Originator;

impl Originator {
    /// Records an attempt that reached this endpoint, failed or not.
    pub(super) fn record_outcome(&self, attempt: &Attempt, endpoint: &Endpoint, failure: Option<&Failure>) {
        match failure {
            None => self.record_success(endpoint),
            Some(failure) if failure.is_of_client() => {}
            Some(failure) if failure.ran_out_of_time() && !attempt.is_fair => {}
            Some(failure) => self.record_failure(attempt, endpoint, failure.reason()),
        }
    }

    pub(super) fn record_lost_race(
        &self,
        attempt: &Attempt,
        candidates: &[Arc<Endpoint>],
        lost: &[dial::ConnectFailure],
    ) {
        for loss in lost.iter().filter(|loss| !loss.cause.is_ours()) {
            let unfair = loss.cause == dial::Cause::Timeout && !attempt.is_fair;
            let endpoint = candidates.iter().find(|endpoint| endpoint.address() == loss.address);
            if let Some(endpoint) = endpoint.filter(|_| !unfair) {
                self.record_failure(attempt, endpoint, loss.cause.reason());
            }
        }
    }

    /// The server refused egret's own connection after the handshake, on which no client has said a byte.
    pub(super) fn failed_late(&self, endpoint: &Endpoint, reason: &'static str) {
        self.metrics.failures.increment(reason);
        if endpoint.refused_late(reason, &self.rules.ejection) {
            self.log_ejected(endpoint, reason);
        }
    }

    /// The server ended a client's stream with a judgement on the client certificate.
    ///
    /// That is no evidence against the endpoint: the client may have provoked it with what it said, and one client must
    /// not eject an endpoint for all. If there is another endpoint, a connection of egret's own checks it.
    pub(crate) fn stream_refused(self: &Arc<Self>, endpoint: &Arc<Endpoint>, reason: &'static str) {
        self.metrics.failures.increment(reason);
        let is_alone = self.endpoints.known().list().len() < 2;
        if is_alone || endpoint.origin().is_none() || endpoint.gate(Instant::now()) != Gate::Closed {
            return;
        }
        if let Some(confirmation) = endpoint.begin_confirmation() {
            let originator = Arc::clone(self);
            tokio::spawn(async move {
                let confirmed = originator.confirm(confirmation);
                tasks::once(Task::Confirmation, &originator.metrics.registry, confirmed).await;
            });
        }
    }

    /// Checks whether the server also refuses a connection without data; `make_ready` counts that.
    async fn confirm(&self, confirmation: Confirmation) {
        let endpoint = confirmation.endpoint();
        let Some(attempt) = Attempt::check(endpoint, Instant::now() + self.timeout) else { return };
        if let Ok((warm, _)) = self.make_ready(&attempt).await {
            endpoint.served();
            warm.leave();
        }
    }

    pub(super) fn record_success(&self, endpoint: &Endpoint) {
        let key = || Key::new(Event::EndpointBack, "recovered").upstream(&self.name).endpoint(Some(endpoint.address()));
        if endpoint.succeeded() && flood::is_first(key()) {
            tracing::info!(
                upstream = %self.name,
                server = %endpoint.server(),
                endpoint = %endpoint.address(),
                "endpoint is back",
            );
        }
    }

    fn record_failure(&self, attempt: &Attempt, endpoint: &Endpoint, reason: &'static str) {
        if endpoint.failed(reason, attempt.kind_at(endpoint), attempt.began.elapsed(), &self.rules.ejection) {
            self.log_ejected(endpoint, reason);
        }
    }

    /// Logs the failure of an origination that no client waited for.
    pub(super) fn log_failure(&self, event: Event, failure: &Failure) {
        let key = Key::new(event, failure.reason()).upstream(&self.name).endpoint(failure.endpoint);
        if !flood::is_first(key) {
            return;
        }
        let facts: serde_json::Map<String, serde_json::Value> =
            failure.facts().into_iter().map(|(fact, value)| (fact.to_owned(), value.into())).collect();
        tracing::warn!(
            upstream = %self.name,
            server = %failure.server,
            endpoint = failure.endpoint.map(tracing::field::display),
            identity = self.identity.as_ref().map(tracing::field::display),
            reason = failure.reason(),
            detail = %failure,
            facts = %serde_json::Value::Object(facts),
            repair = failure.repair(&self.name).map(|repair| self.fit(repair)).map(tracing::field::display),
            "{}",
            event.as_str(),
        );
    }

    fn log_ejected(&self, endpoint: &Endpoint, reason: &'static str) {
        let key = Key::new(Event::EndpointEjected, reason).upstream(&self.name).endpoint(Some(endpoint.address()));
        if !flood::is_first(key) {
            return;
        }
        let now = Instant::now();
        let left = match endpoint.gate(now) {
            Gate::Open { until, .. } => until.saturating_duration_since(now),
            Gate::Closed | Gate::Due | Gate::Trial { .. } => Duration::ZERO,
        };
        tracing::warn!(
            upstream = %self.name,
            server = %endpoint.server(),
            endpoint = %endpoint.address(),
            reason,
            seconds = seconds(left),
            "endpoint ejected",
        );
    }
}
