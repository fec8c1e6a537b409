//! Names to addresses: by TTL, one query for a burst, and the last good answer while DNS fails.
//!
//! What happens to a name over time:
//!
//! - An answer is kept for its TTL (the lowest in the chain of aliases), clamped to `dns.min_ttl` and
//!   `dns.max_ttl`. Entries of the hosts file come before DNS and are kept for `dns.min_ttl`.
//! - When it has run out, the next caller asks again. While that fails, or takes longer than 1.8 s, the old
//!   answer is served, for at most a day after it ran out (RFC 8767). Servers are verified by TLS: an
//!   address that is no longer theirs is refused later, not believed.
//! - "No such name" and "no address" are answers: they replace an old address at once, and are kept for
//!   the negative TTL of the zone, at most five seconds.
//! - A failure (no reply, SERVFAIL, refused) is remembered for a second, so that an outage is not a storm.
//!
//! Nothing here needs DNS to be up at the start.

mod cache;
mod lookup;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::DnsName;
use tokio::time::{Instant, timeout};

use crate::config::values::{Dns, Host, Server};
use crate::observe::metrics::Registry;
use crate::observe::tasks::{self, Task};
use cache::{Ask, Names, Pending};
use lookup::{Found, Miss, Source};

/// Looks names up, for all upstreams of the process. Clones share their cache.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    hosts: Mutex<Names<Arc<[IpAddr]>>>,
    services: Mutex<Names<Arc<[Target]>>>,
    source: Source,
    registry: Registry,
}

/// A kind of answer to a name: it has a cache and a look-up of its own.
trait Answer: Clone + Send + Sync + 'static {
    fn cache(shared: &Shared) -> &Mutex<Names<Self>>;

    fn look_up(source: &Source, name: &DnsName<'static>) -> impl Future<Output = Result<Found<Self>, Miss>> + Send;
}

impl Answer for Arc<[IpAddr]> {
    fn cache(shared: &Shared) -> &Mutex<Names<Self>> {
        &shared.hosts
    }

    fn look_up(source: &Source, name: &DnsName<'static>) -> impl Future<Output = Result<Found<Self>, Miss>> + Send {
        source.lookup(name)
    }
}

impl Answer for Arc<[Target]> {
    fn cache(shared: &Shared) -> &Mutex<Names<Self>> {
        &shared.services
    }

    fn look_up(source: &Source, name: &DnsName<'static>) -> impl Future<Output = Result<Found<Self>, Miss>> + Send {
        source.service(name)
    }
}

/// A whole look-up, search list and retries included, ends after this time: half of the default `originate_timeout`, so
/// that what is left suffices to connect.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// With a stale answer known, a caller waits this long for a new one (RFC 8767 section 5, "client response timer").
const PATIENCE: Duration = Duration::from_millis(1800);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    /// Higher numbers are used only if no lower one is available; 0 for hosts.
    pub(crate) priority: u16,
    /// In proportion to the others of its priority; 1 for hosts.
    pub(crate) weight: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: DnsName<'static>,
    port: u16,
    priority: u16,
    weight: u16,
}

/// What a resolver reads besides DNS.
#[derive(Clone, Debug)]
pub struct Files {
    /// Read at each look-up that the cache does not answer.
    pub hosts: PathBuf,
    /// Read likewise if the configuration names no servers, so that a network that comes up after egret
    /// is noticed. Without name servers in it, the one on this machine is asked, as resolv.conf(5) says.
    pub resolv_conf: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into() }
    }
}

impl Resolver {
    /// A resolver with an empty cache. Asks nobody yet.
    ///
    /// # Errors
    ///
    /// `dns_failure` if the configured servers cannot be used at all (none is known to do so).
    pub fn new(dns: &Dns, registry: &Registry) -> Result<Self, Error> {
        Self::with_files(dns, Files::default(), registry)
    }

    /// As [`Self::new`] with other files than the system's.
    pub fn with_files(dns: &Dns, files: Files, registry: &Registry) -> Result<Self, Error> {
        let hosts = Mutex::new(Names::new(dns.min_ttl, dns.max_ttl));
        let services = Mutex::new(Names::new(dns.min_ttl, dns.max_ttl));
        let source = Source::new(&dns.servers, files)?;
        let registry = registry.clone();
        Ok(Self { shared: Arc::new(Shared { hosts, services, source, registry }) })
    }

    /// The addresses of a host: IPv6 before IPv4, each family in the order of the answer, never empty. An IP is its own
    /// answer; a service has those of its hosts, whose ports [`Resolver::places`] returns.
    ///
    /// Cancel safe: the look-up is shared by all its waiters and ends within five seconds in a task of its own.
    pub async fn resolve(&self, host: &Host) -> Result<Arc<[IpAddr]>, Error> {
        match host {
            Host::Ip(ip) => Ok(Arc::new([*ip])),
            Host::Dns(name) => self.ask(name).await,
            Host::Service(name) => {
                let places = self.service_places(name).await?.0;
                Ok(places.iter().map(|place| place.address.ip()).collect())
            }
        }
    }

    /// The addresses of a server, and until when the answer holds: a past instant for a stale one, `None` for an IP.
    /// Errors: No address. A service errs only if none of its hosts has one.
    ///
    /// Cancel safe, as [`Resolver::resolve`].
    pub(crate) async fn places(&self, server: &Server) -> Result<(Vec<Place>, Option<Instant>), Error> {
        match &server.host {
            Host::Ip(ip) => Ok((vec![Place::plain(SocketAddr::new(*ip, server.port))], None)),
            Host::Dns(name) => {
                let addresses: Arc<[IpAddr]> = self.ask(name).await?;
                let places = addresses.iter().map(|ip| Place::plain(SocketAddr::new(*ip, server.port)));
                Ok((places.collect(), self.shared.cached::<Arc<[IpAddr]>>().good_until(name)))
            }
            Host::Service(name) => self.service_places(name).await,
        }
    }

