//! Tasks that run as long as the process: a panic or an early end is logged, counted, and the task started again.
//!
//! Without that, a task that died would leave its socket bound and nobody to accept from it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::observe::metrics::Registry;

/// The pauses before a task is started again: the first is too short to be noticed, the last keeps a task that
/// fails at once from filling the log.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(5);
/// A task that ran this long has recovered: its next failure begins with the shortest pause again.
const RECOVERED: Duration = Duration::from_secs(60);

/// What a panic was raised with. The hook of the log has reported it by the time it is caught.
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

/// Logs and counts the failures of one task, and says how long to wait before it is started again.
pub(crate) struct Failures {
    task: &'static str,
    registry: Registry,
    pause: Duration,
    began: Instant,
}

impl Failures {
    /// Of the task called `task` in the log and in `egret_task_failures_total`.
    pub(crate) fn of(task: &'static str, registry: &Registry) -> Self {
        Self { task, registry: registry.clone(), pause: *PAUSE.start(), began: Instant::now() }
    }

    /// Records that the task ended for `reason`, and waits until it may be started again.
    pub(crate) async fn pause(&mut self, reason: &'static str) {
        if self.began.elapsed() > RECOVERED {
            self.pause = *PAUSE.start();
        }
        let labels = [("task", self.task.into()), ("reason", reason.into())];
        self.registry.counter("egret_task_failures_total", &labels).increment(1);
        tracing::error!(task = self.task, reason, pause = ?self.pause, "a task failed and is started again");
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(*PAUSE.end());
        self.began = Instant::now();
    }
}

/// Runs `work` again and again until it ends while `is_over`.
pub(crate) async fn keep_running<F: Future<Output = ()>>(
    task: &'static str,
    registry: &Registry,
    is_over: impl Fn() -> bool,
    mut work: impl FnMut() -> F,
) {
    let mut failures = Failures::of(task, registry);
    loop {
        let reason = match caught(work()).await {
            Ok(()) if is_over() => return,
            Ok(()) => "ended",
            Err(_) => "panicked",
        };
        failures.pause(reason).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const TASK: &str = "listener";

    /// Runs a task that does `step(n)` in its n-th life, until it is over; returns how many lives it had, and the text
    /// of the metrics.
    async fn lives(last: u32, step: impl Fn(u32)) -> (u32, String) {
        let (registry, life) = (Registry::new(), Cell::new(0));
        let work = || {
            let (n, step) = (life.get() + 1, &step);
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
        metrics.contains(&format!("egret_task_failures_total{{task=\"{TASK}\",reason=\"{reason}\"}} {count}\n"))
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
