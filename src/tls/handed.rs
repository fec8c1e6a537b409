//! How many bytes of the peer rustls is given in the call that runs now.
//!
//! rustls makes a session of them, hands it to the store within the same call, and does not say how large it is. The
//! store needs to know it: a ticket may have 64 KiB.

use std::cell::Cell;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Runs a call in which rustls is given at most `bytes`. Not to be nested.
pub(super) fn with<T>(bytes: usize, call: impl FnOnce() -> T) -> T {
    BYTES.set(bytes);
    let done = call();
    BYTES.set(0);
    done
}

/// In a call of rustls: no session that it makes is longer than this, without the chain of the session that was
/// resumed. 0 outside of the calls that this crate makes.
pub(crate) fn bytes() -> usize {
    BYTES.get()
}
