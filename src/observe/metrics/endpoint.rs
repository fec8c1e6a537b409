//! Handles of one endpoint.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Histogram};

use super::{ByReason, Registry};
use crate::config::values::Name;

/// Endpoints with series of their own over the life of the process; further ones are counted with their upstream and
/// listed in `/status`. A name whose addresses change all the time must not fill the metrics store: an endpoint has
/// some forty series, most of them buckets.
pub(super) const MAX_ENDPOINTS: usize = 512;

/// What happens at one address of an upstream. The series exist from the first event on.
pub struct EndpointMetrics {
    registry: Registry,
    labels: [(&'static str, Arc<str>); 2],
    shown: OnceLock<Option<Shown>>,
}

struct Shown {
    hits: Counter,
    misses: Counter,
    discards: ByReason,
    full: Histogram,
    resumed: Histogram,
}

impl EndpointMetrics {
    /// For this address of `upstream`.
    pub fn new(registry: &Registry, upstream: &Name, endpoint: SocketAddr) -> Self {
        Self { registry: registry.clone(), labels: Self::labels(upstream, endpoint), shown: OnceLock::new() }
    }

    pub(crate) fn labels(upstream: &Name, endpoint: SocketAddr) -> [(&'static str, Arc<str>); 2] {
        [("upstream", upstream.shared()), ("endpoint", endpoint.to_string().into())]
    }

    /// A client of an upstream with a pool got a stream; `hit`: a warm one.
    pub fn served(&self, hit: bool) {
        if let Some(shown) = self.shown() {
            if hit { &shown.hits } else { &shown.misses }.increment(1);
        }
    }

    /// Counts a discarded warm connection.
    pub fn discarded(&self, reason: &'static str) {
        if let Some(shown) = self.shown() {
            shown.discards.increment(reason);
        }
    }

    /// Counts a finished handshake and its time.
    pub fn record_handshake(&self, resumed: bool, took: Duration) {
        if let Some(shown) = self.shown() {
            if resumed { &shown.resumed } else { &shown.full }.record(took);
        }
    }

    fn shown(&self) -> Option<&Shown> {
        let admitted = || self.registry.admits(&self.labels).then(|| Shown::new(&self.registry, &self.labels));
        self.shown.get_or_init(admitted).as_ref()
    }
}

impl Shown {
    fn new(registry: &Registry, labels: &[(&'static str, Arc<str>); 2]) -> Self {
        let with = |label: &'static str, value: &str| {
            let [upstream, endpoint] = labels.clone();
            [upstream, endpoint, (label, value.into())]
        };
        let takes = |result: &str| registry.counter("egret_endpoint_takes_total", &with("result", result));
        let handshakes = |kind: &str| registry.histogram("egret_endpoint_handshake_seconds", &with("handshake", kind));
        Self {
            hits: takes("hit"),
            misses: takes("miss"),
            discards: ByReason::new(registry, "egret_endpoint_discards_total", labels),
            full: handshakes("full"),
            resumed: handshakes("resumed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_never_come_twice_fill_nobodys_memory() {
        let registry = Registry::new();
        let upstream = Name::new("x");
        let touch = |port: u16| EndpointMetrics::new(&registry, &upstream, ([192, 0, 2, 1], port).into()).served(true);
        (0..2 * MAX_ENDPOINTS as u16).for_each(touch);
        // A known endpoint is still counted.
        touch(0);
        let text = registry.render();
        let hits: Vec<&str> = text.lines().filter(|line| line.contains("result=\"hit\"")).collect();
        assert_eq!(hits.len(), MAX_ENDPOINTS);
        assert!(hits.iter().any(|line| line.contains("192.0.2.1:0\"") && line.ends_with(" 2")), "{}", hits[0]);
    }
}
