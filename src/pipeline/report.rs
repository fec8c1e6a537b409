//! The one log line and the one set of metrics of a connection.
//!
//! Every reason comes from the `reason()` of the stage that failed, so that log and metrics agree.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::credentials::refusal::Refusal;
use crate::net::{Peer, Stream};
use crate::observe::logging::flood::{self, Event, Key};
use crate::observe::logging::{milliseconds, seconds};
use crate::pipeline::answer::Parting;
use crate::pipeline::classify::{self, Protocol};
use crate::pipeline::originate::handshake::{self, Cause, Negotiated};
use crate::pipeline::originate::origin::resumption::Resumption;
use crate::pipeline::originate::servers::endpoint::{Endpoint, InFlight};
use crate::pipeline::originate::{Failure, Opened, Originated, Wire};
use crate::pipeline::relay::{Ended, Outcome};
use crate::pipeline::route::{NoRoute, Route, RouteTable};
use crate::protocols::answers::{Answer, AnswerFormat, Fault};
use crate::wording;

pub(crate) struct Report<'a> {
    routes: &'a RouteTable,
    client: &'a Peer,
    began: Instant,
}

/// Facts about an originated stream whose TLS state went into the relay.
pub(crate) struct Facts {
    endpoint: Arc<Endpoint>,
    asked: Option<Box<str>>,
    /// `None`: TLS is between the client and the server.
    negotiated: Option<Negotiated>,
    pooled: bool,
    /// A request to cancel another stream, whose client reads no answer.
    cancels: bool,
    /// How the client's first request begins, as far as it was read before the relay; zeros behind it.
    request: [u8; REQUEST_HEAD],
    /// From accept until the upstream was ready.
    ready: Duration,
    /// From accept until the relay began. Only a client of a warm connection that is slow to speak makes it later.
    relayed: Duration,
}

/// Bytes of a request that an answer refers to: the message id and the operation of LDAP are in the first 13.
const REQUEST_HEAD: usize = 16;

impl Facts {
    pub(crate) fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }
}

impl<'a> Report<'a> {
    /// Counts the connection as active until the report is dropped.
    pub(crate) fn begin(routes: &'a RouteTable, client: &'a Peer) -> Self {
        routes.metrics.active.increment(1.0);
        Self { routes, client, began: Instant::now() }
    }

    pub(crate) fn facts(&self, opened: Opened, protocol: Protocol, early: &[u8]) -> (Facts, Wire, InFlight) {
        let Opened { originated, in_flight, pooled, ready, cancels } = opened;
        let Originated { wire, endpoint, negotiated } = originated;
        let asked = match protocol {
            Protocol::Tls(hello) => hello.server_name,
            Protocol::Plaintext => None,
        };
        let ready = ready.into_std().saturating_duration_since(self.began);
        let mut request = [0; REQUEST_HEAD];
        request.iter_mut().zip(early).for_each(|(place, byte)| *place = *byte);
        let relayed = self.began.elapsed();
        let facts = Facts { endpoint, asked, negotiated, pooled, cancels, request, ready, relayed };
        (facts, wire, in_flight)
    }

