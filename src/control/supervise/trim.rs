//! Gives memory back to the system after a crowd has left.
//!
//! The allocator keeps what was freed: after 5,000 streams that ended, 140 MiB stayed resident where 14 were before the first.
//! With a trim 21 MiB stay, less than with jemalloc (25) or mimalloc (80), at the same CPU time: `docs/hot-path.md` has the
//! table of what was compared.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::net;

/// A crowd of fewer connections is not worth a trim: they hold at most some 3 MiB.
const CROWD: usize = 64;
/// How often the connections are counted, which is one load. With a second between two counts, a crowd of 1,500 came
/// and went unseen, and its memory stayed.
const LOOK: Duration = Duration::from_millis(100);

/// Trims after the number of connections has stopped changing: a count that is the same twice in 0.1 s may be a pause,
/// and a task is freed after its permit.
const AT_REST: u8 = 3;

pub(super) struct Trim {
    bound: usize,
    permits: Arc<Semaphore>,
    /// The most connections since the last trim.
    peak: usize,
    /// Trims that are due while the number of connections does not change: the first one misses what ended last.
    again: u8,
    last: usize,
    look: Interval,
}

impl Trim {
    /// Connections are the permits of `bound` that `permits` lacks.
    pub(super) fn new(bound: usize, permits: Arc<Semaphore>) -> Self {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { bound, permits, peak: 0, again: 0, last: 0, look }
    }

    /// Trims the heap once half of a crowd has left, and again when the rest has: on a thread that may block, as it
    /// takes some milliseconds for each 100 MiB. Cancel safe.
    pub(super) async fn when_quiet(&mut self) {
        loop {
            self.look.tick().await;
            if self.is_due(self.bound.saturating_sub(self.permits.available_permits())) {
                tokio::task::spawn_blocking(net::trim_heap);
            }
        }
    }

    fn is_due(&mut self, connections: usize) -> bool {
        let half_left = self.peak >= CROWD && connections <= self.peak / 2;
        let at_rest = self.again > 0 && connections == self.last;
        self.again = if half_left { AT_REST } else { self.again - u8::from(at_rest) };
        self.last = connections;
        self.peak = if half_left { connections } else { self.peak.max(connections) };
        half_left || at_rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_heap_is_trimmed_when_half_of_a_crowd_has_left() {
        let mut trim = Trim::new(10_000, Arc::new(Semaphore::new(10_000)));
        for (connections, is_due) in [
            (0, false),
            (63, false),
            (0, false),
            (5000, false),
            (2600, false),
            (2500, true),
            (2500, true),
            (2500, true),
            (2500, true),
            (2500, false),
            (1250, true),
            (1251, false),
            (30, true),
            (0, false),
            (0, true),
            (0, true),
            (0, true),
            (0, false),
        ] {
            assert_eq!(trim.is_due(connections), is_due, "{connections}");
        }
    }
}
