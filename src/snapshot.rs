//! Values + the previous generation -> one immutable generation of everything that lives.
//!
//! This is the only builder of live things. What did not change is carried over as the same object, since
//! rustls resumes a session only under the very verifier and certificate resolver that made it; what did
//! change is built new, with an empty store, since a session must never outlive the identity or the trust
//! that it was made under.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::admit::{self, Admission};
use crate::classify::Expect;
use crate::config::values::{self, Config, Destination, ListenerKey, Name, Server, Upgrade};
use crate::metrics::{
    ListenerMetrics, NOT_AFTER, OriginMetrics, PoolMetrics, RESUMPTION_RATIO, Registry, RouteMetrics, UpstreamMetrics,
};
use crate::originate::Originator;
use crate::originate::certificate::Date;
use crate::originate::endpoints::Way;
use crate::originate::identity::{self, Identity};
use crate::originate::key_log::KeyLogFile;
use crate::originate::origin::{self, Origin, OriginKey};
use crate::originate::pool::Pool;
use crate::originate::resolve::{self, Resolver};
use crate::originate::trust::{self, Trust};
use crate::relay::Counters;
use crate::route::{ByHello, Route, RouteTable, Ways};
use crate::tls::kernel::Offers;

/// One generation.
pub struct Snapshot {
    /// Counts from 1.
    pub generation: u64,
    /// What it was built from.
    pub config: Config,
    identities: BTreeMap<Name, Arc<Identity>>,
    trusts: BTreeMap<Name, Arc<Trust>>,
    upstreams: BTreeMap<Name, Arc<Originator>>,
    listeners: HashMap<ListenerKey, Arc<Entry>>,
    resolver: Arc<Resolver>,
    key_log: Option<Arc<KeyLogFile>>,
    kernel: Option<Arc<Offers>>,
    /// One permit a warm connection, over all pools and generations.
    warm: Arc<Semaphore>,
}

/// What a listener needs of a generation.
pub struct Entry {
    /// Who may come.
    pub admission: Admission,
    /// Where connections go.
    pub routes: Arc<RouteTable>,
    /// Connections at once on this listener, if bounded.
    pub permits: Option<Arc<Semaphore>>,
    max_connections: Option<usize>,
}

/// Why a configuration that is right in itself cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An identity's files cannot be used.
    #[error("identity {0}: {1}")]
    Identity(Name, identity::Error),
    /// A trust's files cannot be used.
    #[error("trust {0}: {1}")]
    Trust(Name, trust::Error),
    /// TLS cannot be spoken as an upstream says.
    #[error("upstream {0}: {1}")]
    Upstream(Name, origin::Error),
    /// A listener's access list names a user whom this machine does not know.
    #[error("listener {0}: {1}")]
    Listener(Name, admit::Error),
    /// Names cannot be resolved as the configuration says.
    #[error("dns: {0}")]
    Dns(resolve::Error),
}

impl BuildError {
    /// What to change.
    pub fn repair(&self) -> String {
        match self {
            Self::Identity(..) | Self::Trust(..) => "put the right file in its place, or name another".to_owned(),
            Self::Upstream(..) => "change the settings under tls that contradict each other".to_owned(),
            Self::Listener(..) => "name a user of this machine, or a numeric user id".to_owned(),
            Self::Dns(_) => "check [dns] and the resolver configuration of the system".to_owned(),
        }
    }

    /// The class, for log and metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Identity(_, error) => error.reason(),
            Self::Trust(_, error) => error.reason(),
            Self::Upstream(_, error) => error.reason(),
            Self::Listener(_, error) => error.reason(),
            Self::Dns(error) => error.reason(),
        }
    }
}

impl Snapshot {
    /// Builds a generation; reads every file that the configuration names, so it belongs on a thread that
    /// may block.
    ///
    /// # Errors
    /// All that is wrong, not only the first.
    pub fn build(
        config: Config,
        previous: Option<&Self>,
        registry: &Registry,
        key_log: Option<Arc<KeyLogFile>>,
    ) -> Result<Self, Vec<BuildError>> {
        let mut errors = Vec::new();
        let identities = load(
            &config.identities,
            |name, spec| Identity::load(name, spec).map_err(|error| BuildError::Identity(name.clone(), error)),
            &mut errors,
        );
        let trusts = load(
            &with_default_trust(&config),
            |name, spec| Trust::load(name, spec).map_err(|error| BuildError::Trust(name.clone(), error)),
            &mut errors,
        );
        let resolver = resolver(&config, previous, &mut errors);
        let (Some(resolver), true) = (resolver, errors.is_empty()) else { return Err(errors) };

        // Asked once: origins that are carried over keep what they were told.
        let kernel = previous.map_or_else(|| kernel_offers(&config), |previous| previous.kernel.clone());
        let warm = match previous {
            Some(previous) => Arc::clone(&previous.warm),
            None => Arc::new(Semaphore::new(warm_at_once(&config))),
        };
        let mut snapshot = Self {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            config,
            identities,
            trusts,
            upstreams: BTreeMap::new(),
            listeners: HashMap::new(),
            resolver,
            key_log,
            kernel,
            warm,
        };
        snapshot.build_upstreams(previous, registry, &mut errors);
        if errors.is_empty() {
            snapshot.build_listeners(previous, registry, &mut errors);
        }
        if errors.is_empty() { Ok(snapshot) } else { Err(errors) }
    }
}

