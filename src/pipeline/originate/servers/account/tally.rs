//! Counts of a pool, or of its part at one endpoint, for the status: metrics can be counted, but not read back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts; reloads do not begin them anew.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    hits: AtomicU64,
    misses: AtomicU64,
    discards: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    /// `hit`: by a warm connection.
    pub(in crate::pipeline::originate) fn served(&self, hit: bool) {
        if hit { &self.hits } else { &self.misses }.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::pipeline::originate) fn discarded(&self, reason: &'static str) {
        *self.discards.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(crate) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    pub(crate) fn discards(&self) -> BTreeMap<&'static str, u64> {
        self.discards.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
