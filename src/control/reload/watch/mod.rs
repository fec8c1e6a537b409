//! Reports when the content of a watched file has changed, however it was replaced.
//!
//! Events of the kernel say only *read now*; a digest of what the files hold says whether anything
//! changed. So a missed event costs time (the poll finds the change), a needless one costs a read, and
//! identical bytes are no change. What is watched are folders: a watch on a file dies with the first
//! swap of a symlink in front of it, which is how Kubernetes replaces mounted secrets.

mod content;
mod events;
mod watch_set;

use std::collections::BTreeMap;
use std::future;
use std::io;
use std::path::{self, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{self, JoinError};
use tokio::time::{Instant, sleep, timeout};

use content::Content;
use events::Events;

use crate::control::disk::{PATIENCE, Running};
use crate::net::capability;

/// Watches files, and folders of files.
#[derive(Debug)]
pub struct Watcher {
    files: Arc<[PathBuf]>,
    /// What the files held when their change was last reported.
    acknowledged: BTreeMap<PathBuf, Content>,
    events: Arc<Mutex<Events>>,
    reading: Arc<Running<PathBuf>>,
    /// Holds one permit, so any number of events causes one read.
    woken: Arc<Notify>,
    poll: Polling,
}

impl Watcher {
    /// Reads what the files hold now; for a folder, the files directly in it. Reads on the calling thread.
    ///
    /// To lose no change, make it before the files are read for use. Where the kernel reports no events, this is
    /// logged, and the files are read every 5 s instead.
    pub fn new(files: Vec<PathBuf>) -> Result<Self, Error> {
        let files = absolute(files)?;
        let woken = Arc::new(Notify::new());
        let mut events = Events::new(Arc::clone(&woken));
        events.arm(&files);
        let reading = Running::new(PATIENCE);
        let raised = capability::raise();
        let acknowledged = content::read(&reading, &files);
        drop(raised);
        let events = Arc::new(Mutex::new(events));
        Ok(Self { files, acknowledged, events, reading, woken, poll: POLLING })
    }

    /// Watches these from now on. What was watched before and still is keeps its last reported content;
    /// what is new counts as it is now.
    ///
    /// To be called when the configuration is parsed and before the files it names are read, also if
    /// it is going to be rejected: the file that repairs it is then among the watched.
    /// Cancel safe: a dropped call has no effect.
    pub async fn set_files(&mut self, files: Vec<PathBuf>) -> Result<(), Error> {
        let files = absolute(files)?;
        let mut acknowledged = self.look(&files).await;
        for (file, content) in &mut acknowledged {
            if let Some(before) = self.acknowledged.get(file) {
                *content = before.clone();
            }
        }
        self.files = files;
        self.acknowledged = acknowledged;
        Ok(())
    }

    /// Completes when files hold something else than when it last completed, and have stopped changing; returns these
    /// files. Deleted files count once they stay deleted. A change of the permissions counts: it may be the repair of a
    /// refused key.
    ///
    /// Cancel safe: the next call finds what was not returned.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            if let Some(changed) = self.settled().await {
                return changed;
            }
            let poll = match self.events.lock().unwrap_or_else(PoisonError::into_inner).reliable() {
                true => self.poll.beside_events,
                false => self.poll.alone,
            };
            // Running out is no failure: it is the poll.
            let _ = timeout(poll, self.woken.notified()).await;
        }
    }

    /// Reads until two reads in a row agree; returns what has changed by then, if anything.
    async fn settled(&mut self) -> Option<Vec<PathBuf>> {
        let mut seen = self.look(&self.files).await;
        if seen == self.acknowledged {
            return None;
        }
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            sleep(QUIET).await;
            let now = self.look(&self.files).await;
            if now == self.acknowledged {
                return None;
            }
            let at_rest = now == seen && !self.in_between(&now);
            if at_rest || Instant::now() >= deadline {
                return Some(self.acknowledge(now));
            }
            seen = now;
        }
    }

    /// Whether a file that held something is missing or empty: most often the moment between the
    /// deletion (or truncation) of a file and its new content.
    fn in_between(&self, now: &BTreeMap<PathBuf, Content>) -> bool {
        now.iter()
            .any(|(file, content)| content.is_void() && self.acknowledged.get(file).is_some_and(|was| !was.is_void()))
    }

    /// Renews the watches and reads what the files hold, off the threads that move bytes.
    ///
    /// In this order: a change after the watches are set is an event, an earlier one is read.
    async fn look(&self, files: &Arc<[PathBuf]>) -> BTreeMap<PathBuf, Content> {
        let events = Arc::clone(&self.events);
        let reading = Arc::clone(&self.reading);
        let files = Arc::clone(files);
        let looking = task::spawn_blocking(move || {
            events.lock().unwrap_or_else(PoisonError::into_inner).arm(&files);
            let _raised = capability::raise();
            content::read(&reading, &files)
        });
        match looking.await.map_err(JoinError::try_into_panic) {
            Ok(contents) => contents,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is ending, and this task with it.
            Err(Err(_)) => future::pending().await,
        }
    }

    fn acknowledge(&mut self, now: BTreeMap<PathBuf, Content>) -> Vec<PathBuf> {
        let differs = |(file, content): &(&PathBuf, &Content)| self.acknowledged.get(*file) != Some(*content);
        let changed = now.iter().filter(differs).map(|(file, _)| file.clone()).collect();
        self.acknowledged = now;
        changed
    }
}