    async fn service_places(&self, name: &DnsName<'static>) -> Result<(Vec<Place>, Option<Instant>), Error> {
        let targets: Arc<[Target]> = self.ask(name).await?;
        let mut until = self.shared.cached::<Arc<[Target]>>().good_until(name);
        let looks: Vec<_> = targets.iter().map(|target| tokio::spawn(self.clone().target(target.clone()))).collect();
        let mut places = Vec::new();
        let mut last = None;
        for look in looks {
            match look.await {
                Ok(Ok((found, good))) => {
                    places.extend(found);
                    until = until.min(good);
                }
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(Error::failure(name, "the look-up was abandoned")),
            }
        }
        match last {
            Some(error) if places.is_empty() => Err(error),
            _ => Ok((places, until)),
        }
    }

    async fn target(self, target: Target) -> Result<(Vec<Place>, Option<Instant>), Error> {
        let addresses: Arc<[IpAddr]> = self.ask(&target.host).await?;
        let places = addresses.iter().map(|ip| Place {
            address: SocketAddr::new(*ip, target.port),
            priority: target.priority,
            // RFC 2782: a weight of 0 has a very small chance, not none.
            weight: target.weight.max(1),
        });
        Ok((places.collect(), self.shared.cached::<Arc<[IpAddr]>>().good_until(&target.host)))
    }

    async fn ask<A: Answer>(&self, name: &DnsName<'static>) -> LookupResult<A> {
        let ask = self.shared.cached::<A>().ask(name, Instant::now());
        match ask {
            Ask::Known(known) => known,
            Ask::Join { pending, stale } => wait(name, pending, stale).await,
            Ask::Start { sender, pending, stale } => {
                let shared = Arc::clone(&self.shared);
                let asked = name.clone();
                tokio::spawn(async move {
                    let reply = shared.bounded(&asked, A::look_up(&shared.source, &asked)).await;
                    let verdict = shared.cached::<A>().settle(&asked, reply, Instant::now());
                    // No receiver is left when every caller has gone; the cache has the answer.
                    let _ = sender.send(Some(verdict));
                });
                wait(name, pending, stale).await
            }
        }
    }
}

impl Place {
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, priority: 0, weight: 1 }
    }
}

impl Shared {
    fn cached<A: Answer>(&self) -> MutexGuard<'_, Names<A>> {
        A::cache(self).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look-up. It runs in a task of its own, so that no caller's end is its end.
    async fn bounded<A>(
        &self,
        name: &DnsName<'static>,
        lookup: impl Future<Output = Result<Found<A>, Miss>>,
    ) -> Result<Found<A>, Miss> {
        match tasks::once(Task::DnsLookup, &self.registry, timeout(LOOKUP_TIMEOUT, lookup)).await {
            Some(Ok(reply)) => reply,
            Some(Err(_)) => Err(Miss::from(Error::Timeout { name: shown(name) })),
            // Cached for a second as any failure is, so that a repeated panic does not loop.
            None => Err(Miss::from(Error::failure(name, "a fault of egret, see its log"))),
        }
    }
}

type LookupResult<A> = Result<A, Error>;

async fn wait<A: Clone>(name: &DnsName<'static>, mut pending: Pending<A>, stale: Option<A>) -> LookupResult<A> {
    let landing = async {
        match pending.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(landed)) => landed.clone(),
            // The sender is gone without a word: the runtime is shutting down.
            Ok(None) | Err(_) => Err(Error::failure(name, "the look-up was abandoned")),
        }
    };
    match stale {
        None => landing.await,
        Some(stale) => timeout(PATIENCE, landing).await.unwrap_or(Ok(stale)),
    }
}

fn shown(name: &DnsName<'_>) -> Arc<str> {
    Arc::from(name.as_ref())
}

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// DNS says that the name does not exist.
    #[error("{name}: no such name in DNS or the hosts file")]
    NoSuchName {
        /// As it was asked for.
        name: Arc<str>,
    },
    /// The name exists, but has neither A nor AAAA record (or none that can be connected to).
    #[error("{name}: the name exists, but has no IPv4 or IPv6 address")]
    NoAddress {
        /// As it was asked for.
        name: Arc<str>,
    },
    /// No name server replied in time.
    #[error("{name}: no name server replied in time")]
    Timeout {
        /// As it was asked for.
        name: Arc<str>,
    },
    /// The name servers could not be asked or replied with an error.
    #[error("{name}: look-up failed: {detail}")]
    Failure {
        /// As it was asked for.
        name: Arc<str>,
        /// What the resolver says.
        detail: Arc<str>,
    },
}

impl Error {
    fn failure(name: &DnsName<'_>, detail: impl Into<Arc<str>>) -> Self {
        Self::Failure { name: shown(name), detail: detail.into() }
    }

    /// The class, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchName { .. } => "dns_no_such_name",
            Self::NoAddress { .. } => "dns_no_address",
            Self::Timeout { .. } => "dns_timeout",
            Self::Failure { .. } => "dns_failure",
        }
    }

    /// Whether DNS has answered: such an answer replaces an older one, a failure does not.
    fn is_answer(&self) -> bool {
        matches!(self, Self::NoSuchName { .. } | Self::NoAddress { .. })
    }
}
