//! The originator of one upstream: what it owns, and one attempt.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use metrics::Histogram;
use rustls::AlertDescription;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::config::values::{self, ActiveCheck, CheckKind, Name, Server};
use crate::config::{Source, fit};
use crate::credentials::part::Broken;
use crate::credentials::trust::Trust;
use crate::net::{Options, Role};
use crate::observe::metrics::UpstreamMetrics;
use crate::pipeline::originate::attempts::{Attempt, Attempts, Exhausted, Rules};
use crate::pipeline::originate::cancellation::{Cancellable, Sessions};
use crate::pipeline::originate::dial;
use crate::pipeline::originate::failure::{Failure, NextTrial, Stage};
use crate::pipeline::originate::handshake::Negotiated;
use crate::pipeline::originate::pool::Pool;
use crate::pipeline::originate::pool::hand_over::Client;
use crate::pipeline::originate::servers::account::Account;
use crate::pipeline::originate::servers::endpoint::{Endpoint, InFlight};
use crate::pipeline::originate::servers::endpoints::{Endpoints, UpstreamServer};
use crate::pipeline::originate::servers::resolve::Resolver;
use crate::protocols::Upgrade;
use crate::tls::handshake::Established;

/// The trust of an upstream in the running generation; all its generations share it. `None`: none came after the first.
pub(super) type Running = Arc<watch::Sender<Option<Arc<Trust>>>>;

pub(crate) struct Originator {
    pub(super) name: Name,
    pub(super) identity: Option<Name>,
    pub(super) endpoints: Endpoints,
    pub(super) upgrade: Option<Upgrade>,
    /// For all endpoints together.
    pub(super) timeout: Duration,
    pub(super) options: Options,
    pub(super) rules: Rules,
    pub(super) check: Option<ActiveCheck>,
    pub(super) closes_on_removal: bool,
    pub(super) running: Running,
    pub(super) sessions: Sessions,
    pub(super) lacks: Option<Lack>,
    pub(super) metrics: UpstreamMetrics,
    pub(super) pool: Option<Pool>,
    /// The request for TLS of the last client, of a protocol in which it is the client's; all generations of the upstream
    /// share it. Connections for the pool are made with it.
    pub(super) request: Arc<Mutex<Option<Bytes>>>,
    pub(super) replenisher: Mutex<Option<AbortHandle>>,
    pub(super) source: Option<Arc<Source>>,
}

pub(super) struct Lack {
    pub(super) broken: Arc<Broken>,
    /// The first that the upstream would go to.
    pub(super) server: Server,
}

pub(crate) struct Originated {
    pub(crate) wire: Wire,
    pub(crate) endpoint: Arc<Endpoint>,
    /// `None` if the client makes TLS.
    pub(crate) negotiated: Option<Negotiated>,
}

#[expect(clippy::large_enum_variant, reason = "each is moved once, and most are of the larger kind")]
pub(crate) enum Wire {
    /// TLS, verified for the name of the endpoint's origin.
    Tls(Established),
    /// A bare connection: TLS is between the client and the server.
    Plain(TcpStream),
}

impl Wire {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Tls(established) => &established.tcp,
            Self::Plain(tcp) => tcp,
        }
    }

    /// What the server said before TLS, for its client.
    pub(crate) fn greeting(&self) -> &[u8] {
        match self {
            Self::Tls(established) => &established.greeting,
            Self::Plain(_) => &[],
        }
    }
}

/// A connection on which TLS can begin.
pub(super) struct Upgraded {
    pub(super) tcp: TcpStream,
    /// What the client has to read first.
    pub(super) greeting: Bytes,
}

/// An origination for a client, counted at its endpoint while the guard lives.
pub(crate) struct Opened {
    pub(crate) originated: Originated,
    pub(crate) in_flight: InFlight,
    /// It was warm: no handshake had to be waited for.
    pub(crate) pooled: bool,
    pub(crate) ready: Instant,
    /// The stream is a request to cancel another one.
    pub(crate) cancels: bool,
}