/// Between two reads that have to agree. Tools that write a certificate and its key do so within a few milliseconds; a
/// tenth of a second is long compared with that and short compared with the minutes between refreshes of mounted
/// secrets.
const QUIET: Duration = Duration::from_millis(100);

/// Files that keep changing are reported after this time, so that a file which is written all the time cannot hide the
/// change of another one. Twenty times `QUIET`.
const SETTLE_MAX: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
struct Polling {
    beside_events: Duration,
    alone: Duration,
}

/// Beside events the poll finds what they miss (a change on a network file system by another machine, a folder replaced
/// far up the path): half a minute is below the refresh of mounted secrets (about one minute). Without events the poll
/// is everything, and reading some dozen small files takes well below a millisecond of CPU.
const POLLING: Polling = Polling { beside_events: Duration::from_secs(30), alone: Duration::from_secs(5) };

/// The files to watch cannot be determined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A relative path, and no folder to which it is relative.
    #[error("cannot make {} an absolute path", path.display())]
    NotAbsolute {
        /// The path as given.
        path: PathBuf,
        /// The error of resolving it.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotAbsolute { .. } => "watch_path_invalid",
        }
    }
}

fn absolute(files: Vec<PathBuf>) -> Result<Arc<[PathBuf]>, Error> {
    files.into_iter().map(|path| path::absolute(&path).map_err(|source| Error::NotAbsolute { path, source })).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn without_events_a_change_is_found_by_the_poll() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pem");
        fs::write(&file, "one").unwrap();
        let mut watcher = Watcher::new(vec![file.clone()]).unwrap();
        watcher.events = Arc::new(Mutex::new(Events::deaf()));
        watcher.poll.alone = Duration::from_millis(20);

        fs::write(&file, "two").unwrap();
        let changed = timeout(Duration::from_secs(20), watcher.changed()).await.unwrap();
        assert_eq!(changed, [file]);
    }

    #[tokio::test]
    async fn a_dropped_wait_loses_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pem");
        fs::write(&file, "one").unwrap();
        let mut watcher = Watcher::new(vec![file.clone()]).unwrap();

        fs::write(&file, "two").unwrap();
        // Dropped in the midst of settling, after the event has been taken.
        timeout(QUIET / 2, watcher.changed()).await.unwrap_err();
        let changed = timeout(Duration::from_secs(20), watcher.changed()).await.unwrap();
        assert_eq!(changed, [file]);
    }
}