    /// The client sent nothing, or nothing that can be served. Where a protocol is defined, its answer names the class:
    /// the person who reads it is not always the one who reads the log. A client of TLS reports that it got no TLS.
    pub(crate) fn unclassified(&self, error: &classify::Error) -> Option<Parting<'_>> {
        self.routes.metrics.refused.increment(error.reason());
        self.refused(error.reason(), error, error.repair().as_deref());
        let format = error.protocol_of_client().map_or_else(|| self.routes.answer(), |protocol| protocol.answer);
        self.parting(format, error.fault()?, error.reason())
    }

    pub(crate) fn unrouted(&self, error: &NoRoute, downstream: Stream) {
        // A reset could overtake the alert.
        classify::hello::send_unrecognized_name(&downstream);
        drop(downstream);
        self.routes.metrics.refused.increment(error.reason());
        self.refused(error.reason(), error, Some(&error.repair()));
    }

    /// One origination failed; another may follow.
    pub(crate) fn origination_failed(&self, route: &Route, failure: &Failure) {
        if failure.is_of_client() {
            let repair = failure.repair(route.originator.name());
            return self.refused(failure.reason(), failure, repair.as_deref());
        }
        let upstream = route.originator.name();
        let key = Key::new(Event::OriginationFailed, failure.reason()).upstream(upstream).endpoint(failure.endpoint);
        if !flood::is_first(key) {
            return;
        }
        let facts: serde_json::Map<String, serde_json::Value> =
            failure.facts().into_iter().map(|(fact, value)| (fact.to_owned(), value.into())).collect();
        tracing::warn!(
            listener = %self.routes.listener,
            client = %self.client,
            upstream = %upstream,
            server = %failure.server,
            endpoint = failure.endpoint.map(display),
            identity = route.originator.identity().map(display),
            reason = failure.reason(),
            detail = %failure,
            facts = %serde_json::Value::Object(facts),
            repair = failure.repair(upstream).map(|repair| route.originator.fit(repair)).map(display),
            "origination failed",
        );
    }

    /// All originations failed, before a byte of the client was sent.
    /// `next_packet`: see [`Answer`].
    pub(crate) fn unoriginated(
        &self,
        route: &Route,
        failure: &Failure,
        next_packet: Option<u8>,
    ) -> Option<Parting<'_>> {
        route.metrics.ended.increment(failure.reason());
        self.unserved(Some(route), failure.reason());
        let parting = self.parting(route.answer, failure.fault(), failure.reason())?;
        let message = failure.message(parting.format, next_packet);
        Some(Parting { message, answer: Answer { after: failure.after(), next_packet, ..parting.answer }, ..parting })
    }

    /// The client left, or the drain's deadline came, before the upstream was ready; `route` is known once one was
    /// asked. `next_packet`: see [`Answer`].
    pub(crate) fn over(&self, route: Option<&Route>, ended: &Ended, next_packet: Option<u8>) -> Option<Parting<'_>> {
        let counted = route.map_or(&self.routes.metrics.refused, |route| &route.metrics.ended);
        counted.increment(ended.reason());
        self.unserved(route, ended.reason());
        let format = route.map_or_else(|| self.routes.answer(), |route| route.answer);
        let parting = self.parting(format.filter(|_| *ended == Ended::Drained), Fault::Stopping, ended.reason())?;
        Some(Parting { answer: Answer { next_packet, ..parting.answer }, ..parting })
    }

    /// The answer to a client whose stream ended in this way before the server's first byte.
    pub(crate) fn unanswered<'b>(&'b self, route: &Route, facts: &'b Facts, ended: &Ended) -> Option<Parting<'b>> {
        let refused = late_refusal(ended, facts);
        let fault = match ended {
            _ if refused.is_some() => Fault::ClientCertificate,
            Ended::Drained => Fault::Stopping,
            _ => Fault::Ended,
        };
        let reason = refused.map_or_else(|| ended.reason(), |cause| cause.reason());
        let parting = self.parting(route.answer.filter(|_| !facts.cancels), fault, reason)?;
        let next_packet = route.originator.first_answer();
        Some(Parting { answer: Answer { next_packet, request: &facts.request, ..parting.answer }, ..parting })
    }

    fn parting(&self, format: Option<AnswerFormat>, fault: Fault, reason: &'static str) -> Option<Parting<'_>> {
        let listener = self.routes.listener.as_str();
        let answer = Answer { fault, reason, after: None, listener, request: &[], next_packet: None };
        format.map(|format| Parting { format, answer, message: Bytes::new() })
    }

    pub(crate) fn stream(&self, route: &Route, facts: &Facts, outcome: &Outcome) {
        if outcome.received > 0 {
            facts.endpoint.served();
        }
        let refused =
            Some(&outcome.ended).filter(|_| outcome.first_byte.is_none()).and_then(|ended| late_refusal(ended, facts));
        if let Some(cause) = &refused {
            self.refused_late(route, facts, cause);
        }
        let ended = refused.map_or_else(|| outcome.ended.reason(), |cause| cause.reason());
        route.metrics.ended.increment(ended);
        route.metrics.carried.increment(outcome.carrier.as_str());
        let Facts { endpoint, asked, negotiated, pooled, ready, relayed, .. } = facts;
        let verified = endpoint.origin().map(|origin| origin.server_name().to_str());
        let negotiated = negotiated.as_ref();
        let alpn = negotiated.and_then(|negotiated| negotiated.alpn.as_deref());
        let would_fail = negotiated.and_then(|negotiated| negotiated.would_fail.as_ref());
        tracing::info!(
            listener = %self.routes.listener,
            client = %self.client,
            upstream = %route.originator.name(),
            server = %endpoint.server(),
            endpoint = %endpoint.address(),
            identity = route.originator.identity().map(display),
            server_name = verified.as_deref().or(asked.as_deref()),
            tls_version = negotiated.map(|negotiated| negotiated.version),
            suite = negotiated.map(|negotiated| negotiated.suite),
            group = negotiated.map(|negotiated| negotiated.group),
            alpn = alpn.map(|alpn| String::from_utf8_lossy(alpn).into_owned()),
            resumed = negotiated.map(|negotiated| matches!(negotiated.resumed, Resumption::Resumed)),
            resumption = negotiated.map(|negotiated| negotiated.resumed.as_str()),
            would_fail = would_fail.map(Refusal::reason),
            pooled,
            ready_ms = milliseconds(*ready),
            first_byte_ms = outcome.first_byte.map(|first| milliseconds(*relayed + first)),
            sent = outcome.sent,
            received = outcome.received,
            mechanism = outcome.carrier.as_str(),
            ended,
            detail = detail(&outcome.ended),
            seconds = seconds(self.began.elapsed()),
            "connection",
        );
    }
}

