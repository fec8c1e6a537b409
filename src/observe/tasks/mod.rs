//! Supervised tasks: a panic or an early end is logged and counted, and a task that serves more than one connection is
//! started again.
//!
//! Without that, a task that died would leave its socket bound and nobody to accept from it, a pool that is never filled
//! again, or a name that is never looked up again.

#[cfg(debug_assertions)]
mod injected;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::observe::metrics::Registry;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Signals, reloads and the drain. Its end is the end of the process.
    Main,
    Listener,
    Admin,
    Watcher,
    DnsRefresh,
    DnsLookup,
    Connection,
    HealthChecks,
    HealthCheck,
    Pool,
    PoolFill,
    /// A connection that checks whether a server refuses all clients or only one.
    Confirmation,
    /// Drops a handshake whose client has not come.
    Ahead,
    /// The program of `egret exec`: its start, its signals, its end.
    Program,
    /// Originations that prove an upstream.
    Proof,
    /// Keeps upstreams proven that a probe or the configuration asks for.
    Readiness,
}

impl Task {
    #[cfg(debug_assertions)]
    pub(crate) const ALL: [Self; 16] = [
        Self::Main,
        Self::Listener,
        Self::Admin,
        Self::Watcher,
        Self::DnsRefresh,
        Self::DnsLookup,
        Self::Connection,
        Self::HealthChecks,
        Self::HealthCheck,
        Self::Pool,
        Self::PoolFill,
        Self::Confirmation,
        Self::Ahead,
        Self::Program,
        Self::Proof,
        Self::Readiness,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Listener => "listener",
            Self::Admin => "admin",
            Self::Watcher => "watcher",
            Self::DnsRefresh => "dns_refresh",
            Self::DnsLookup => "dns_lookup",
            Self::Connection => "connection",
            Self::HealthChecks => "health_checks",
            Self::HealthCheck => "health_check",
            Self::Pool => "pool",
            Self::PoolFill => "pool_fill",
            Self::Confirmation => "confirmation",
            Self::Ahead => "ahead",
            Self::Program => "program",
            Self::Proof => "proof",
            Self::Readiness => "readiness",
        }
    }
}

/// The pauses before a task is started again: the shortest is not noticed, the longest keeps a task that fails at once
/// from filling the log.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(5);
/// A task that ran this long has recovered: its next failure begins with the shortest pause again.
const RECOVERED: Duration = Duration::from_secs(60);

/// The payload of a panic. The log's panic hook has reported it by the time it is caught.
pub(crate) type Panic = Box<dyn Any + Send>;

/// Completes with `work`, or with the panic that ended it.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Panic> {
    let mut work = pin!(work);
    // What `work` shares with others is behind locks that recover from poison and atomics; what it owns is dropped.
    std::future::poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await
}

pub(crate) async fn caught_in<T>(_task: Task, work: Pin<&mut impl Future<Output = T>>) -> Result<T, Panic> {
    #[cfg(debug_assertions)]
    let work = async {
        injected::fail_if_asked(_task);
        work.await
    };
    caught(work).await
}

fn count(task: Task, registry: &Registry, reason: &'static str) {
    let labels = [("task", task.as_str().into()), ("reason", reason.into())];
    registry.counter("egret_task_failures_total", &labels).increment(1);
}

/// Logs and counts the failures of one task, and computes the pause before it is started again.
pub(crate) struct Failures {
    task: Task,
    registry: Registry,
    pause: Duration,
    began: Instant,
}

impl Failures {
    pub(crate) fn of(task: Task, registry: &Registry) -> Self {
        Self { task, registry: registry.clone(), pause: *PAUSE.start(), began: Instant::now() }
    }

    /// Records that the task ended for `reason`, and waits until it may be started again.
    pub(crate) async fn pause(&mut self, reason: &'static str) {
        if self.began.elapsed() > RECOVERED {
            self.pause = *PAUSE.start();
        }
        count(self.task, &self.registry, reason);
        tracing::error!(
            task = self.task.as_str(),
            reason,
            pause = ?self.pause,
            "a task failed and is started again"
        );
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(*PAUSE.end());
        self.began = Instant::now();
    }
}

/// Runs `work` again and again until it ends while `is_over`.
pub(crate) async fn keep_running<F: Future<Output = ()>>(
    task: Task,
    registry: &Registry,
    is_over: impl Fn() -> bool,
    mut work: impl FnMut() -> F,
) {
    let mut failures = Failures::of(task, registry);
    loop {
        let reason = match caught_in(task, pin!(work())).await {
            Ok(()) if is_over() => return,
            Ok(()) => "ended",
            Err(_) => "panicked",
        };
        failures.pause(reason).await;
    }
}

