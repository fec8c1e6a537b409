//! The gauges of endpoints, which come and go with DNS.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::Gauge;

use crate::config::values::Name;
use crate::control::snapshot::Snapshot;
use crate::observe::metrics::{EndpointMetrics, Registry};
use crate::pipeline::originate::servers::health::Gate;

/// The gauges that were ever shown. They are set when metrics are read.
#[derive(Default)]
pub(super) struct Endpoints {
    shown: Mutex<HashMap<(Name, SocketAddr), Gauges>>,
}

struct Gauges {
    healthy: Gauge,
    streams: Gauge,
    warm: Gauge,
    sessions: Gauge,
}

impl Endpoints {
    /// Sets the gauges of all endpoints; those of endpoints that are gone become NaN, with which no comparison of an
    /// alert holds.
    pub(super) fn publish(&self, snapshot: &Snapshot, registry: &Registry) {
        let now = tokio::time::Instant::now();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gauges in shown.values() {
            gauges.healthy.set(f64::NAN);
            gauges.streams.set(f64::NAN);
            gauges.warm.set(f64::NAN);
            gauges.sessions.set(f64::NAN);
        }
        for (name, originator) in snapshot.upstreams() {
            for member in originator.endpoints().known().list() {
                let gauges = match shown.entry((name.clone(), member.endpoint.address())) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(free) => {
                        let labels = EndpointMetrics::labels(name, member.endpoint.address());
                        if !registry.admits(&labels) {
                            continue;
                        }
                        free.insert(Gauges::new(registry, &labels))
                    }
                };
                let healthy = member.endpoint.gate(now) == Gate::Closed;
                gauges.healthy.set(f64::from(u8::from(healthy)));
                gauges.streams.set(member.endpoint.in_flight() as f64);
                gauges.warm.set(member.endpoint.warm() as f64);
                let origin = member.endpoint.origin();
                let sessions = origin.map_or(0, |origin| origin.sessions_held_of(member.endpoint.address()));
                gauges.sessions.set(sessions as f64);
            }
        }
    }
}

impl Gauges {
    fn new(registry: &Registry, labels: &[(&'static str, Arc<str>); 2]) -> Self {
        Self {
            healthy: registry.gauge("egret_endpoint_healthy", labels),
            streams: registry.gauge("egret_endpoint_streams", labels),
            warm: registry.gauge("egret_endpoint_warm", labels),
            sessions: registry.gauge("egret_endpoint_sessions", labels),
        }
    }
}