impl Report<'_> {
    /// Logs a client for which no upstream was tried.
    fn refused(&self, reason: &'static str, error: &dyn fmt::Display, repair: Option<&str>) {
        if !flood::is_first(Key::new(Event::ClientDenied, reason).listener(&self.routes.listener)) {
            return;
        }
        tracing::warn!(
            listener = %self.routes.listener,
            client = %self.client,
            reason,
            detail = %error,
            repair,
            "client denied",
        );
    }

    /// Logs a connection whose upstream was never ready.
    fn unserved(&self, route: Option<&Route>, ended: &'static str) {
        let upstream = route.map(|route| route.originator.name());
        let key = Key::new(Event::Unserved, ended).listener(&self.routes.listener);
        let key = upstream.into_iter().fold(key, Key::upstream);
        if !flood::is_first(key) {
            return;
        }
        tracing::info!(
            listener = %self.routes.listener,
            client = %self.client,
            upstream = upstream.map(display),
            identity = route.and_then(|route| route.originator.identity()).map(display),
            sent = 0,
            received = 0,
            ended,
            seconds = seconds(self.began.elapsed()),
            "connection",
        );
    }

    /// The server judged our certificate after the handshake was over for us.
    fn refused_late(&self, route: &Route, facts: &Facts, cause: &Cause) {
        route.originator.stream_refused(&facts.endpoint, cause.reason());
        let address = facts.endpoint.address();
        let key = Key::new(Event::OriginationFailed, cause.reason()).upstream(route.originator.name());
        if !flood::is_first(key.endpoint(Some(address))) {
            return;
        }
        let request = facts.negotiated.as_ref().and_then(|negotiated| negotiated.client_certificate.as_ref());
        let repair = handshake::late_repair(cause, request, route.originator.name());
        tracing::warn!(
            listener = %self.routes.listener,
            client = %self.client,
            upstream = %route.originator.name(),
            server = %facts.endpoint.server(),
            endpoint = %address,
            identity = route.originator.identity().map(display),
            reason = cause.reason(),
            detail = match route.originator.is_for_clients() {
                true => "the server refused the client certificate after the handshake, as TLS 1.3 has it",
                false => "the server refused the client certificate: its extended key usage lacks clientAuth",
            },
            repair = repair.map(|repair| route.originator.fit(repair)).map(display),
            "origination failed",
        );
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        self.routes.metrics.active.decrement(1.0);
    }
}

fn detail(ended: &Ended) -> Option<String> {
    if *ended == Ended::RenegotiationDeclined {
        return Some(
            "the upstream asked for a renegotiation, got the alert no_renegotiation, and ended the stream".into(),
        );
    }
    let alert = ended.alert().map(|alert| format!("the upstream sent the alert {}", wording::alert(alert)));
    alert.or_else(|| ended.tls_error().map(|error| wording::sentence(error)))
}

/// The refusal of the client certificate that ended a stream before the server's first byte; after it, an alert is about
/// the data.
fn late_refusal(ended: &Ended, facts: &Facts) -> Option<Cause> {
    handshake::late_refusal(ended.alert()?, facts.negotiated.as_ref()?)
}
