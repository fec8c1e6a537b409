//! The memory that sessions take, over all origins of the process.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::memory;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Default)]
pub(super) struct Room(usize);

impl Room {
    /// `None`: less than `bytes` are left.
    pub(super) fn take(bytes: usize) -> Option<Self> {
        Self::take_of(&TAKEN, memory::for_sessions(), bytes).then(|| Self(bytes))
    }

    pub(super) fn bytes(&self) -> usize {
        self.0
    }

    fn take_of(taken: &AtomicUsize, most: usize, bytes: usize) -> bool {
        let more = |now: usize| now.checked_add(bytes).filter(|all| *all <= most);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        const MOST: usize = 1000;
        let taken = AtomicUsize::new(0);
        assert!(Room::take_of(&taken, MOST, MOST - 10));
        for (bytes, fits) in [(11, false), (usize::MAX, false), (10, true), (1, false), (0, true)] {
            assert_eq!(Room::take_of(&taken, MOST, bytes), fits, "{bytes}");
        }
        assert_eq!(taken.into_inner(), MOST);
    }
}
