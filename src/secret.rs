//! Values that must not be shown: whatever prints them prints a placeholder.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// Secret bytes (a password, a private key). Debug shows nothing, and the memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Empty, with room for `capacity` bytes: a vector that grows leaves copies behind.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self::new(Vec::with_capacity(capacity))
    }

    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Calls `work`, and then wipes the stack that it has used. A value that is moved leaves a copy where it was: wiping the
/// value when it is dropped does not reach that one.
pub(crate) fn on_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = called(work);
    wipe();
    result
}

/// Words of 8 bytes. Copies of record keys were found over 3.1 KiB of it in a build without optimisation; five times that.
const STACK: usize = 2048;

/// A frame of its own, below that of its caller as that of [`wipe`] is.
#[inline(never)]
fn called<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe() {
    let mut room = [0_u64; STACK];
    room.zeroize();
    std::hint::black_box(&room);
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
