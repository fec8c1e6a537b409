//! Stop accepting, let streams finish, then reset those that are left.
//!
//! One [`Drain`] asks; every task that has to end holds a [`Watch`]. The drain is over when the last watch has been
//! dropped, so no counter has to be kept right. A pair belongs to the whole process or to one listener: a listener that
//! a reload removed is asked to stop, while the streams it accepted live on.

use std::convert::Infallible;
use std::future::{self, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// A drain and the first of its watches.
pub fn channel() -> (Drain, Watch) {
    let (asked, hears) = watch::channel(Phase::Open);
    // Nothing is ever sent: the channel exists to be closed by its last sender.
    let (held, ended) = mpsc::channel(1);
    (Drain { phase: asked, ended }, Watch { phase: hears, held })
}

/// The side that asks.
///
/// Dropping it asks for nothing: watches that were not asked to stop by then never are, and those that
/// were are never forced. Streams live on until they end by themselves.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    ended: mpsc::Receiver<Infallible>,
}

impl Drain {
    /// Asks every watch to stop, now and without a deadline. May be called again, without effect.
    pub fn stop(&self) {
        self.phase.send_if_modified(|phase| {
            let first = *phase == Phase::Open;
            if first {
                *phase = Phase::Draining;
            }
            first
        });
    }

    /// Asks every watch to stop, waits up to `deadline` until all are dropped, then forces the rest.
    ///
    /// Returns when the last watch is gone, at the latest `FORCED_GRACE` (5 s) after the deadline.
    /// A deadline of zero forces at once. Not cancel safe: a dropped call has asked, but will not force.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        self.stop();
        if timeout(deadline, self.ended.recv()).await.is_ok() {
            return Drained::Finished;
        }
        let held = self.ended.sender_strong_count();
        self.phase.send_replace(Phase::Forced);
        match timeout(FORCED_GRACE, self.ended.recv()).await {
            Ok(_) => Drained::Forced { held },
            Err(_) => Drained::Stuck { held: self.ended.sender_strong_count() },
        }
    }
}

/// After the deadline a stream only has to reset its sockets, which takes milliseconds; five seconds leave room for an
/// overloaded machine and still end before a supervisor kills the process (systemd kills 90 s after it asked,
/// Kubernetes 30 s).
const FORCED_GRACE: Duration = Duration::from_secs(5);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every watch was dropped before the deadline.
    Finished,
    /// The streams left at the deadline were forced, and all of them ended.
    Forced {
        /// Watches held at the deadline.
        held: usize,
    },
    /// Some streams were still there after the grace period.
    Stuck {
        /// Watches still held.
        held: usize,
    },
}

/// The side that is asked. Held by a task until it has ended: dropping it reports that the task is done.
#[derive(Clone, Debug)]
pub struct Watch {
    phase: watch::Receiver<Phase>,
    #[expect(dead_code, reason = "held for the sake of its drop")]
    held: mpsc::Sender<Infallible>,
}

impl Watch {
    /// Completes once a stop was requested; never, if the [`Drain`] is dropped without requesting one.
    ///
    /// The future borrows nothing and does not keep the drain from finishing. Cancel safe.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        reached(self.phase.clone(), Phase::Draining)
    }

    /// Completes once the deadline of the drain has passed: end at once, by reset.
    ///
    /// The future borrows nothing and does not keep the drain from finishing. Cancel safe. A relay polls it with
    /// every message: `cheaply`.
    pub fn forced(&self) -> impl Future<Output = ()> + Send + use<> {
        cheaply(self.phase.clone(), Phase::Forced)
    }

    /// Whether a stop was requested.
    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    Draining,
    Forced,
}

/// As [`reached`], but cheap to poll again: while phase and waker are unchanged, a poll is two comparisons. A poll of
/// the channel takes a lock that all streams share: 1.5 % of a round trip of small messages.
async fn cheaply(phase: watch::Receiver<Phase>, wanted: Phase) {
    // `phase` is never marked as seen: once a drain has begun, every poll asks in full.
    let mut reached = pin!(reached(phase.clone(), wanted));
    let mut left: Option<Waker> = None;
    poll_fn(|cx| {
        let same = left.as_ref().is_some_and(|left| left.will_wake(cx.waker()));
        if same && matches!(phase.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        left = Some(cx.waker().clone());
        reached.as_mut().poll(cx)
    })
    .await
}

async fn reached(mut phase: watch::Receiver<Phase>, wanted: Phase) {
    // The sender is gone before this phase was reached: it never will be.
    if phase.wait_for(|phase| *phase >= wanted).await.is_err() {
        future::pending::<()>().await;
    }
}
