//! From an upstream's name to a verified TLS stream: resolve, dial, upgrade, handshake, in one deadline.
//!
//! An [`Originator`] is one upstream's way out. It owns an [`Origin`] per server name, and each origin owns
//! its verifier, its client certificate and its resumption store: what belongs to one identity has no road to
//! another. Origins are carried over a reload as the same objects when nothing of their key changed.

pub mod certificate;
pub mod dial;
pub mod files;
pub mod fingerprint;
pub mod handshake;
pub mod identity;
pub mod key_log;
pub mod observe;
pub mod origin;
pub mod pem;
pub mod refusal;
pub mod resolve;
pub mod resumption;
pub mod trust;
pub mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::Histogram;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::config::values::{self, Name, Server, Upgrade};
use crate::metrics::UpstreamMetrics;
use crate::tls::handshake::Established;
use handshake::Negotiated;
use origin::Origin;
use resolve::Resolver;
use resumption::Resumption;

/// One upstream's way out.
pub struct Originator {
    name: Name,
    identity: Option<Name>,
    ways: Vec<Way>,
    upgrade: Option<Upgrade>,
    /// For all servers together.
    timeout: Duration,
    resolver: Arc<Resolver>,
    metrics: UpstreamMetrics,
}

/// A server and the origin that speaks to it.
pub struct Way {
    /// As configured.
    pub server: Server,
    /// The same for all servers of one name.
    pub origin: Arc<Origin>,
}

/// A finished origination: a TLS stream on which nothing was said yet.
pub struct Originated {
    /// Verified.
    pub stream: Established,
    /// The server, as configured.
    pub server: Server,
    /// Its address.
    pub endpoint: SocketAddr,
    /// What was verified, and sent as SNI if it is a DNS name.
    pub server_name: ServerName<'static>,
    /// What was agreed on.
    pub negotiated: Negotiated,
}

impl Originator {
    /// A way out over `ways`, tried in order.
    pub fn new(
        name: Name,
        spec: &values::Upstream,
        ways: Vec<Way>,
        resolver: Arc<Resolver>,
        metrics: UpstreamMetrics,
    ) -> Self {
        let (identity, upgrade, timeout) = (spec.tls.identity.clone(), spec.upgrade, spec.originate_timeout);
        Self { name, identity, ways, upgrade, timeout, resolver, metrics }
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
        &self.ways
    }

