//! Children that end: the program, and orphans that egret adopted.

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{self, SignalKind};

use super::Error;

/// Reaps every child of this process. egret starts no other process, so no one else waits for one.
pub(crate) struct Children {
    changed: unix::Signal,
}

impl Children {
    /// To be created before the first child.
    pub(crate) fn new() -> Result<Self, Error> {
        let changed = unix::signal(SignalKind::child());
        let changed = changed.map_err(|cause| Error::Signals { number: libc::SIGCHLD, cause })?;
        Ok(Self { changed })
    }

    /// The next child that has ended or was stopped. One that has ended is reaped. Cancel safe.
    pub(crate) async fn next(&mut self) -> (Pid, WaitStatus) {
        loop {
            // An error means that there is no child.
            if let Ok(Some(child)) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                return child;
            }
            // Signals that arrive before they are taken are one: all children are asked for after each.
            self.changed.recv().await;
        }
    }

    /// Reaps what is left after the program has ended.
    pub(crate) async fn reap(mut self) {
        loop {
            self.next().await;
        }
    }
}
