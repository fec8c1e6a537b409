//! The memory that sessions take, over all origins of the process.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of all sessions of the process: 32 MiB. Twelve origins may be full, a thousand have room for a dozen each.
const MAX_EVERYWHERE: usize = 33_554_432;

/// Bytes that are taken now.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The part of one session, given back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Room(usize);

impl Room {
    /// Room for so many bytes; `None`: there is too little left.
    pub(super) fn take(bytes: usize) -> Option<Self> {
        Self::take_of(&TAKEN, bytes).then(|| Self(bytes))
    }

    /// How much it is.
    pub(super) fn bytes(&self) -> usize {
        self.0
    }

    fn take_of(taken: &AtomicUsize, bytes: usize) -> bool {
        let more = |now: usize| now.checked_add(bytes).filter(|all| *all <= MAX_EVERYWHERE);
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
        let taken = AtomicUsize::new(0);
        assert!(Room::take_of(&taken, MAX_EVERYWHERE - 10));
        for (bytes, fits) in [(11, false), (usize::MAX, false), (10, true), (1, false), (0, true)] {
            assert_eq!(Room::take_of(&taken, bytes), fits, "{bytes}");
        }
        assert_eq!(taken.into_inner(), MAX_EVERYWHERE);
    }
}