impl Snapshot {
    /// What a listener needs; none if this generation has no such listener.
    pub fn entry(&self, key: &ListenerKey) -> Option<Arc<Entry>> {
        self.listeners.get(key).map(Arc::clone)
    }

    /// Where the secrets of sessions are written, if a person asked for it.
    pub fn key_log(&self) -> Option<Arc<KeyLogFile>> {
        self.key_log.clone()
    }

    /// The ways out, by name.
    pub fn upstreams(&self) -> &BTreeMap<Name, Arc<Originator>> {
        &self.upstreams
    }

    /// The identities, by name.
    pub fn identities(&self) -> &BTreeMap<Name, Arc<Identity>> {
        &self.identities
    }

    /// The trusts, by name; that of upstreams which name none is among them.
    pub fn trusts(&self) -> &BTreeMap<Name, Arc<Trust>> {
        &self.trusts
    }

    /// Begins the background work of this generation, and ends that of the one before. From its return on, nothing
    /// that was made warm by an origin of `previous` alone is handed out. To be called once it runs.
    pub fn tend(&self, previous: Option<&Self>) {
        self.upstreams.values().for_each(Originator::tend);
        for (name, old) in previous.iter().flat_map(|previous| &previous.upstreams) {
            old.rest(self.upstreams.get(name).map(AsRef::as_ref));
        }
    }

    /// Ends the background work: there will be no new streams.
    pub fn rest(&self) {
        self.upstreams.values().for_each(|originator| originator.rest(None));
    }

    /// Descriptors that warm connections may take.
    pub fn warm_descriptors(&self) -> usize {
        let pools = self.config.upstreams.values().any(|upstream| upstream.pool.is_some());
        if pools { warm_at_once(&self.config) } else { 0 }
    }

    /// Sets the gauges that tell of this generation; those of names that are gone become NaN, with which no
    /// comparison of an alert holds. Origins that it has no use for give up their sessions. To be called once it
    /// runs, inside of the runtime: upstreams begin what they do in the background.
    pub fn publish(&self, previous: Option<&Self>, registry: &Registry) {
        self.upstreams.values().for_each(Originator::start);
        let mine: HashSet<_> = self.origins().map(Arc::as_ptr).collect();
        let theirs = previous.iter().flat_map(|previous| previous.origins());
        theirs.filter(|origin| !mine.contains(&Arc::as_ptr(origin))).for_each(|origin| origin.retire());
        let mut gauges: HashMap<Published, f64> =
            previous.iter().flat_map(|previous| previous.gauges()).map(|(gauge, _)| (gauge, f64::NAN)).collect();
        let gone = previous.iter().flat_map(|previous| previous.upstreams.keys());
        let gone = gone.filter(|name| !self.upstreams.contains_key(*name));
        for name in gone {
            gauges.insert(Published::NotAfter("server", name.clone()), f64::NAN);
            gauges.insert(Published::Ratio(name.clone()), f64::NAN);
        }
        gauges.extend(self.gauges());
        for (gauge, value) in gauges {
            match gauge {
                Published::NotAfter(kind, name) => {
                    registry.gauge(NOT_AFTER, &[("kind", kind.into()), ("name", name.shared())])
                }
                Published::Insecure(name) => registry.gauge(INSECURE, &[("upstream", name.shared())]),
                Published::Ratio(name) => registry.gauge(RESUMPTION_RATIO, &[("upstream", name.shared())]),
            }
            .set(value);
        }
    }

    fn origins(&self) -> impl Iterator<Item = &Arc<Origin>> {
        self.upstreams.values().flat_map(|upstream| upstream.ways()).filter_map(|way| way.origin.as_ref())
    }

    fn gauges(&self) -> Vec<(Published, f64)> {
        let mut gauges = Vec::new();
        for (name, identity) in &self.identities {
            gauges.push((Published::NotAfter("identity", name.clone()), seconds(identity.not_after())));
        }
        for (name, trust) in &self.trusts {
            // The system's many roots are its own affair; those that the configuration names are watched.
            if let Some(end) = trust.roots().iter().filter(|root| !root.system).map(|root| root.not_after).min() {
                gauges.push((Published::NotAfter("root", name.clone()), seconds(end)));
            }
        }
        // Whom to believe is the client's affair where its own TLS goes through.
        for (name, upstream) in self.config.upstreams.iter().filter(|(_, upstream)| !upstream.passthrough) {
            let insecure = !matches!(upstream.tls.verify, values::Verify::Full);
            gauges.push((Published::Insecure(name.clone()), f64::from(u8::from(insecure))));
        }
        gauges
    }

