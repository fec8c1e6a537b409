//! Capabilities (capabilities(7)): given up at the start; those that a later call may need stay permitted, are not in force,
//! and are raised for that call alone, in its thread.
//!
//! A reload binds ports below 1024, reads files of other owners, and `egret exec` signals a program that has become another
//! user: without them each of these would fail in a process that could do it before.

use std::io;
use std::marker::PhantomData;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What stays permitted, if it was: for ports below 1024, for files and folders of other owners, for signals to the program
/// of `egret exec`.
pub(crate) const FOR_LATER: CapabilitySet = CapabilitySet::NET_BIND_SERVICE
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::KILL);

/// Gives up the capabilities of this thread, and of those that it starts from now on, but for `in_force`, and for
/// `for_later`, which are permitted only.
pub(crate) fn lower(for_later: CapabilitySet, in_force: CapabilitySet) -> io::Result<()> {
    let held = capabilities(None)?;
    let effective = held.effective & in_force;
    let permitted = effective | (held.permitted & for_later);
    Ok(set_capabilities(None, CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() })?)
}

/// The permitted capabilities are in force in this thread until this is dropped.
pub(crate) struct Raised {
    before: Option<CapabilitySets>,
    of_this_thread: PhantomData<*const ()>,
}

pub(crate) fn raise() -> Raised {
    let raised = || {
        let before = capabilities(None).ok().filter(|held| held.effective != held.permitted)?;
        set_capabilities(None, CapabilitySets { effective: before.permitted, ..before }).ok().map(|()| before)
    };
    Raised { before: raised(), of_this_thread: PhantomData }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // Less than is in force is always granted.
            let _ = set_capabilities(None, before);
        }
    }
}

/// Makes the call again with what is permitted if it is refused without.
pub(crate) fn retry<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match call() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let raised = raise();
            if raised.before.is_some() { call() } else { Err(error) }
        }
        result => result,
    }
}
