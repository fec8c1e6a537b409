//! Handles for one upstream's origins: chains, roots, sessions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, Gauge};

use super::{ByReason, Late, Registry};
use crate::config::values::Name;

/// Family of the share of handshakes that were resumed.
pub const RESUMPTION_RATIO: &str = "egret_resumption_ratio";

/// Handles for the origins of one upstream.
pub struct OriginMetrics {
    pub(crate) chains_built: Counter,
    /// Chains found in the cache of verified chains.
    pub(crate) chains_remembered: Counter,
    /// Which roots are in use, and whether the candidate roots would verify the same servers.
    pub(crate) rotation: RotationMetrics,
    pub(crate) sessions: SessionMetrics,
    /// Handshakes begun before their client came, that were sent.
    pub(crate) ahead_sent: Counter,
    pub(crate) ahead_dropped: Counter,
}

/// Shows when a root can be replaced: the old one is unused, and every server passes with the new one.
pub(crate) struct RotationMetrics {
    /// `None` for handles that are not registered.
    source: Option<(Registry, Name)>,
    candidates: Option<ByReason>,
    roots: RwLock<Vec<(usize, Counter)>>,
}

impl RotationMetrics {
    fn new(source: Option<(Registry, Name)>) -> Self {
        let label = |name: &Name| [("upstream", name.shared())];
        let candidates = source
            .as_ref()
            .map(|(registry, name)| ByReason::new(registry, "egret_candidate_roots_total", &label(name)));
        Self { source, candidates, roots: RwLock::default() }
    }

    /// A server was verified by the root with this index. `subject` is called once for each root.
    pub(crate) fn vouched<'a>(&self, index: usize, subject: impl FnOnce() -> &'a str) {
        let Some((registry, upstream)) = &self.source else { return };
        let known = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counter)) = known.iter().find(|(root, _)| *root == index) {
            return counter.increment(1);
        }
        drop(known);
        let labels = [("upstream", upstream.shared()), ("root", subject().into())];
        let counter = registry.counter("egret_chains_vouched_total", &labels);
        counter.increment(1);
        self.roots.write().unwrap_or_else(PoisonError::into_inner).push((index, counter));
    }

    /// The result of the candidate roots alone for a server that was verified: "passed", or the reason.
    pub(crate) fn candidates(&self, verdict: &'static str) {
        if let Some(candidates) = &self.candidates {
            candidates.increment(verdict);
        }
    }
}

/// Counts of sessions: a new one is `kept` or not; a kept one is `offered` or dropped; an offered one is `accepted`,
/// `refused` or `broken`, unless its handshake failed for another reason.
pub struct SessionMetrics {
    pub(crate) held: Gauge,
    pub(crate) kept: Counter,
    pub(crate) offered: Counter,
    pub(crate) accepted: Counter,
    /// The server chose a full handshake instead.
    pub(crate) refused: Counter,
    /// The handshake broke before the server had accepted or refused the session.
    pub(crate) broken: Counter,
    pub(crate) expired: Counter,
    pub(crate) displaced: Counter,
    /// Dropped or not kept because the origin's key has changed, or the upstream is gone.
    pub(crate) foreign: Counter,
    /// Not kept: a ticket too long to come back in a ClientHello.
    pub(crate) oversized: Counter,
    /// Not kept: the sessions of the process hold all of their part of the memory budget.
    pub(crate) over_budget: Counter,
    pub(crate) no_session: Counter,
    pub(crate) ratio: Share,
}

impl OriginMetrics {
    /// The handles of `upstream`.
    pub fn new(registry: &Registry, upstream: &Name) -> Self {
        let label = || ("upstream", upstream.shared());
        let chains = |result: &str| registry.counter("egret_chains_total", &[label(), ("result", result.into())]);
        let sessions = |event: &str| registry.counter("egret_sessions_total", &[label(), ("event", event.into())]);
        let ahead =
            |result: &str| registry.counter("egret_handshakes_ahead_total", &[label(), ("result", result.into())]);
        Self {
            ahead_sent: ahead("sent"),
            ahead_dropped: ahead("dropped"),
            chains_built: chains("built"),
            chains_remembered: chains("remembered"),
            rotation: RotationMetrics::new(Some((registry.clone(), upstream.clone()))),
            sessions: SessionMetrics {
                held: registry.gauge("egret_sessions", &[label()]),
                kept: sessions("kept"),
                offered: sessions("offered"),
                accepted: sessions("accepted"),
                refused: sessions("refused"),
                broken: sessions("broken"),
                expired: sessions("expired"),
                displaced: sessions("displaced"),
                foreign: sessions("foreign"),
                oversized: sessions("oversized"),
                over_budget: sessions("over_budget"),
                no_session: sessions("no_session"),
                ratio: Share::new(Some(Late::new(registry, RESUMPTION_RATIO, &[label()]))),
            },
        }
    }

    /// Handles that are not registered.
    pub fn silent() -> Arc<Self> {
        let counter = Counter::noop;
        Arc::new(Self {
            ahead_sent: counter(),
            ahead_dropped: counter(),
            chains_built: counter(),
            chains_remembered: counter(),
            rotation: RotationMetrics::new(None),
            sessions: SessionMetrics {
                held: Gauge::noop(),
                kept: counter(),
                offered: counter(),
                accepted: counter(),
                refused: counter(),
                broken: counter(),
                expired: counter(),
                displaced: counter(),
                foreign: counter(),
                oversized: counter(),
                over_budget: counter(),
                no_session: counter(),
                ratio: Share::new(None),
            },
        })
    }
}

/// The share of the recent events that were of one kind. Shown as it is now: with two counters, a reader would have to
/// compute a rate first.
pub struct Share {
    /// The bits of a float; negative before the first event.
    now: AtomicU64,
    shown: Option<Late>,
}

/// The weight of one event: about the last hundred count, so that a change is seen within seconds under load and one
/// full handshake among resumed ones is not an alarm.
const WEIGHT: f64 = 0.02;

impl Share {
    fn new(shown: Option<Late>) -> Self {
        Self { now: AtomicU64::new((-1.0f64).to_bits()), shown }
    }

    pub(crate) fn add(&self, of_kind: bool) {
        let event = f64::from(u8::from(of_kind));
        let next = |bits| {
            let now = f64::from_bits(bits);
            Some((if now < 0.0 { event } else { now + (event - now) * WEIGHT }).to_bits())
        };
        // Two concurrent calls may set the gauge in the wrong order: the next event corrects it.
        let _ = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        if let Some(shown) = &self.shown {
            shown.set(f64::from_bits(self.now.load(Ordering::Relaxed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(events: impl IntoIterator<Item = bool>) -> f64 {
        let share = Share::new(None);
        events.into_iter().for_each(|event| share.add(event));
        f64::from_bits(share.now.load(Ordering::Relaxed))
    }

    #[test]
    fn a_share_begins_with_the_first_event_and_follows_the_last_hundred() {
        assert_eq!(share([true]), 1.0);
        assert_eq!(share([false; 3]), 0.0);
        let changed = share(std::iter::repeat_n(false, 1000).chain(std::iter::repeat_n(true, 100)));
        assert!((0.8..0.95).contains(&changed), "{changed}");
        let mixed = share((0..2000).map(|number| number % 20 != 0));
        assert!((0.9..1.0).contains(&mixed), "{mixed}");
    }
}
