//! Reads from disks that may hang: an unreachable network file system, a file that another process has leased. A read
//! there may never return, so no other thread waits for it without a bound.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A file is read in milliseconds, and the costliest key derivation takes 6.0 s (`credentials::contents`). A fifth of
/// the bound of a reload: the rest goes live even if many disks hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Threads that may hang at once; further jobs are not tried.
const MAX_HANGING: usize = 64;

/// Jobs that run, those that hang included: none of them is started a second time, so that reloads do not add a thread
/// each while a disk hangs.
pub(crate) struct Running<J> {
    jobs: Mutex<Vec<J>>,
    patience: Duration,
}

struct Batch<J, W> {
    jobs: Vec<J>,
    next: AtomicUsize,
    running: Arc<Running<J>>,
    work: W,
}

impl<J: Clone + PartialEq + Send + Sync + 'static> Running<J> {
    pub(crate) fn new(patience: Duration) -> Arc<Self> {
        Arc::new(Self { jobs: Mutex::default(), patience })
    }

    /// Does the jobs one after the other on a separate thread, and on another one while that one hangs. A job has no
    /// result if it took longer than `patience`, or still hangs from an earlier call. Blocks.
    pub(crate) fn each<T: Send + 'static>(
        self: &Arc<Self>,
        jobs: Vec<J>,
        work: impl Fn(&J) -> T + Send + Sync + 'static,
    ) -> Vec<Option<T>> {
        let mut results: Vec<Option<T>> = jobs.iter().map(|_| None).collect();
        let batch = Arc::new(Batch { jobs, next: AtomicUsize::new(0), running: Arc::clone(self), work });
        let (done, finished) = mpsc::channel();
        let mut missing = results.len();
        let mut threads = if missing == 0 { 0 } else { batch.start(1, &done) };
        let mut last = Instant::now();
        while missing > 0 {
            match finished.recv_timeout(self.patience / 10) {
                Ok((index, result)) => {
                    results[index] = result;
                    missing -= 1;
                }
                // Every thread had one job for a tenth of `patience`, and may hang: twice as many do the rest.
                Err(_) if !batch.is_begun() && threads < MAX_HANGING => threads += batch.start(threads, &done),
                Err(_) if last.elapsed() < self.patience => continue,
                Err(_) => break,
            }
            last = Instant::now();
        }
        // A thread that comes back later finds nothing to do.
        batch.next.store(batch.jobs.len(), Ordering::Relaxed);
        results
    }

    fn lock(&self) -> MutexGuard<'_, Vec<J>> {
        // A job is pushed or removed as a whole, so the list of a poisoned lock is good.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, job: &J) -> Option<Begun<'_, J>> {
        let mut running = self.lock();
        if running.contains(job) {
            return None;
        }
        running.push(job.clone());
        Some(Begun { running: self, job: job.clone() })
    }
}

/// A running job; removed from the list even if it panics.
struct Begun<'a, J: Clone + PartialEq + Send + Sync + 'static> {
    running: &'a Running<J>,
    job: J,
}

impl<J: Clone + PartialEq + Send + Sync + 'static> Drop for Begun<'_, J> {
    fn drop(&mut self) {
        self.running.lock().retain(|job| *job != self.job);
    }
}

impl<J, W> Batch<J, W>
where
    J: Clone + PartialEq + Send + Sync + 'static,
    W: Send + Sync + 'static,
{
    fn is_begun(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.jobs.len()
    }

    fn start<T: Send + 'static>(self: &Arc<Self>, threads: usize, done: &Sender<(usize, Option<T>)>) -> usize
    where
        W: Fn(&J) -> T,
    {
        for _ in 0..threads {
            let batch = Arc::clone(self);
            let done = done.clone();
            thread::spawn(move || batch.work_off(&done));
        }
        threads
    }

    fn work_off<T>(&self, done: &Sender<(usize, Option<T>)>)
    where
        W: Fn(&J) -> T,
    {
        while let index = self.next.fetch_add(1, Ordering::Relaxed)
            && let Some(job) = self.jobs.get(index)
        {
            let begun = self.running.begin(job);
            let result = begun.as_ref().map(|_| (self.work)(job));
            drop(begun);
            if done.send((index, result)).is_err() {
                return;
            }
        }
    }
}

impl<J: fmt::Debug> fmt::Debug for Running<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_jobs() {
        let running = Running::new(Duration::from_millis(200));
        let results = running.each((0..100).collect(), |job: &i32| job * 2);
        assert_eq!(results, (0..100).map(|job| Some(job * 2)).collect::<Vec<_>>());
        assert_eq!(running.each(Vec::new(), |job: &i32| *job), []);
        assert!(running.lock().is_empty());
    }

    #[test]
    fn a_job_that_hangs_is_missing_and_not_begun_again() {
        let running = Running::new(Duration::from_millis(200));
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let hanging = move |job: &u8| {
            if *job == 1 {
                // Until the test ends.
                let _ = held.lock().expect("one thread only").recv();
            }
            *job
        };
        assert_eq!(running.each(vec![0, 1, 2], hanging), [Some(0), None, Some(2)]);
        assert_eq!(*running.lock(), [1]);
        assert_eq!(running.each(vec![1, 3], |job| *job), [None, Some(3)]);
        drop(release);
    }

    #[test]
    fn a_job_that_panics_is_missing_alone() {
        let running = Running::new(Duration::from_millis(200));
        let results = running.each(vec![0, 1, 2], |job: &u8| {
            assert_ne!(*job, 1, "as the test wants it");
            *job
        });
        assert_eq!(results, [Some(0), None, Some(2)]);
        assert!(running.lock().is_empty());
    }
}
