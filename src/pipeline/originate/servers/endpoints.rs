//! The endpoints of an upstream: the addresses in DNS now, looked up again when the TTL of the answers is over.
//!
//! Streams that come during a look-up wait for it, but not long if another endpoint is known: a slow name server for
//! one server must not delay streams to the others.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::config::values::{Host, Server, Share, Strategy};
use crate::pipeline::originate::origin::Origin;
use crate::pipeline::originate::servers::account::Account;
use crate::pipeline::originate::servers::balance::{self, Candidate, RoundRobin};
use crate::pipeline::originate::servers::endpoint::Endpoint;
use crate::pipeline::originate::servers::resolve::{self, Place, Resolver};

#[derive(Clone)]
pub(crate) struct UpstreamServer {
    pub(crate) configured: Server,
    /// Shared by all servers of one name. `None`: passed through, the client makes TLS.
    pub(crate) origin: Option<Arc<Origin>>,
    pub(crate) share: Share,
}

impl UpstreamServer {
    /// Whether both have the same name and origin; the share may differ. Then they share endpoints.
    fn is_same(&self, other: &Self) -> bool {
        self.configured == other.configured
            && self.origin.as_ref().map(Arc::as_ptr) == other.origin.as_ref().map(Arc::as_ptr)
    }
}

pub(crate) struct Endpoints {
    shared: Arc<Shared>,
}

/// The endpoints at one time, in the order of the servers and of the answers of DNS.
#[derive(Debug, Default)]
pub(crate) struct Members {
    list: Vec<Member>,
    round_robin: Mutex<RoundRobin>,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) server: usize,
    /// Higher tiers are used only if no lower one is available: by the configuration, then by DNS.
    pub(crate) tier: (u32, u16),
    /// In proportion to the others of its tier.
    pub(crate) weight: u32,
    pub(crate) max_connections: Option<usize>,
}

struct Shared {
    servers: Vec<UpstreamServer>,
    resolver: Arc<Resolver>,
    account: Box<Opening>,
    lookups: Mutex<Vec<Lookup>>,
    members: ArcSwap<Members>,
    settled: watch::Sender<()>,
}

type Opening = dyn Fn(SocketAddr) -> Account + Send + Sync;

#[derive(Clone, Default)]
struct Lookup {
    places: Vec<Place>,
    error: Option<resolve::Error>,
    freshness: Freshness,
    since: Option<Instant>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Freshness {
    /// An address is its own answer.
    Forever,
    Until(Instant),
    #[default]
    Never,
}

/// With endpoints of one server known, a stream waits this long for the names of the others: more than a look-up
/// without packet loss takes, and too short for a client to notice.
const GRACE: Duration = Duration::from_millis(250);

/// After a stale answer was served because DNS failed, it is looked up again after this time.
const AGAIN: Duration = Duration::from_secs(1);

impl Endpoints {
    /// Endpoints of `previous`, the generation before, whose server and origin are unchanged stay the same objects;
    /// `account` makes the account of the others.
    pub(crate) fn new(
        servers: Vec<UpstreamServer>,
        resolver: Arc<Resolver>,
        account: impl Fn(SocketAddr) -> Account + Send + Sync + 'static,
        previous: Option<&Self>,
    ) -> Self {
        let (lookups, members) = match previous {
            Some(previous) => previous.shared.left_to(&servers),
            None => (vec![Lookup::default(); servers.len()], Members::default()),
        };
        let lookups = Mutex::new(lookups);
        let members = ArcSwap::from_pointee(members);
        let account = Box::new(account);
        let settled = watch::Sender::new(());
        let shared = Arc::new(Shared { servers, resolver, account, lookups, members, settled });
        shared.place_addresses();
        // Endpoints that were taken over get the shares of this generation.
        shared.regroup(&shared.lookups());
        Self { shared }
    }

    pub(crate) fn servers(&self) -> &[UpstreamServer] {
        &self.shared.servers
    }

    pub(crate) fn known(&self) -> Arc<Members> {
        self.shared.members.load_full()
    }

    /// The endpoints now. Expired names are looked up again; without any endpoint this waits until `deadline`, else for
    /// `GRACE`. May be empty: [`Endpoints::missing`] has the errors.
    ///
    /// Cancel safe: look-ups go on in their own tasks.
    pub(crate) async fn current(&self, deadline: Instant) -> Arc<Members> {
        let mut settled = self.shared.settled.subscribe();
        self.shared.look_up_expired();
        while let Some(since) = self.shared.waiting_since() {
            let members = self.known();
            let patience = if members.list.is_empty() { deadline } else { deadline.min(since + GRACE) };
            if patience <= Instant::now() {
                break;
            }
            tokio::select! {
                _ = settled.changed() => {}
                () = sleep_until(patience) => {}
            }
        }
        self.known()
    }

    /// Looks up expired names again, without waiting.
    pub(crate) fn refresh(&self) {
        self.shared.look_up_expired();
    }

    /// The servers without an endpoint, with the error; `None`: DNS has not answered yet.
    pub(crate) fn missing(&self) -> Vec<(Server, Option<resolve::Error>)> {
        let lookups = self.shared.lookups();
        let lost = self.shared.servers.iter().zip(&*lookups).filter(|(_, lookup)| lookup.places.is_empty());
        lost.map(|(server, lookup)| (server.configured.clone(), lookup.error.clone())).collect()
    }
}

impl Members {
    pub(crate) fn list(&self) -> &[Member] {
        &self.list
    }

