//! Whether the worker threads still work: a task that blocks its thread stops everything that this thread holds.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeMetrics};

/// A worker that runs tasks and gets to no end of a turn for this long is stuck. A turn is 61 polls at most, and the
/// longest poll of egret takes milliseconds; a machine that swaps makes it a second.
const STUCK: Duration = Duration::from_secs(10);

/// The signs of life of every worker, compared at each look.
pub(super) struct Heartbeat {
    metrics: RuntimeMetrics,
    beats: Mutex<Vec<Beat>>,
}

struct Beat {
    sign: Sign,
    since: Instant,
}

/// What changes while a worker works.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sign {
    /// Odd while the thread is parked: it has nothing to do.
    parks: u64,
    /// Counted at the end of each turn.
    busy: Duration,
}

impl Sign {
    fn is_parked(self) -> bool {
        self.parks % 2 == 1
    }
}

impl Heartbeat {
    /// Of the runtime that this is called in.
    pub(super) fn new() -> Self {
        Self { metrics: Handle::current().metrics(), beats: Mutex::default() }
    }

    /// Looks at all workers; the numbers of those that are stuck, and for how long.
    pub(super) fn stuck(&self) -> Vec<(usize, Duration)> {
        let now = Instant::now();
        let signs = (0..self.metrics.num_workers()).map(|worker| Sign {
            parks: self.metrics.worker_park_unpark_count(worker),
            busy: self.metrics.worker_total_busy_duration(worker),
        });
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        compare(&mut beats, signs, now)
    }
}

fn compare(beats: &mut Vec<Beat>, signs: impl Iterator<Item = Sign>, now: Instant) -> Vec<(usize, Duration)> {
    let mut stuck = Vec::new();
    for (worker, sign) in signs.enumerate() {
        match beats.get_mut(worker) {
            None => beats.push(Beat { sign, since: now }),
            Some(beat) if beat.sign != sign || sign.is_parked() => *beat = Beat { sign, since: now },
            Some(beat) => {
                let silent = now.saturating_duration_since(beat.since);
                stuck.extend((silent >= STUCK).then_some((worker, silent)));
            }
        }
    }
    stuck
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_stuck_if_it_runs_and_makes_no_progress() {
        let start = Instant::now();
        let mut beats = Vec::new();
        let sign = |parks, busy| Sign { parks, busy: Duration::from_secs(busy) };
        // Parked; running and getting on; running without an end.
        let look = |beats: &mut Vec<Beat>, second: u64, signs: [Sign; 3]| {
            let found = compare(beats, signs.into_iter(), start + Duration::from_secs(second));
            found.into_iter().map(|(worker, silent)| (worker, silent.as_secs())).collect::<Vec<_>>()
        };
        assert_eq!(look(&mut beats, 0, [sign(1, 0), sign(2, 0), sign(2, 0)]), []);
        assert_eq!(look(&mut beats, 9, [sign(1, 0), sign(2, 5), sign(2, 0)]), []);
        assert_eq!(look(&mut beats, 10, [sign(1, 0), sign(2, 6), sign(2, 0)]), [(2, 10)]);
        assert_eq!(look(&mut beats, 60, [sign(1, 0), sign(4, 6), sign(2, 0)]), [(2, 60)]);
        // It goes on, and the one that was parked begins to hang.
        assert_eq!(look(&mut beats, 61, [sign(2, 0), sign(5, 6), sign(3, 0)]), []);
        assert_eq!(look(&mut beats, 71, [sign(2, 0), sign(5, 6), sign(3, 0)]), [(0, 10)]);
    }
}
