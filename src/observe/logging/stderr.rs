//! Where the log goes: stderr, by a thread of its own.

use std::io::{self, Stderr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Error;
use super::flood;
use crate::observe::writer::{Messages, Sink, Stream, Writer};

/// Bytes that wait for a reader of stderr that is slow: some 2,000 lines of streams, at 500 bytes each.
const CAPACITY: usize = 1 << 20;

/// The writer of this process's stderr, started at the first call.
pub(super) fn writer() -> Result<Writer, Error> {
    static STDERR: Mutex<Option<Writer>> = Mutex::new(None);
    let mut stderr = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(writer) = &*stderr {
        return Ok(writer.clone());
    }
    let sink = Lines { to: Stream::new(io::stderr()), reported: 0 };
    let writer = Writer::start("log", CAPACITY, sink).map_err(|error| Error::Thread(error.to_string()))?;
    Ok(stderr.insert(writer).clone())
}

/// Log lines for stderr; lost lines and suppressed repetitions become a line of their own.
struct Lines {
    to: Stream<Stderr>,
    /// Dropped lines that were reported in the log.
    reported: u64,
}

impl Sink for Lines {
    fn write(&mut self, messages: &Messages) -> u64 {
        self.to.write(messages)
    }

    fn upkeep(&mut self, dropped: u64, is_last: bool) -> Option<Duration> {
        // This line may be lost as well: then it is counted, and the next one reports both. Not while no write
        // succeeds: each failed line would cause the next, for ever.
        if dropped > self.reported && self.to.is_open() {
            let lines = dropped - self.reported;
            self.reported = dropped;
            tracing::warn!(lines, total = dropped, "lines of the log were dropped");
        }
        flood::report(is_last)
    }
}
