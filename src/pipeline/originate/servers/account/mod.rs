//! Counts of one endpoint, for the status and for metrics.

mod tally;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use self::tally::Tally;
use crate::config::values::Name;
use crate::observe::metrics::{EndpointMetrics, ORIGINATION_BUCKETS, Registry};

/// Counts since DNS named the address; reloads that change nothing of its origin do not begin them anew.
pub(crate) struct Account {
    tally: Tally,
    full: Times,
    resumed: Times,
    metrics: EndpointMetrics,
}

impl Account {
    pub(crate) fn new(registry: &Registry, upstream: &Name, endpoint: SocketAddr) -> Self {
        let metrics = EndpointMetrics::new(registry, upstream, endpoint);
        Self { tally: Tally::default(), full: Times::default(), resumed: Times::default(), metrics }
    }

    /// A client of an upstream with a pool got a stream; `hit`: a warm one.
    pub(crate) fn served(&self, hit: bool) {
        self.tally.served(hit);
        self.metrics.served(hit);
    }

    pub(crate) fn discarded(&self, reason: &'static str) {
        self.tally.discarded(reason);
        self.metrics.discarded(reason);
    }

    pub(crate) fn record_handshake(&self, resumed: bool, took: Duration) {
        if resumed { &self.resumed } else { &self.full }.add(took);
        self.metrics.record_handshake(resumed, took);
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn full(&self) -> &Times {
        &self.full
    }

    pub(crate) fn resumed(&self) -> &Times {
        &self.resumed
    }
}

#[derive(Debug, Default)]
pub(crate) struct Times {
    nanoseconds: AtomicU64,
    /// The last one is for what took longer than every bound.
    buckets: [AtomicU64; ORIGINATION_BUCKETS.len() + 1],
}

impl Times {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = ORIGINATION_BUCKETS.iter().take_while(|bound| **bound < seconds).count();
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        // 584 years of handshakes.
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn seconds(&self) -> f64 {
        (self.nanoseconds.load(Ordering::Relaxed) / 1_000) as f64 / 1e6
    }

    /// Counts by upper bound in seconds, without empty buckets. `None`: longer than every bound.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Option<f64>, u64)> {
        let bounds = ORIGINATION_BUCKETS.into_iter().map(Some).chain([None]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        bounds.zip(counts).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stands_below_the_first_bound_that_it_does_not_exceed() {
        let times = Times::default();
        [500, 501, 1_000, 10_000_000, 10_000_001].into_iter().for_each(|us| times.add(Duration::from_micros(us)));
        let buckets: Vec<_> = times.buckets().collect();
        assert_eq!(buckets, [(Some(0.0005), 1), (Some(0.001), 2), (Some(10.0), 1), (None, 1)]);
        assert_eq!(times.count(), 5);
        assert!((times.seconds() - 20.002_002).abs() < 1e-6, "{}", times.seconds());
    }
}