    pub(crate) fn choose(&self, strategy: Strategy, candidates: &[Candidate]) -> Option<Candidate> {
        let mut round_robin = self.round_robin.lock().unwrap_or_else(PoisonError::into_inner);
        balance::choose(strategy, candidates, &mut round_robin, &mut Rng::new())
    }

    fn find(&self, server: usize, address: SocketAddr) -> Option<&Member> {
        self.list.iter().find(|member| member.server == server && member.endpoint.address() == address)
    }
}

impl Shared {
    fn lookups(&self) -> MutexGuard<'_, Vec<Lookup>> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a next generation with these servers takes over.
    fn left_to(&self, servers: &[UpstreamServer]) -> (Vec<Lookup>, Members) {
        let lookups = self.lookups();
        let known = self.members.load();
        let mut members = Members::default();
        let mut left = Vec::with_capacity(servers.len());
        for (place, server) in servers.iter().enumerate() {
            let Some(old) = self.servers.iter().position(|old| old.is_same(server)) else {
                left.push(Lookup::default());
                continue;
            };
            // A look-up under way reports to the old generation only.
            left.push(Lookup { since: None, ..lookups[old].clone() });
            let kept = known.list.iter().filter(|member| member.server == old);
            members.list.extend(kept.map(|member| Member { server: place, ..member.clone() }));
        }
        (left, members)
    }

    /// Servers that are addresses need no look-up, now or later.
    fn place_addresses(&self) {
        for (place, server) in self.servers.iter().enumerate() {
            if let Host::Ip(ip) = server.configured.host {
                self.settle(
                    place,
                    Ok(vec![Place::plain(SocketAddr::new(ip, server.configured.port))]),
                    Freshness::Forever,
                );
            }
        }
    }

    fn look_up_expired(self: &Arc<Self>) {
        let now = Instant::now();
        let mut begun = Vec::new();
        for (place, lookup) in self.lookups().iter_mut().enumerate() {
            if lookup.since.is_none() && lookup.freshness.is_over(now) {
                lookup.since = Some(now);
                begun.push(place);
            }
        }
        for place in begun {
            tokio::spawn(look_up(Arc::downgrade(self), place));
        }
    }

    fn waiting_since(&self) -> Option<Instant> {
        self.lookups().iter().filter_map(|lookup| lookup.since).max()
    }

    /// Takes over the result of a look-up. Endpoints that DNS does not name any more are retired.
    fn settle(&self, place: usize, found: Result<Vec<Place>, resolve::Error>, freshness: Freshness) {
        let mut lookups = self.lookups();
        let lookup = &mut lookups[place];
        lookup.since = None;
        lookup.freshness = freshness;
        let before = std::mem::take(&mut lookup.places);
        match found {
            Ok(places) => (lookup.places, lookup.error) = (places, None),
            Err(error) => lookup.error = Some(error),
        }
        if lookups[place].places != before {
            self.regroup(&lookups);
        }
        drop(lookups);
        self.settled.send_replace(());
    }

    fn regroup(&self, lookups: &[Lookup]) {
        let old = self.members.load();
        let mut members = Members::default();
        for (server, lookup) in lookups.iter().enumerate() {
            for place in &lookup.places {
                if members.find(server, place.address).is_none() {
                    let known = old.find(server, place.address).map(|member| Arc::clone(&member.endpoint));
                    members.list.push(self.member(server, place, known));
                }
            }
        }
        let gone = old.list.iter().filter(|member| members.find(member.server, member.endpoint.address()).is_none());
        let gone: Vec<_> = gone.map(|member| Arc::clone(&member.endpoint)).collect();
        self.members.store(Arc::new(members));
        // After the swap: a stream that sees one retired finds the new set without it.
        gone.iter().for_each(|endpoint| endpoint.retire());
    }

    fn member(&self, server: usize, place: &Place, known: Option<Arc<Endpoint>>) -> Member {
        let UpstreamServer { configured, origin, share } = &self.servers[server];
        let new = || {
            let account = (self.account)(place.address);
            Arc::new(Endpoint::new(configured.clone(), place.address, origin.clone(), account))
        };
        Member {
            endpoint: known.unwrap_or_else(new),
            server,
            tier: (share.priority, place.priority),
            weight: share.weight.saturating_mul(place.weight.into()),
            max_connections: share.max_connections,
        }
    }
}

async fn look_up(shared: Weak<Shared>, place: usize) {
    let Some((resolver, server)) =
        shared.upgrade().map(|shared| (Arc::clone(&shared.resolver), shared.servers[place].configured.clone()))
    else {
        return;
    };
    let found = resolver.places(&server).await;
    let now = Instant::now();
    let freshness = match &found {
        Ok((_, Some(until))) if *until > now => Freshness::Until(*until),
        Ok(_) => Freshness::Until(now + AGAIN),
        // The resolver caches failures itself.
        Err(_) => Freshness::Never,
    };
    if let Some(shared) = shared.upgrade() {
        shared.settle(place, found.map(|(places, _)| places), freshness);
    }
}

impl Freshness {
    fn is_over(self, now: Instant) -> bool {
        match self {
            Self::Forever => false,
            Self::Until(until) => until <= now,
            Self::Never => true,
        }
    }
}
