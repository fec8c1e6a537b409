//! The part of a generation that a listener uses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::{BuildError, Snapshot};
use crate::config::values::{self, Destination, ListenerKey, Name};
use crate::observe::metrics::{ListenerMetrics, Registry, RouteMetrics};
use crate::pipeline::accept::{Entry, Generation};
use crate::pipeline::admit::Admission;
use crate::pipeline::classify::Expect;
use crate::pipeline::relay::Counters;
use crate::pipeline::route::{ByHello, Route, RouteTable, Routes};

impl Generation for ArcSwap<Snapshot> {
    fn entry(&self, key: &ListenerKey) -> Option<Arc<Entry>> {
        self.load().entry(key)
    }
}

impl Snapshot {
    pub(super) fn build_listeners(
        &mut self,
        previous: Option<&Self>,
        registry: &Registry,
        errors: &mut Vec<BuildError>,
    ) {
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
            routes: self.routes(spec, registry),
        };
        // Streams of the previous generation count against the same bound.
        let kept = previous
            .and_then(|previous| previous.listeners.get(&spec.key()))
            .filter(|old| old.max_connections == spec.max_connections)
            .and_then(|old| old.permits.clone());
        let permits = kept.or_else(|| spec.max_connections.map(|bound| Arc::new(Semaphore::new(bound))));
        Entry { admission, routes: Arc::new(routes), permits, max_connections: spec.max_connections }
    }

    fn routes(&self, spec: &values::Listener, registry: &Registry) -> Routes {
        let mut routes = BTreeMap::new();
        let mut route = |name: &Name| {
            let new = || Arc::new(self.route(&spec.name, name, registry));
            Arc::clone(routes.entry(name.clone()).or_insert_with(new))
        };
        match &spec.destination {
            Destination::One(name) => Routes::One(route(name)),
            Destination::ByHello { rules, default } => {
                let default = default.as_ref().map(&mut route);
                Routes::ByHello(Box::new(ByHello::new(rules, route, default)))
            }
        }
    }

    fn route(&self, listener: &Name, upstream: &Name, registry: &Registry) -> Route {
        let metrics = RouteMetrics::new(registry, listener, upstream);
        Route {
            originator: Arc::clone(&self.upstreams[upstream]),
            limits: self.config.upstreams[upstream].stream_limits(),
            counters: Counters {
                sent: metrics.sent.clone(),
                received: metrics.received.clone(),
                near_key_limit: metrics.near_key_limit.clone(),
            },
            metrics,
            answer: self.config.upstreams[upstream].answer,
        }
    }

    fn expect(&self, destination: &Destination) -> Expect {
        let Destination::One(name) = destination else { return Expect::Tls };
        match &self.config.upstreams[name] {
            upstream if upstream.passthrough => Expect::Tls,
            upstream => upstream.upgrade.map_or(Expect::Anything, Expect::Upgrade),
        }
    }
}

/// Time for a client to send its first bytes, where egret needs them to choose an upstream: as long as the default
/// origination timeout. Database drivers send theirs in the first round trip.
const FIRST_BYTES: Duration = Duration::from_secs(10);