/// A background task for `owner` that ends when `owner` is dropped: it holds `owner` only while it works.
pub(crate) fn spawn_for<O, F>(
    task: Task,
    registry: &Registry,
    owner: &Arc<O>,
    mut work: impl FnMut(Weak<O>) -> F + Send + 'static,
) -> AbortHandle
where
    O: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let registry = registry.clone();
    let owner = Arc::downgrade(owner);
    let kept = async move {
        let is_over = || owner.strong_count() == 0;
        keep_running(task, &registry, is_over, || work(Weak::clone(&owner))).await;
    };
    tokio::spawn(kept).abort_handle()
}

/// Runs `work` once. `None`: it panicked, which is logged and counted; the caller decides when to retry.
pub(crate) async fn once<T>(task: Task, registry: &Registry, work: impl Future<Output = T>) -> Option<T> {
    let done = caught_in(task, pin!(work)).await;
    if done.is_err() {
        count(task, registry, "panicked");
        tracing::error!(task = task.as_str(), reason = "panicked", "a task failed");
    }
    done.ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const TASK: Task = Task::Listener;

    /// Runs a task that calls `step(n)` in its n-th run, until it is over; returns the number of runs, and the text of
    /// the metrics.
    async fn lives(last: u32, step: impl Fn(u32)) -> (u32, String) {
        let registry = Registry::new();
        let life = Cell::new(0);
        let work = || {
            let n = life.get() + 1;
            let step = &step;
            life.set(n);
            async move {
                tokio::task::yield_now().await;
                step(n);
            }
        };
        keep_running(TASK, &registry, || life.get() == last, work).await;
        (life.get(), registry.render())
    }

    fn counted(metrics: &str, reason: &str, count: u32) -> bool {
        metrics
            .contains(&format!("egret_task_failures_total{{task=\"{}\",reason=\"{reason}\"}} {count}\n", TASK.as_str()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_started_again() {
        let (lives, metrics) = lives(4, |life| assert!(life > 3, "life {life}")).await;
        assert_eq!(lives, 4);
        assert!(counted(&metrics, "panicked", 3), "{metrics}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_early_is_counted_and_started_again() {
        let (lives, metrics) = lives(3, |_| ()).await;
        assert_eq!(lives, 3);
        assert!(counted(&metrics, "ended", 2), "{metrics}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_over_is_not_started_again() {
        let (lives, metrics) = lives(1, |_| ()).await;
        assert_eq!(lives, 1);
        assert!(!metrics.contains("egret_task_failures_total{"), "{metrics}");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_bound_and_shrink_after_a_recovery() {
        let mut failures = Failures::of(TASK, &Registry::silent());
        for _ in 0..20 {
            failures.pause("panicked").await;
        }
        assert_eq!(failures.pause, *PAUSE.end());
        sleep(RECOVERED * 2).await;
        let before = Instant::now();
        failures.pause("panicked").await;
        assert_eq!(before.elapsed(), *PAUSE.start());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_of_an_owner_ends_with_it_and_a_panic_does_not_keep_it() {
        let registry = Registry::new();
        let owner = Arc::new(());
        let (lives, mut seen) = tokio::sync::watch::channel(0);
        let work = move |owner: Weak<()>| {
            let lives = lives.clone();
            async move {
                lives.send_modify(|lives| *lives += 1);
                assert!(*lives.borrow() > 2, "panics twice");
                while owner.upgrade().is_some() {
                    sleep(RECOVERED).await;
                }
            }
        };
        spawn_for(Task::Pool, &registry, &owner, work);
        seen.wait_for(|lives| *lives == 3).await.expect("the task runs");
        drop(owner);
        assert!(seen.changed().await.is_err(), "the task goes on without its owner");
        assert!(registry.render().contains("{task=\"pool\",reason=\"panicked\"} 2\n"));
    }

    #[tokio::test]
    async fn work_that_is_done_once_has_a_result_or_is_counted() {
        let registry = Registry::new();
        assert_eq!(once(Task::DnsLookup, &registry, async { 7 }).await, Some(7));
        assert_eq!(once(Task::DnsLookup, &registry, async { assert_eq!(1, 2, "a fault") }).await, None);
        assert!(registry.render().contains("{task=\"dns_lookup\",reason=\"panicked\"} 1\n"));
    }

    #[tokio::test]
    async fn what_a_task_owned_is_dropped_with_its_panic() {
        struct Owned<'a>(&'a Cell<bool>);
        impl Drop for Owned<'_> {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let dropped = Cell::new(false);
        let work = async {
            let _owned = Owned(&dropped);
            panic!("in the midst of work");
        };
        let caught: Result<(), Panic> = caught(work).await;
        assert!(caught.is_err() && dropped.get());
    }
}
