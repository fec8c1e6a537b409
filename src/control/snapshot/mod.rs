//! Values + the previous generation -> one immutable generation of everything that lives.
//!
//! This is the only builder of live objects. Unchanged ones are carried over as the same object, since
//! rustls resumes a session only under the very verifier and certificate resolver that made it; what did
//! change is built new, with an empty store, since a session must never outlive the identity or the trust
//! that it was made under.

mod entry;
mod error;
mod parts;
mod publish;
mod tokens;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::values::{self, Config, ListenerKey, Name, Server};
use crate::credentials::identity::Identity;
use crate::credentials::part::Part;
use crate::credentials::trust::Trust;
use crate::memory;
use crate::observe::metrics::{OriginMetrics, PoolMetrics, Registry, UpstreamMetrics};
use crate::pipeline::accept::Entry;
use crate::pipeline::originate::Originator;
use crate::pipeline::originate::key_log::KeyLogFile;
use crate::pipeline::originate::origin::{self, Origin, OriginKey};
use crate::pipeline::originate::pool::Pool;
use crate::pipeline::originate::servers::endpoints::UpstreamServer;
use crate::pipeline::originate::servers::resolve::Resolver;
use crate::tls::kernel::Offers;
pub use error::{BuildError, BuildErrors};
use parts::Loading;
pub(crate) use parts::Troubled;
use tokens::Tokens;

/// Whether the result of a load is still wanted.
pub type Wanted = Arc<dyn Fn() -> bool + Send + Sync>;

/// A load that is never abandoned.
pub fn always() -> Wanted {
    Arc::new(|| true)
}

/// One generation.
pub struct Snapshot {
    /// Counts from 1.
    pub(crate) generation: u64,
    pub(crate) config: Config,
    identities: BTreeMap<Name, Part<Identity>>,
    trusts: BTreeMap<Name, Part<Trust>>,
    loading: Loading,
    upstreams: BTreeMap<Name, Arc<Originator>>,
    listeners: HashMap<ListenerKey, Arc<Entry>>,
    resolver: Arc<Resolver>,
    key_log: Option<Arc<KeyLogFile>>,
    kernel: Option<Arc<Offers>>,
    tokens: Tokens,
    /// One permit a warm connection, over all pools and generations.
    warm: Arc<Semaphore>,
}

/// What an unusable file does to the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rigour {
    /// Only the upstreams that need the file fail.
    PartByPart,
    /// The generation is rejected unless all files are usable and every client certificate is valid today.
    Strict,
}

impl Snapshot {
    /// What a listener needs; none if this generation has no such listener.
    pub fn entry(&self, key: &ListenerKey) -> Option<Arc<Entry>> {
        self.listeners.get(key).map(Arc::clone)
    }

    /// Builds a generation; reads every file that the configuration names, so call it on a thread that may block.
    ///
    /// An identity or trust whose files cannot be used keeps the state that it has in `previous`, or is unavailable;
    /// under [`Rigour::Strict`] it is an error.
    ///
    /// Asks `is_wanted` before each identity and trust: an abandoned load ends with the one that is being read, and
    /// does not derive the keys of a thousand others.
    ///
    /// # Errors
    /// All faults, not only the first; nothing if the load is no longer wanted.
    pub fn build(
        config: Config,
        previous: Option<&Self>,
        registry: &Registry,
        key_log: Option<Arc<KeyLogFile>>,
        rigour: Rigour,
        is_wanted: &Wanted,
    ) -> Result<Self, BuildErrors> {
        let written = config.source.clone();
        let failed = |errors| BuildErrors::new(errors, written.clone());
        let loading = previous.map_or_else(Loading::new, |previous| previous.loading.clone());
        let (identities, trusts) =
            loading.both(&config, previous, rigour, is_wanted).ok_or_else(|| failed(Vec::new()))?;
        let mut errors = if rigour == Rigour::Strict { parts::errors(&identities, &trusts) } else { Vec::new() };
        let resolver = resolver(&config, previous, registry, &mut errors);
        let (Some(resolver), true) = (resolver, errors.is_empty()) else { return Err(failed(errors)) };

        let tokens = Tokens::load(&config, previous.map(|previous| &previous.tokens), &mut errors);
        // Probed once: origins that are carried over keep the result.
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
            loading,
            upstreams: BTreeMap::new(),
            listeners: HashMap::new(),
            resolver,
            key_log,
            kernel,
            tokens,
            warm,
        };
        if errors.is_empty() {
            snapshot.build_upstreams(previous, registry, &mut errors);
        }
        if errors.is_empty() {
            snapshot.build_listeners(previous, registry, &mut errors);
        }
        if errors.is_empty() { Ok(snapshot) } else { Err(failed(errors)) }
    }
}

