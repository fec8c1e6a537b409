//! Finished originations that nobody has used yet, kept warm: a new stream takes one and pays no handshake.
//!
//! A stream of bytes has no end of a request, so a used connection never comes back. What is here was never used.
//!
//! | file | idea |
//! |---|---|
//! | `shelf` | what is ready: newest first, each once, within bounds; pure |
//! | `warm` | one connection that waits: listened to, without a buffer |
//! | `hand_over` | it meets its client, or dies unnoticed |
//! | `demand` | how many are worth having; pure |
//! | `lifetime` | how long servers let them live; pure |
//! | `pause` | when to try again after a failure; pure |
//!
//! The shelf belongs to the [`Origin`](crate::pipeline::originate::origin::Origin): no connection can reach another
//! identity, trust or server name, and an origin that a reload carries over keeps what is ready.

pub(crate) mod demand;
pub(crate) mod hand_over;
pub(crate) mod lifetime;
pub(crate) mod pause;
pub(crate) mod replenish;
pub mod shelf;
pub(crate) mod take;
pub(in crate::pipeline::originate) mod waiting;
pub(crate) mod warm;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::config::values;
use crate::observe::metrics::PoolMetrics;
use crate::pipeline::originate::servers::account::{Account, Tally};
use shelf::{Bounds, Shelf};
use warm::{Discard, Warm};

/// State that the clients of one upstream and the tasks that fill its shelves share.
pub(crate) struct Pool {
    spec: values::Pool,
    everywhere: Arc<Semaphore>,
    metrics: PoolMetrics,
    tally: Arc<Tally>,
    arrivals: AtomicUsize,
    /// A client was served since the last call of `has_served`: by a warm connection, and at all.
    works: [AtomicBool; 2],
    making: AtomicUsize,
    trials: AtomicUsize,
    made: Notify,
    wake: Arc<Notify>,
}

/// An origination for the pool that is a trial of an endpoint: most fail, some only at their deadline. Until it is
/// dropped, no client waits for it.
#[must_use = "the trial is over when this is dropped"]
pub(crate) struct Trying<'a>(&'a Pool);

/// An origination for the pool. Until it is dropped, a client may wait for what it makes.
#[must_use = "the origination is over when this is dropped"]
pub(crate) struct Making<'a>(&'a Pool);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.making.fetch_sub(1, Ordering::Relaxed);
        self.0.made.notify_waiters();
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.0.trials.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Each connection needs a permit of `everywhere`. Counts of `previous` are carried on.
    pub(crate) fn new(
        spec: values::Pool,
        everywhere: Arc<Semaphore>,
        metrics: PoolMetrics,
        previous: Option<&Self>,
    ) -> Self {
        let tally = previous.map(|previous| Arc::clone(&previous.tally)).unwrap_or_default();
        let arrivals = AtomicUsize::new(0);
        let making = AtomicUsize::new(0);
        let trials = AtomicUsize::new(0);
        let (works, made, wake) = Default::default();
        Self { spec, everywhere, metrics, tally, arrivals, works, making, trials, made, wake }
    }

    pub(crate) fn spec(&self) -> &values::Pool {
        &self.spec
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn bound(&self, shelf: &Shelf<Warm>) {
        let bounds = Bounds { most: self.spec.max_idle, everywhere: Arc::clone(&self.everywhere) };
        self.discard(shelf.bound(bounds).into_iter().map(|warm| (warm, Discard::Excess)));
    }

    /// The newest for this endpoint. Never waits.
    pub(crate) fn take(&self, shelf: &Shelf<Warm>, endpoint: SocketAddr) -> Option<Warm> {
        let warm = shelf.take(endpoint, Instant::now())?;
        self.metrics.warm.decrement(1.0);
        Some(warm)
    }

    pub(crate) fn ready(&self) {
        self.metrics.warm.increment(1.0);
        self.metrics.filled.increment(1);
    }

    pub(crate) fn failed(&self) {
        self.metrics.failed.increment(1);
    }

    pub(crate) fn arrived(&self) {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Clients since the last call.
    pub(crate) fn arrivals(&self) -> usize {
        self.arrivals.swap(0, Ordering::Relaxed)
    }

    /// Records a client that was served; `hit`: by a warm connection.
    pub(crate) fn served(&self, hit: bool, by: &Account) {
        by.served(hit);
        self.tally.served(hit);
        if hit {
            self.metrics.hits.increment(1)
        } else {
            self.metrics.misses.increment(1)
        }
        self.works[usize::from(!hit)].store(true, Ordering::Relaxed);
    }

    /// Whether clients were served since the last call; true if one by a warm connection.
    pub(crate) fn has_served(&self) -> Option<bool> {
        let [warm, cold] = self.works.each_ref().map(|works| works.swap(false, Ordering::Relaxed));
        (warm || cold).then_some(warm)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.everywhere.available_permits() > 0
    }

    pub(crate) fn making(&self) -> Making<'_> {
        self.making.fetch_add(1, Ordering::Relaxed);
        Making(self)
    }

    /// Whether an origination that is not a trial is under way: that one is worth waiting for.
    pub(crate) fn is_making(&self) -> bool {
        self.making.load(Ordering::Relaxed) > self.trials()
    }

    /// Resolves when one is over. Cancel safe.
    pub(crate) fn made(&self) -> Notified<'_> {
        self.made.notified()
    }

    /// An origination is a trial, and another is to be begun in its place.
    pub(crate) fn trying(&self) -> Trying<'_> {
        self.trials.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
        Trying(self)
    }

    pub(crate) fn trials(&self) -> usize {
        self.trials.load(Ordering::Relaxed)
    }

    pub(crate) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    pub(crate) fn discard(&self, discarded: impl IntoIterator<Item = (Warm, Discard)>) {
        for (warm, discard) in discarded {
            self.metrics.warm.decrement(1.0);
            self.discard_taken(warm, discard);
        }
    }

    pub(crate) fn discard_taken(&self, warm: Warm, discard: Discard) {
        self.died(discard, warm.account());
        if !discard.is_of_server() {
            warm.leave();
        }
    }

    pub(crate) fn died(&self, discard: Discard, at: &Account) {
        at.discarded(discard.reason());
        self.tally.discarded(discard.reason());
        self.metrics.discards.increment(discard.reason());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}
