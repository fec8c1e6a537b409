//! Clients whose origination is under way, in the whole process.

use std::sync::atomic::{AtomicUsize, Ordering};

static WAITING: AtomicUsize = AtomicUsize::new(0);

pub(super) fn clients() -> usize {
    WAITING.load(Ordering::Relaxed)
}

/// A client whose origination is under way: pools then begin fewer of their own.
pub(in crate::pipeline::originate) struct Waiting;

impl Waiting {
    pub(in crate::pipeline::originate) fn begin() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}