    fn build_upstreams(&mut self, previous: Option<&Self>, registry: &Registry, errors: &mut Vec<BuildError>) {
        for (name, spec) in &self.config.upstreams {
            let old = previous.and_then(|previous| previous.upstreams.get(name));
            match self.originator(name, spec, old, registry) {
                Ok(originator) => drop(self.upstreams.insert(name.clone(), Arc::new(originator))),
                Err(error) => errors.push(BuildError::Upstream(name.clone(), error)),
            }
        }
    }

    fn originator(
        &self,
        name: &Name,
        spec: &values::Upstream,
        old: Option<&Arc<Originator>>,
        registry: &Registry,
    ) -> Result<Originator, origin::Error> {
        let mut ways: Vec<Way> = Vec::with_capacity(spec.servers.len());
        for server in &spec.servers {
            let metrics = || Arc::new(OriginMetrics::new(registry, name));
            let origin = (!spec.passthrough).then(|| self.origin(server, spec, &ways, old, metrics)).transpose()?;
            ways.push(Way { server: server.clone(), origin, share: spec.balance.share(server) });
        }
        let metrics = UpstreamMetrics::new(registry, name);
        let resolver = Arc::clone(&self.resolver);
        let originator = Originator::new(name.clone(), spec, ways, resolver, metrics, old.map(AsRef::as_ref));
        Ok(match &spec.pool {
            Some(pool) => {
                let metrics = PoolMetrics::new(registry, name);
                let before = old.and_then(|old| old.pool());
                originator.with_pool(Pool::new(pool.clone(), Arc::clone(&self.warm), metrics, before))
            }
            None => originator,
        })
    }

    /// The origin for a server: one that this upstream already has, else the previous generation's if
    /// nothing of its key changed, else a new one.
    fn origin(
        &self,
        server: &Server,
        spec: &values::Upstream,
        ways: &[Way],
        old: Option<&Arc<Originator>>,
        metrics: impl FnOnce() -> Arc<OriginMetrics>,
    ) -> Result<Arc<Origin>, origin::Error> {
        let identity = spec.tls.identity.as_ref().map(|name| &self.identities[name]);
        let trust = &self.trusts[&spec.tls.trust.clone().unwrap_or_else(default_trust)];
        let server_name = spec.tls.server_name.clone().unwrap_or_else(|| server.host.server_name());
        let key = OriginKey::new(spec, &server_name, identity.map(AsRef::as_ref), trust);
        let known = ways.iter().chain(old.map(|old| old.ways()).unwrap_or_default());
        let mut known = known.filter_map(|way| way.origin.as_ref());
        let metrics = known.clone().next().map_or_else(metrics, |origin| Arc::clone(origin.metrics()));
        match known.find(|origin| *origin.key() == key) {
            Some(origin) => Ok(Arc::clone(origin)),
            None => {
                let mut origin = Origin::counted(key, identity.cloned(), Arc::clone(trust), metrics)?;
                if let Some(log) = &self.key_log {
                    origin.log_keys(Arc::clone(log) as _);
                }
                if let Some(offers) = &self.kernel {
                    origin.offer_to_kernel(Arc::clone(offers));
                }
                Ok(Arc::new(origin))
            }
        }
    }

    fn build_listeners(&mut self, previous: Option<&Self>, registry: &Registry, errors: &mut Vec<BuildError>) {
        for spec in &self.config.listeners {
            match Admission::load(&spec.access) {
                Ok(admission) => {
                    let entry = self.new_entry(spec, admission, previous, registry);
                    self.listeners.insert(spec.key(), Arc::new(entry));
                }
                Err(error) => errors.push(BuildError::Listener(spec.name.clone(), error)),
            }
        }
    }

    fn new_entry(
        &self,
        spec: &values::Listener,
        admission: Admission,
        previous: Option<&Self>,
        registry: &Registry,
    ) -> Entry {
        let routes = RouteTable {
            listener: spec.name.clone(),
            expect: self.expect(&spec.destination),
            patience: FIRST_BYTES,
            metrics: Arc::new(ListenerMetrics::new(registry, &spec.name)),
            ways: self.ways(spec, registry),
        };
        // Streams of the previous generation count against the same bound.
        let kept = previous
            .and_then(|previous| previous.listeners.get(&spec.key()))
            .filter(|old| old.max_connections == spec.max_connections)
            .and_then(|old| old.permits.clone());
        let permits = kept.or_else(|| spec.max_connections.map(|bound| Arc::new(Semaphore::new(bound))));
        Entry { admission, routes: Arc::new(routes), permits, max_connections: spec.max_connections }
    }