impl Originator {
    /// A way out over `ways`. Endpoints of `previous`, the generation before, are taken over where nothing of
    /// their origin changed.
    pub(crate) fn new(
        name: Name,
        spec: &values::Upstream,
        servers: Vec<UpstreamServer>,
        resolver: Arc<Resolver>,
        metrics: UpstreamMetrics,
        previous: Option<&Self>,
    ) -> Self {
        let registry = metrics.registry.clone();
        let upstream = name.clone();
        let account = move |address| Account::new(&registry, &upstream, address);
        let endpoints = Endpoints::new(servers, resolver, account, previous.map(|previous| &previous.endpoints));
        let identity = spec.tls.identity.clone();
        let upgrade = spec.upgrade;
        let timeout = spec.originate_timeout;
        let mut options = Options::of_or_warn(&spec.tcp, Role::Connect, &name);
        if !spec.passthrough && upgrade.is_none_or(Upgrade::waits_for_client) {
            // A ClientHello, or the request of an upgrade.
            options = options.speaking_first();
        }
        let rules =
            Rules { strategy: spec.balance.strategy, ejection: spec.ejection, checked: spec.active_check.is_some() };
        Self {
            name,
            identity,
            endpoints,
            upgrade,
            timeout,
            options,
            rules,
            check: spec.active_check,
            closes_on_removal: spec.close_on_removal,
            sessions: previous.map(|previous| previous.sessions.clone()).unwrap_or_default(),
            running: previous.map_or_else(Running::default, |previous| Arc::clone(&previous.running)),
            lacks: None,
            metrics,
            pool: None,
            request: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.request)),
            replenisher: Mutex::default(),
            source: None,
        }
    }

    /// An originator without servers, since its identity or its trust cannot be used: nothing can be sent under another
    /// identity, or under none.
    pub(crate) fn unavailable(
        name: Name,
        spec: &values::Upstream,
        resolver: Arc<Resolver>,
        metrics: UpstreamMetrics,
        broken: Arc<Broken>,
    ) -> Self {
        let server =
            spec.servers.first().expect("an upstream has a server: checked when the configuration is resolved");
        let lacks = Some(Lack { broken, server: server.clone() });
        Self { lacks, check: None, ..Self::new(name, spec, Vec::new(), resolver, metrics, None) }
    }

    pub(crate) fn lacks(&self) -> Option<&Arc<Broken>> {
        self.lacks.as_ref().map(|lack| &lack.broken)
    }

    #[must_use]
    pub(crate) fn with_source(self, source: Option<Arc<Source>>) -> Self {
        Self { source, ..self }
    }

    /// The repair as a change of the user's own file.
    pub(crate) fn fit(&self, repair: String) -> String {
        self.source.as_ref().map_or_else(|| repair.clone(), |source| fit(&repair, source))
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn identity(&self) -> Option<&Name> {
        self.identity.as_ref()
    }

    /// Whether the extended key usage of the certificate that is presented, if any, is for clients.
    pub(crate) fn is_for_clients(&self) -> bool {
        let identities = self.servers().iter().filter_map(|server| server.origin.as_ref()?.identity());
        identities.into_iter().all(|identity| identity.leaf().for_clients)
    }

    pub(crate) fn servers(&self) -> &[UpstreamServer] {
        self.endpoints.servers()
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(crate) fn closes_on_removal(&self) -> bool {
        self.closes_on_removal
    }

    /// `None`: sessions of this upstream are not cancelled by other connections.
    pub(crate) fn cancellable(&self, endpoint: &Arc<Endpoint>) -> Option<Box<Cancellable>> {
        let cancellation = self.upgrade.as_ref()?.cancellation.as_ref()?;
        Some(Box::new(Cancellable::new(&self.sessions, endpoint, cancellation)))
    }

    /// A pool with room makes the trials itself: no client waits for one.
    pub(super) fn rules_for_clients(&self) -> Rules {
        let tried = self.rules.checked || self.pool.as_ref().is_some_and(Pool::has_room);
        Rules { checked: tried, ..self.rules }
    }

    pub(super) async fn attempts(&self, rules: Rules) -> Attempts {
        self.attempts_until(rules, Instant::now() + self.timeout).await
    }

    pub(super) async fn attempts_until(&self, rules: Rules, deadline: Instant) -> Attempts {
        let began = Instant::now();
        let members = self.endpoints.current(deadline).await;
        record_since(began, &self.metrics.resolve);
        Attempts::new(rules, members, self.timeout, deadline)
    }

    /// An active check: a connection, or all that a stream does before its first byte.
    pub(super) async fn check(&self, attempt: &Attempt, kind: CheckKind) -> Result<(), Failure> {
        match kind {
            CheckKind::Tcp => {
                let addresses = [attempt.endpoint().address()];
                let dialed = dial::race(&addresses, &self.options, Some(attempt.deadline)).await;
                let lost = dialed.as_ref().map_or_else(|error| &error.attempts, |won| &won.lost);
                self.record_lost_race(attempt, &attempt.candidates(), lost);
                dialed.map_err(|error| Failure::at(attempt.endpoint(), Stage::Dial(error)))?;
                self.record_success(attempt.endpoint());
            }
            CheckKind::Tls => {
                let originated = self.originate_in(attempt, None).await?;
                if let Wire::Tls(stream) = originated.wire {
                    let _ = timeout_at(attempt.deadline, stream.leave(AlertDescription::CloseNotify)).await;
                }
            }
        }
        Ok(())
    }

    /// Dial and upgrade. The first of the attempt's candidates that answers is
    /// used. Failures count for health; a success does not yet if a handshake follows.
    pub(super) async fn connect(
        &self,
        attempt: &Attempt,
        client: Option<&mut Client<'_>>,
    ) -> Result<(Upgraded, Arc<Endpoint>), Failure> {
        let candidates = attempt.candidates();
        let addresses: Vec<_> = candidates.iter().map(|endpoint| endpoint.address()).collect();
        let dialed = dial::race(&addresses, &self.options, Some(attempt.deadline)).await;
        self.record_lost_race(
            attempt,
            &candidates,
            dialed.as_ref().map_or_else(|error| &error.attempts, |won| &won.lost),
        );
        let dialed = dialed.map_err(|error| Failure::at(attempt.endpoint(), Stage::Dial(error)))?;
        let began = record_since(attempt.began, &self.metrics.dial);
        let won = candidates.into_iter().find(|endpoint| endpoint.address() == dialed.address);
        let won = won.expect("the race is won by an address that was in it");
        match self.prepare(dialed.tcp, won.origin(), client, attempt.deadline).await {
            Ok(upgraded) => {
                record_since(began, &self.metrics.upgrade);
                Ok((upgraded, won))
            }
            Err(stage) => {
                let failure = Failure::at(&won, stage);
                self.record_outcome(attempt, &won, Some(&failure));
                Err(failure)
            }
        }
    }

    /// The failure of a stream for which nothing was tried.
    pub(super) fn untried(&self, exhausted: Exhausted, mut failed: impl FnMut(&Failure)) -> Failure {
        let failure = match exhausted {
            Exhausted::Open(endpoint, left) => {
                let last = endpoint.health_status(Instant::now()).last_failure.map(|failure| failure.reason);
                Failure::at(&endpoint, Stage::CircuitOpen(NextTrial { last, left }))
            }
            Exhausted::Full(endpoint) => Failure::at(&endpoint, Stage::Full),
            Exhausted::Nowhere | Exhausted::Tried => return self.nowhere(failed),
        };
        self.report_failure(&failure, &mut failed);
        failure
    }

    /// Reports the failure of every server's name; the last one is the stream's.
    pub(super) fn nowhere(&self, mut failed: impl FnMut(&Failure)) -> Failure {
        let mut failures: Vec<_> = self.endpoints.missing().into_iter().map(Failure::unresolved).collect();
        if failures.is_empty() {
            // An answer has just come, too late for this stream.
            let servers = self.servers().iter().map(|server| server.configured.clone());
            failures.extend(servers.map(|server| Failure::unresolved((server, None))));
        }
        failures.iter().for_each(|failure| self.report_failure(failure, &mut failed));
        failures.pop().expect("an upstream has at least one server, checked when the configuration is resolved")
    }

    pub(super) fn report_failure(&self, failure: &Failure, failed: &mut impl FnMut(&Failure)) {
        if !failure.is_of_client() {
            self.metrics.failures.increment(failure.reason());
        }
        failed(failure);
    }
}

pub(super) fn record_since(since: Instant, histogram: &Histogram) -> Instant {
    let now = Instant::now();
    histogram.record(now - since);
    now
}
