//! Events of the kernel about the places that matter, folded into "something happened".

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::watch_set::WatchSet;

#[derive(Debug)]
pub(super) struct Events {
    /// `None`: the kernel reports no events, files are polled.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    places: Arc<Mutex<WatchSet>>,
    /// Whether every folder could be watched the last time; if not, the poll is shorter.
    reliable: bool,
}

impl Events {
    /// Wakes `woken` when something happens. Failure is logged, not returned: the poll remains.
    pub(super) fn new(woken: Arc<Notify>) -> Self {
        let places = Arc::new(Mutex::new(WatchSet::default()));
        let watching = Arc::clone(&places);
        let heard = move |event: notify::Result<Event>| {
            if matters(&event, &watching.lock().unwrap_or_else(PoisonError::into_inner)) {
                woken.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(heard)
            .inspect_err(|error| tracing::warn!(%error, "no events of files from the kernel, files are polled"))
            .ok();
        Self { reliable: watcher.is_some(), watcher, watched: BTreeSet::new(), places }
    }

    #[cfg(test)]
    pub(super) fn deaf() -> Self {
        Self { watcher: None, watched: BTreeSet::new(), places: Arc::default(), reliable: false }
    }

    /// Watches what the paths lead to now. Blocks for some system calls.
    ///
    /// Every watch is renewed each time: a watch belongs to an inode, and whether a path still leads to that inode
    /// cannot be known for sure (inode numbers are reused).
    pub(super) fn arm(&mut self, files: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let places = WatchSet::of(files);
        let folders: BTreeSet<PathBuf> = places.folders().take(MAX_FOLDERS).cloned().collect();
        let mut deaf = places.folders().nth(MAX_FOLDERS).map(|folder| (folder.clone(), "too many folders".to_owned()));
        // Not held while watches are set: the thread of events takes it too, and has to answer.
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = places;
        for folder in &self.watched {
            // Fails if the folder is gone, and its watch with it.
            let _ = watcher.unwatch(folder);
        }
        for folder in &folders {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                deaf.get_or_insert_with(|| (folder.clone(), error.to_string()));
            }
        }
        self.watched = folders;
        if let Some((folder, error)) = &deaf
            && self.reliable
        {
            tracing::warn!(folder = %folder.display(), %error, "cannot watch a folder, its files are polled");
        }
        self.reliable = deaf.is_none();
    }

    pub(super) fn reliable(&self) -> bool {
        self.reliable
    }
}

/// Far above what a configuration needs, far below what a user may watch (8192 on small machines).
const MAX_FOLDERS: usize = 256;

fn matters(event: &notify::Result<Event>, places: &WatchSet) -> bool {
    // An error means that events may have been lost; so does a queue that ran over.
    let Ok(event) = event else { return true };
    let read_only = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        // Our own looks open files too: waking for that would never end.
        EventKind::Access(_) => true,
        _ => false,
    };
    event.need_rescan() || (!read_only && event.paths.iter().any(|path| places.matter(path)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn reading_a_watched_file_wakes_nobody_and_writing_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pem");
        fs::write(&file, "one").unwrap();
        let woken = Arc::new(Notify::new());
        let mut events = Events::new(Arc::clone(&woken));
        events.arm(std::slice::from_ref(&file));
        assert!(events.reliable());

        fs::read(&file).unwrap();
        fs::write(folder.path().join("other.pem"), "of no concern").unwrap();
        events.arm(std::slice::from_ref(&file));
        timeout(Duration::from_millis(300), woken.notified()).await.unwrap_err();
        fs::write(&file, "two").unwrap();
        timeout(Duration::from_secs(20), woken.notified()).await.unwrap();
    }
}