impl Snapshot {
    pub(crate) fn key_log(&self) -> Option<Arc<KeyLogFile>> {
        self.key_log.clone()
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub(crate) fn upstreams(&self) -> &BTreeMap<Name, Arc<Originator>> {
        &self.upstreams
    }

    pub(crate) fn identities(&self) -> &BTreeMap<Name, Part<Identity>> {
        &self.identities
    }

    /// The trusts, by name; that of upstreams which name none is among them.
    pub(crate) fn trusts(&self) -> &BTreeMap<Name, Part<Trust>> {
        &self.trusts
    }

    /// Begins the background work of this generation, and ends that of the one before. After it returns, no warm
    /// connection that only an origin of `previous` made is handed out. Call it once this generation runs.
    pub(crate) fn replenish(&self, previous: Option<&Self>) {
        self.upstreams.values().for_each(Originator::replenish);
        for (name, old) in previous.iter().flat_map(|previous| &previous.upstreams) {
            old.stop(self.upstreams.get(name).map(AsRef::as_ref));
        }
    }

    pub(crate) fn stop(&self) {
        self.upstreams.values().for_each(|originator| originator.stop(None));
    }

    pub(crate) fn warm_descriptors(&self) -> usize {
        let pools = self.config.upstreams.values().any(|upstream| upstream.pool.is_some());
        if pools { warm_at_once(&self.config) } else { 0 }
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
        if let Some(broken) = self.lacking(spec) {
            let metrics = UpstreamMetrics::new(registry, name);
            let resolver = Arc::clone(&self.resolver);
            return Ok(Originator::unavailable(name.clone(), spec, resolver, metrics, Arc::clone(broken)));
        }
        let mut servers: Vec<UpstreamServer> = Vec::with_capacity(spec.servers.len());
        for server in &spec.servers {
            let metrics = || Arc::new(OriginMetrics::new(registry, name));
            let origin = (!spec.passthrough).then(|| self.origin(server, spec, &servers, old, metrics)).transpose()?;
            servers.push(UpstreamServer { configured: server.clone(), origin, share: spec.balance.share(server) });
        }
        let metrics = UpstreamMetrics::new(registry, name);
        let resolver = Arc::clone(&self.resolver);
        let originator = Originator::new(name.clone(), spec, servers, resolver, metrics, old.map(AsRef::as_ref))
            .with_source(self.config.source.0.clone());
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
        servers: &[UpstreamServer],
        old: Option<&Arc<Originator>>,
        metrics: impl FnOnce() -> Arc<OriginMetrics>,
    ) -> Result<Arc<Origin>, origin::Error> {
        let (identity, trust) = self.usable(spec);
        let server_name = spec.tls.server_name.clone().unwrap_or_else(|| server.host.server_name());
        let key = OriginKey::new(spec, &server_name, identity.map(AsRef::as_ref), trust);
        let known = servers.iter().chain(old.map(|old| old.servers()).unwrap_or_default());
        let mut known = known.filter_map(|server| server.origin.as_ref());
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
}

/// Warm connections at once, if the configuration and the limits of the process do not say otherwise.
pub(crate) const WARM: usize = 256;

/// Warm connections at once. By default few compared with streams, whose descriptors they share; never more than a
/// quarter of those, nor more than the memory budget has room for.
fn warm_at_once(config: &Config) -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = usize::try_from(descriptors.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let asked = config.limits.max_warm.unwrap_or_else(|| WARM.min(descriptors / 8));
    asked.min(descriptors / 4).min(memory::for_warm()).max(1)
}

/// The resolver and its cache live on while the settings stay.
fn resolver(
    config: &Config,
    previous: Option<&Snapshot>,
    registry: &Registry,
    errors: &mut Vec<BuildError>,
) -> Option<Arc<Resolver>> {
    if let Some(previous) = previous.filter(|previous| previous.config.dns == config.dns) {
        return Some(Arc::clone(&previous.resolver));
    }
    Resolver::new(&config.dns, registry).map(Arc::new).map_err(|error| errors.push(BuildError::Dns(error))).ok()
}

/// Logs what the kernel supports of kernel TLS: a setting without effect should not be silent.
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
