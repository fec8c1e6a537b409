//! Clients whose origination is under way, in the whole process.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;

static WAITING: AtomicUsize = AtomicUsize::new(0);

pub(in crate::pipeline::originate) fn clients() -> usize {
    WAITING.load(Ordering::Relaxed)
}

/// Whether each client that waits has a worker to itself. Then a few microseconds of a processor are worth a shorter wait;
/// with more clients they would lengthen the wait of all others. False without a client. To be called in a runtime.
pub(in crate::pipeline::originate) fn leave_workers_idle() -> bool {
    each_has_a_worker(clients(), Handle::current().metrics().num_workers())
}

fn each_has_a_worker(clients: usize, workers: usize) -> bool {
    (1..=workers).contains(&clients)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_a_worker_to_itself_is_not_under_load() {
        for (clients, workers, expected) in
            [(0, 1, false), (1, 1, true), (2, 1, false), (1, 4, true), (4, 4, true), (5, 4, false), (1000, 4, false)]
        {
            assert_eq!(each_has_a_worker(clients, workers), expected, "{clients} clients, {workers} workers");
        }
    }
}