    /// A new stream to the first server that lets us. All servers share one deadline; each may use an equal
    /// part of what is left, so that one black hole does not take the time of the servers behind it.
    ///
    /// # Errors
    /// The failure of the last server; every failure is handed to `failed` and counted.
    ///
    /// Cancel safe: dropping the future closes whatever was begun.
    pub async fn open(&self, mut failed: impl FnMut(&Failure)) -> Result<Originated, Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut last = None;
        for (tried, way) in self.ways.iter().enumerate() {
            let left = u32::try_from(self.ways.len() - tried).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match self.attempt(way, Instant::now() + share).await {
                Ok((stream, endpoint, negotiated)) => {
                    self.count(&negotiated);
                    let (server, server_name) = (way.server.clone(), way.origin.server_name().clone());
                    return Ok(Originated { stream, server, endpoint, server_name, negotiated });
                }
                Err((stage, endpoint)) => {
                    let failure = Failure { stage, server: way.server.clone(), endpoint };
                    self.metrics.failures.increment(failure.reason());
                    failed(&failure);
                    last = Some(failure);
                }
            }
        }
        Err(last.expect("an upstream has at least one server, checked when the configuration is resolved"))
    }

    /// One server: every phase under the same deadline; the failure says in which phase it came.
    async fn attempt(&self, way: &Way, deadline: Instant) -> Result<Attempted, (Stage, Option<SocketAddr>)> {
        let began = Instant::now();
        let looked_up = timeout_at(deadline, self.resolver.resolve(&way.server.host)).await;
        let addresses = match looked_up {
            Ok(found) => found.map_err(|error| (Stage::Resolve(error), None))?,
            Err(_) => return Err((Stage::Deadline(Phase::Resolve), None)),
        };
        let began = lap(began, &self.metrics.resolve);

        let addresses: Vec<SocketAddr> = addresses.iter().map(|ip| SocketAddr::new(*ip, way.server.port)).collect();
        let dialed = dial::dial_before(&addresses, Some(deadline)).await;
        let (mut tcp, endpoint) = dialed.map_err(|error| (Stage::Dial(error), addresses.first().copied()))?;
        let began = lap(began, &self.metrics.dial);

        self.upgrade(&mut tcp, deadline).await.map_err(|stage| (stage, Some(endpoint)))?;
        let began = lap(began, &self.metrics.upgrade);

        let shaken = timeout_at(deadline, handshake::handshake(tcp, endpoint, &way.origin)).await;
        let shaken =
            shaken.unwrap_or_else(|_| Err(handshake::Error::timed_out(began.elapsed(), endpoint, &way.origin)));
        let (stream, negotiated) = shaken.map_err(|error| (Stage::Handshake(error), Some(endpoint)))?;
        lap(
            began,
            match negotiated.resumed {
                Resumption::Resumed => &self.metrics.handshake_resumed,
                Resumption::Refused | Resumption::Starved | Resumption::Off => &self.metrics.handshake_full,
            },
        );
        Ok((stream, endpoint, negotiated))
    }

    async fn upgrade(&self, tcp: &mut TcpStream, deadline: Instant) -> Result<(), Stage> {
        let Some(kind) = self.upgrade else { return Ok(()) };
        match timeout_at(deadline, upgrade::upgrade(kind, tcp)).await {
            Ok(done) => done.map_err(Stage::Upgrade),
            Err(_) => Err(Stage::Deadline(Phase::Upgrade)),
        }
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

type Attempted = (Established, SocketAddr, Negotiated);

fn lap(since: Instant, histogram: &Histogram) -> Instant {
    let now = Instant::now();
    histogram.record(now - since);
    now
}

/// Why one server could not be originated to.
#[derive(Debug)]
pub struct Failure {
    /// Where, and why.
    pub stage: Stage,
    /// The server, as configured.
    pub server: Server,
    /// Known once a connection stands.
    pub endpoint: Option<SocketAddr>,
}

/// Where it failed.
#[derive(Debug)]
pub enum Stage {
    /// The server's name has no address now.
    Resolve(resolve::Error),
    /// No address accepted.
    Dial(dial::Error),
    /// The server would not go over to TLS.
    Upgrade(upgrade::Error),
    /// TLS itself.
    Handshake(handshake::Error),
    /// The deadline came in this phase.
    Deadline(Phase),
}

/// A phase that has no word of its own for a deadline that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The look-up of the server's name.
    Resolve,
    /// The plaintext before TLS.
    Upgrade,
}

impl Failure {
    /// The class: the word in the log, in metrics and in explanations.
    pub fn reason(&self) -> &'static str {
        match &self.stage {
            Stage::Resolve(error) => error.reason(),
            Stage::Dial(error) => error.reason(),
            Stage::Upgrade(error) => error.reason(),
            Stage::Handshake(error) => error.reason(),
            Stage::Deadline(Phase::Resolve) => "dns_timeout",
            Stage::Deadline(Phase::Upgrade) => "upgrade_timeout",
        }
    }

    /// What the server presented and what was expected.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        match &self.stage {
            Stage::Handshake(error) => error.facts(),
            _ => Vec::new(),
        }
    }

    /// What to write into the configuration, where that can mend it.
    pub fn repair(&self, upstream: &Name) -> Option<String> {
        match &self.stage {
            Stage::Upgrade(error) => error.repair(upstream),
            Stage::Handshake(error) => error.repair(upstream),
            Stage::Resolve(_) | Stage::Dial(_) | Stage::Deadline(_) => None,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.stage {
            Stage::Resolve(error) => error.fmt(f),
            Stage::Dial(error) => error.fmt(f),
            Stage::Upgrade(error) => error.fmt(f),
            Stage::Handshake(error) => error.fmt(f),
            Stage::Deadline(Phase::Resolve) => write!(f, "no answer from DNS within the origination's deadline"),
            Stage::Deadline(Phase::Upgrade) => {
                write!(f, "{} did not answer the request for TLS within the origination's deadline", self.server)
            }
        }
    }
}
