//! Descriptors that are held only to be given up: whoever holds some can accept a client when no others are left.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// At most [`SpareDescriptors::HELD`] descriptors. Their files are counters in the kernel that nobody uses.
pub(crate) struct SpareDescriptors(Vec<OwnedFd>);

impl SpareDescriptors {
    /// One for the client that is accepted, the others for whatever takes a free descriptor first: a listener or a stream.
    pub(crate) const HELD: usize = 4;

    pub(crate) fn hold() -> Self {
        let mut spares = Self(Vec::with_capacity(Self::HELD));
        spares.refill();
        spares
    }

    /// Holds as many again as there were, or as many as the process can get now.
    pub(crate) fn refill(&mut self) {
        while self.0.len() < Self::HELD
            && let Ok(spare) = eventfd(0, EventfdFlags::CLOEXEC)
        {
            self.0.push(spare);
        }
    }

    /// Closes one of them if `result` failed for want of a descriptor. `true`: the caller can try again at once.
    pub(crate) fn make_room_after<T>(&mut self, result: &io::Result<T>) -> bool {
        result.as_ref().is_err_and(is_out_of_descriptors) && self.0.pop().is_some()
    }
}

/// EMFILE or ENFILE: the process or the system has no descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(errno: Errno) -> io::Result<()> {
        Err(errno.into())
    }

    #[test]
    fn each_want_of_a_descriptor_is_met_until_none_is_held() {
        let mut spares = SpareDescriptors::hold();
        assert!(!spares.make_room_after(&Ok(())) && !spares.make_room_after(&failed(Errno::CONNABORTED)));
        for round in 0..2 {
            for errno in [Errno::MFILE, Errno::NFILE, Errno::MFILE, Errno::NFILE] {
                assert!(spares.make_room_after(&failed(errno)), "round {round}");
            }
            assert!(!spares.make_room_after(&failed(Errno::MFILE)), "round {round}");
            spares.refill();
        }
    }
}
