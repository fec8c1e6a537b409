//! The exchanges under way: their bound, which one a new one replaces, and how they end with the process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// Connections at once. A scraper, a probe and some people need a handful; each may hold some 100 KiB.
const MAX_EXCHANGES: usize = 32;
/// Time for clients to take an answer that is under way when the process ends: two retransmissions of TCP.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

#[derive(Clone, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

const READING: u8 = 0;
const WORKING: u8 = 1;
const ANSWERING: u8 = 2;

impl Progress {
    pub(super) fn working(&self) {
        self.0.store(WORKING, Ordering::Relaxed);
    }

    pub(super) fn answering(&self) {
        self.0.store(ANSWERING, Ordering::Relaxed);
    }

    fn is(&self, step: u8) -> bool {
        self.0.load(Ordering::Relaxed) == step
    }
}

/// A bounded number of exchanges, oldest first.
#[derive(Default)]
pub(super) struct Exchanges {
    tasks: JoinSet<()>,
    open: VecDeque<(AbortHandle, Progress)>,
}

impl Exchanges {
    /// Starts one more. At the bound, the oldest exchange that waits for its client is closed: a client that is slow to
    /// send or to read never blocks another one's answer.
    pub(super) fn start<F>(&mut self, exchange: impl FnOnce(Progress) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= MAX_EXCHANGES {
            // Fewer may be at work at once than may be open (`routes::MAX_RELOADS`), so one is found.
            let oldest = self.open.iter().position(|(_, progress)| !progress.is(WORKING)).unwrap_or(0);
            self.open.remove(oldest).inspect(|(task, _)| task.abort());
        }
        let progress = Progress::default();
        let task = self.tasks.spawn(exchange(progress.clone()));
        self.open.push_back((task, progress));
    }

    /// Completes when an exchange has ended; with `false` at once if there is none. Cancel safe.
    pub(super) async fn ended(&mut self) -> bool {
        self.tasks.join_next().await.is_some()
    }

    /// Closes exchanges without a complete request, and waits for the answers of the others, for a bounded time.
    pub(super) async fn finish(mut self) {
        for (task, progress) in &self.open {
            if progress.is(READING) {
                task.abort();
            }
        }
        // Exchanges that remain after that are dropped with the set.
        let _ = timeout(ANSWER_GRACE, async { while self.ended().await {} }).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn stuck(exchanges: &mut Exchanges, step: fn(&Progress)) -> oneshot::Receiver<()> {
        let (open, closed) = oneshot::channel::<()>();
        exchanges.start(|progress| {
            step(&progress);
            async move {
                let _open = open;
                std::future::pending::<()>().await;
            }
        });
        closed
    }

    fn is_open(exchange: &mut oneshot::Receiver<()>) -> bool {
        exchange.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    #[tokio::test]
    async fn the_oldest_that_waits_for_its_client_gives_way() {
        for step in [|_: &Progress| (), Progress::answering] {
            let mut exchanges = Exchanges::default();
            let mut working = stuck(&mut exchanges, Progress::working);
            let mut rest: Vec<_> = (1..=MAX_EXCHANGES).map(|_| stuck(&mut exchanges, step)).collect();
            assert!(exchanges.ended().await, "one was closed");
            assert!(is_open(&mut working), "an exchange at work gave way");
            assert!(!is_open(&mut rest[0]) && rest[1..].iter_mut().all(is_open), "not the oldest gave way");
        }
    }

    #[tokio::test]
    async fn those_that_have_ended_need_no_room() {
        let mut exchanges = Exchanges::default();
        let mut first = stuck(&mut exchanges, |_| ());
        for _ in 0..2 * MAX_EXCHANGES {
            exchanges.start(|_| async {});
            assert!(exchanges.ended().await);
        }
        assert!(is_open(&mut first));
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_waits_for_answers_and_not_for_requests_nor_for_ever() {
        for (step, waited) in [(None, 0), (Some(Progress::answering as fn(&_)), 2), (Some(Progress::working), 2)] {
            let mut exchanges = Exchanges::default();
            let _stuck = stuck(&mut exchanges, step.unwrap_or(|_| ()));
            let before = tokio::time::Instant::now();
            exchanges.finish().await;
            assert_eq!(before.elapsed().as_secs(), waited, "{step:?}");
        }
    }
}
