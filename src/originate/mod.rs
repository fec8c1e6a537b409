//! From an upstream's name to a verified TLS stream: resolve, dial, upgrade, handshake, in one deadline.
//!
//! An [`Originator`] is one upstream's way out. It owns an [`origin::Origin`] per server name, and each origin
//! owns its verifier, its client certificate and its resumption store: what belongs to one identity has no road
//! to another. Each address of a server is an [`Endpoint`]. Origins and endpoints are carried over a reload as
//! the same objects when nothing of the origin's key changed.

pub mod certificate;
pub mod dial;
pub mod endpoint;
pub mod endpoints;
mod failure;
pub mod files;
pub mod fingerprint;
pub mod handshake;
pub mod identity;
pub mod key_log;
pub mod observe;
pub mod origin;
pub mod pem;
pub mod presented;
pub mod refusal;
pub mod resolve;
pub mod resumption;
mod round;
pub mod trust;
pub mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use metrics::Histogram;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::config::values::{self, Name, Upgrade};
use crate::metrics::UpstreamMetrics;
use crate::net::{Options, Role};
use crate::tls::handshake::Established;
use endpoint::{Endpoint, InFlight};
use endpoints::{Endpoints, Way};
pub use failure::{Failure, Phase, Stage};
use handshake::Negotiated;
use resolve::Resolver;
use resumption::Resumption;
use round::{Round, Turn};

/// One upstream's way out.
pub struct Originator {
    name: Name,
    identity: Option<Name>,
    endpoints: Endpoints,
    upgrade: Option<Upgrade>,
    /// For all endpoints together.
    timeout: Duration,
    /// Of connections to its servers.
    options: Options,
    metrics: UpstreamMetrics,
}

/// A finished origination: a stream on which nothing was said yet.
pub struct Originated {
    /// What the relay gets.
    pub wire: Wire,
    /// Where it goes.
    pub endpoint: Arc<Endpoint>,
    /// What was agreed on; for TLS of egret's own.
    pub negotiated: Option<Negotiated>,
}

/// What stands towards a server.
#[expect(clippy::large_enum_variant, reason = "each is moved once, and most are of the larger kind")]
pub enum Wire {
    /// TLS, verified for the name of the endpoint's origin.
    Tls(Established),
    /// A bare connection: TLS is between the client and the server.
    Plain(TcpStream),
}

/// An origination for a client, counted at its endpoint while the guard lives.
pub struct Opened {
    /// The stream.
    pub originated: Originated,
    /// To be held as long as the stream.
    pub in_flight: InFlight,
}

impl Originator {
    /// A way out over `ways`. Endpoints of `previous`, the generation before, are taken over where nothing of
    /// their origin changed.
    pub fn new(
        name: Name,
        spec: &values::Upstream,
        ways: Vec<Way>,
        resolver: Arc<Resolver>,
        metrics: UpstreamMetrics,
        previous: Option<&Self>,
    ) -> Self {
        let endpoints = Endpoints::new(ways, resolver, previous.map(|previous| &previous.endpoints));
        let (identity, upgrade, timeout) = (spec.tls.identity.clone(), spec.upgrade, spec.originate_timeout);
        let options = Options::of_or_warn(&spec.tcp, Role::Connect, &name);
        Self { name, identity, endpoints, upgrade, timeout, options, metrics }
    }

    /// The upstream's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The identity that is presented.
    pub fn identity(&self) -> Option<&Name> {
        self.identity.as_ref()
    }

    /// The servers and their origins.
    pub fn ways(&self) -> &[Way] {
        self.endpoints.ways()
    }