    /// One route for each upstream that the listener leads to.
    fn ways(&self, spec: &values::Listener, registry: &Registry) -> Ways {
        let mut routes = BTreeMap::new();
        let mut route = |name: &Name| {
            let new = || Arc::new(self.route(&spec.name, name, registry));
            Arc::clone(routes.entry(name.clone()).or_insert_with(new))
        };
        match &spec.destination {
            Destination::One(name) => Ways::One(route(name)),
            Destination::ByHello { rules, default } => {
                let default = default.as_ref().map(&mut route);
                Ways::ByHello(Box::new(ByHello::new(rules, route, default)))
            }
        }
    }

    fn route(&self, listener: &Name, upstream: &Name, registry: &Registry) -> Route {
        let metrics = RouteMetrics::new(registry, listener, upstream);
        Route {
            originator: Arc::clone(&self.upstreams[upstream]),
            limits: self.config.upstreams[upstream].stream.clone(),
            counters: Counters { sent: metrics.sent.clone(), received: metrics.received.clone() },
            metrics,
        }
    }

    fn expect(&self, destination: &Destination) -> Expect {
        let Destination::One(name) = destination else { return Expect::Tls };
        match &self.config.upstreams[name] {
            upstream if upstream.passthrough => Expect::Tls,
            upstream => match upstream.upgrade {
                Some(Upgrade::Postgres) => Expect::Postgres,
                None => Expect::Anything,
            },
        }
    }
}

/// How long a client may take to say what it wants, where that has to be known before an upstream is asked:
/// as long as an origination may take by default. Database drivers speak in the first round trip.
const FIRST_BYTES: Duration = Duration::from_secs(10);

/// Warm connections at once. By default few beside streams, of whose descriptors they are taken; never more than a
/// quarter of those.
fn warm_at_once(config: &Config) -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = usize::try_from(descriptors.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let asked = config.limits.max_warm.unwrap_or_else(|| 256.min(descriptors / 8));
    asked.min(descriptors / 4).max(1)
}

/// The name of the trust of upstreams that name none. No configured trust can have it: of the letters of names,
/// these are none.
const DEFAULT_TRUST: &str = "(system roots)";

fn default_trust() -> Name {
    Name::new(DEFAULT_TRUST)
}

/// The configured trusts, and the default one if any upstream leaves its trust open.
fn with_default_trust(config: &Config) -> BTreeMap<Name, values::Trust> {
    let mut trusts = config.trusts.clone();
    if config.upstreams.values().any(|upstream| !upstream.passthrough && upstream.tls.trust.is_none()) {
        trusts.insert(default_trust(), values::Trust::default());
    }
    trusts
}

fn load<S, T>(
    specs: &BTreeMap<Name, S>,
    one: impl Fn(&Name, &S) -> Result<T, BuildError>,
    errors: &mut Vec<BuildError>,
) -> BTreeMap<Name, Arc<T>> {
    let mut loaded = BTreeMap::new();
    for (name, spec) in specs {
        match one(name, spec) {
            Ok(value) => drop(loaded.insert(name.clone(), Arc::new(value))),
            Err(error) => errors.push(error),
        }
    }
    loaded
}

/// The resolver and its cache live on while the settings stay.
fn resolver(config: &Config, previous: Option<&Snapshot>, errors: &mut Vec<BuildError>) -> Option<Arc<Resolver>> {
    if let Some(previous) = previous.filter(|previous| previous.config.dns == config.dns) {
        return Some(Arc::clone(&previous.resolver));
    }
    Resolver::new(&config.dns).map(Arc::new).map_err(|error| errors.push(BuildError::Dns(error))).ok()
}

/// What the kernel may have of streams, said in the log: a setting that does nothing should not be silent.
fn kernel_offers(config: &Config) -> Option<Arc<Offers>> {
    let policy = config.runtime.kernel_tls;
    if policy == values::KernelTls::Off {
        return None;
    }
    match Offers::detect(policy) {
        Ok(offers) => {
            tracing::info!(suites = %offers, new_keys = offers.renews(), "kernel TLS");
            Some(Arc::new(offers)).filter(|offers| !offers.is_empty())
        }
        Err(error) => {
            tracing::warn!(%error, "the kernel has no TLS: all records are made in user space");
            None
        }
    }
}

/// A gauge that a generation sets.
#[derive(PartialEq, Eq, Hash)]
enum Published {
    NotAfter(&'static str, Name),
    Insecure(Name),
    Ratio(Name),
}

const INSECURE: &str = "egret_upstream_insecure";

/// A gauge is a float: exact to the second for any date of a certificate.
fn seconds(date: Date) -> f64 {
    date.0 as f64
}