    /// The addresses of the servers.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// A new stream to the first endpoint that lets us. All tries share one deadline; each may use an equal part
    /// of what is left, so that one black hole does not take the time of the endpoints behind it.
    ///
    /// # Errors
    /// The failure of the last try; every failure is handed to `failed` and counted.
    ///
    /// Cancel safe: dropping the future closes whatever was begun.
    pub async fn open(&self, mut failed: impl FnMut(&Failure)) -> Result<Opened, Failure> {
        let mut round = self.round().await;
        let mut last = None;
        while let Some(turn) = round.next() {
            match self.originate_in(&turn).await {
                Ok(originated) => {
                    let in_flight = turn.won(originated.endpoint.address());
                    return Ok(Opened { originated, in_flight });
                }
                Err(failure) => {
                    self.tell(&failure, &mut failed);
                    round.lost(&turn, &failure.addresses());
                    last = Some(failure);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.nowhere(failed)))
    }

    /// A fresh origination to this endpoint and no other: for whoever fills a shelf or checks health.
    ///
    /// # Errors
    /// Why it failed; counted.
    ///
    /// Cancel safe, as [`Originator::open`].
    pub async fn originate_to(&self, endpoint: &Arc<Endpoint>, deadline: Instant) -> Result<Originated, Failure> {
        let tcp = self.connect(&[Arc::clone(endpoint)], deadline).await;
        let originated = match tcp {
            Ok((tcp, endpoint)) => self.shake(tcp, endpoint, deadline).await,
            Err(failure) => Err(failure),
        };
        originated.inspect_err(|failure| self.metrics.failures.increment(failure.reason()))
    }

    /// The tries that a new stream has.
    async fn round(&self) -> Round {
        let began = Instant::now();
        let deadline = began + self.timeout;
        let members = self.endpoints.current(deadline).await;
        lap(began, &self.metrics.resolve);
        Round::new(&members, deadline)
    }

    async fn originate_in(&self, turn: &Turn) -> Result<Originated, Failure> {
        let (tcp, endpoint) = self.connect(&turn.candidates(), turn.deadline).await?;
        self.shake(tcp, endpoint, turn.deadline).await
    }

    /// A connection on which TLS can begin: dial and upgrade. The candidates are addresses of one server; the
    /// first that answers it is.
    async fn connect(
        &self,
        candidates: &[Arc<Endpoint>],
        deadline: Instant,
    ) -> Result<(TcpStream, Arc<Endpoint>), Failure> {
        let began = Instant::now();
        let addresses: Vec<_> = candidates.iter().map(|endpoint| endpoint.address()).collect();
        let dialed = dial::dial_before(&addresses, &self.options, Some(deadline)).await;
        let (mut tcp, address) = dialed.map_err(|error| Failure::at(&candidates[0], Stage::Dial(error)))?;
        let began = lap(began, &self.metrics.dial);
        let won = candidates.iter().find(|endpoint| endpoint.address() == address);
        let won = won.expect("the dial answers with an address that it was given");
        self.upgrade(&mut tcp, deadline).await.map_err(|stage| Failure::at(won, stage))?;
        lap(began, &self.metrics.upgrade);
        Ok((tcp, Arc::clone(won)))
    }

    /// TLS over the connection, if egret is to speak it.
    async fn shake(&self, tcp: TcpStream, endpoint: Arc<Endpoint>, deadline: Instant) -> Result<Originated, Failure> {
        let Some(origin) = endpoint.origin() else {
            return Ok(Originated { wire: Wire::Plain(tcp), endpoint, negotiated: None });
        };
        let (began, address) = (Instant::now(), endpoint.address());
        let shaken = timeout_at(deadline, handshake::handshake(tcp, address, origin)).await;
        let shaken = shaken.unwrap_or_else(|_| Err(handshake::Error::timed_out(began.elapsed(), address, origin)));
        let (stream, negotiated) = shaken.map_err(|error| Failure::at(&endpoint, Stage::Handshake(error)))?;
        lap(
            began,
            match negotiated.resumed {
                Resumption::Resumed => &self.metrics.handshake_resumed,
                Resumption::Refused | Resumption::Starved | Resumption::Off => &self.metrics.handshake_full,
            },
        );
        self.count(&negotiated);
        Ok(Originated { wire: Wire::Tls(stream), endpoint, negotiated: Some(negotiated) })
    }

    async fn upgrade(&self, tcp: &mut TcpStream, deadline: Instant) -> Result<(), Stage> {
        let Some(kind) = self.upgrade else { return Ok(()) };
        match timeout_at(deadline, upgrade::upgrade(kind, tcp)).await {
            Ok(done) => done.map_err(Stage::Upgrade),
            Err(_) => Err(Stage::Deadline(Phase::Upgrade)),
        }
    }

    /// There was nothing to try: the name of every server failed, and the last failure is the stream's.
    fn nowhere(&self, mut failed: impl FnMut(&Failure)) -> Failure {
        let mut failures: Vec<_> = self.endpoints.missing().into_iter().map(Failure::unresolved).collect();
        if failures.is_empty() {
            // An answer has come just now, too late for this stream.
            let servers = self.ways().iter().map(|way| way.server.clone());
            failures.extend(servers.map(|server| Failure::unresolved((server, None))));
        }
        failures.iter().for_each(|failure| self.tell(failure, &mut failed));
        failures.pop().expect("an upstream has at least one server, checked when the configuration is resolved")
    }

    fn tell(&self, failure: &Failure, failed: &mut impl FnMut(&Failure)) {
        self.metrics.failures.increment(failure.reason());
        failed(failure);
    }

    /// Counts a failure that showed itself only after the handshake.
    pub fn failed_late(&self, reason: &'static str) {
        self.metrics.failures.increment(reason);
    }

    fn count(&self, negotiated: &Negotiated) {
        self.metrics.resumption.increment(negotiated.resumed.as_str());
        if let Some(refusal) = &negotiated.would_fail {
            self.metrics.would_fail.increment(refusal.reason());
        }
        if let Some(server) = &negotiated.server {
            // A gauge is a float: exact to the second for a hundred million years.
            self.metrics.server_not_after.set(server.not_after.0 as f64);
        }
    }
}

fn lap(since: Instant, histogram: &Histogram) -> Instant {
    let now = Instant::now();
    histogram.record(now - since);
    now
}
