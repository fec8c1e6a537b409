//! Output besides traffic: a bounded queue and a thread that empties it.
//!
//! Callers hand a message over and go on: the queue's lock is never held during I/O. A reader that stops, a full disk
//! or a supervisor that does not read blocks the thread alone. Messages beyond the bound are dropped and counted.

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use metrics::Counter;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// The destination of a [`Writer`]. Called by the writer's thread alone; may block.
pub(crate) trait Sink: Send + 'static {
    /// Writes the messages, and returns how many were lost.
    fn write(&mut self, messages: &Messages) -> u64;

    /// Called after messages were written, after the wait that it returned, and once at the end of the process. `None`:
    /// no wait.
    fn upkeep(&mut self, _dropped: u64, _is_last: bool) -> Option<Duration> {
        None
    }
}

/// Hands messages to a thread. Dropping every copy ends the thread once the queue is empty.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Owner>);

/// Its drop ends the thread: no handle is left.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.queue().is_closed = true;
        self.0.changed.notify_all();
    }
}

struct Shared {
    /// Bytes that may wait, besides those that are being written: at most twice this is held.
    capacity: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
    counter: OnceLock<Counter>,
}

#[derive(Default)]
struct Queue {
    waiting: Messages,
    /// Messages that found no room or were lost in writing.
    dropped: u64,
    /// The thread waits for [`Shared::changed`]: only then it has to be woken.
    is_idle: bool,
    /// The process ends: the thread writes what is left without waiting for more.
    is_ending: bool,
    is_finished: bool,
    is_closed: bool,
}

#[derive(Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Messages {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().scan(0, |start, end| Some(&self.bytes[mem::replace(start, *end)..*end]))
    }

    /// How many messages are not entirely within the first `written` bytes.
    fn beyond(&self, written: usize) -> u64 {
        let within = self.ends.partition_point(|end| *end <= written);
        (self.ends.len() - within) as u64
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn push(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.ends.push(self.bytes.len());
    }

    /// Empties the queue and keeps the memory of a usual burst.
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.bytes.shrink_to(KEPT);
        self.ends.shrink_to(KEPT / 256);
    }
}

/// Memory that a queue keeps after a burst: some 250 lines of the log.
const KEPT: usize = 64 << 10;

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_dropped(&self, queue: &mut Queue, count: u64) {
        queue.dropped += count;
        if let Some(counter) = self.counter.get() {
            counter.increment(count);
        }
    }
}

impl Writer {
    /// Starts the thread `name`. At most `capacity` bytes wait.
    pub(crate) fn start(name: &str, capacity: usize, sink: impl Sink) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { capacity, queue: Mutex::default(), changed: Condvar::new(), counter: OnceLock::new() });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name(name.into()).stack_size(STACK).spawn(move || run(&of_thread, sink))?;
        let mut all = all();
        all.retain(|writer| writer.strong_count() > 0);
        all.push(Arc::downgrade(&shared));
        Ok(Self(Arc::new(Owner(shared))))
    }

    /// Queues one message: it is written whole, or dropped and counted. Never waits for I/O.
    ///
    /// Costs 0.1 to 0.2 µs, and at most once per [`GATHER`] the wake-up of the thread; the write(2) to a pipe that it
    /// replaces cost 0.9 µs, and the wake-up of the pipe's reader (400 bytes, two processors, all measured in one run).
    pub(crate) fn push(&self, message: &[u8]) {
        let shared = &self.0.0;
        let mut queue = shared.queue();
        if queue.waiting.bytes.len() + message.len() > shared.capacity {
            return shared.count_dropped(&mut queue, 1);
        }
        queue.waiting.push(message);
        let is_idle = mem::replace(&mut queue.is_idle, false);
        drop(queue);
        if is_idle {
            shared.changed.notify_all();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.0.queue().waiting.is_empty()
    }

    /// Counts dropped messages with `counter` from now on, earlier ones included.
    pub(crate) fn count_with(&self, counter: Counter) {
        let queue = self.0.0.queue();
        counter.absolute(queue.dropped);
        // A process has one registry; further ones, in tests, count nothing here.
        let _ = self.0.0.counter.set(counter);
    }
}

/// Bytes of stack: the thread only formats a line and writes.
const STACK: usize = 256 << 10;

fn run(shared: &Shared, mut sink: impl Sink) {
    let mut messages = Messages::default();
    let mut due: Option<Instant> = None;
    loop {
        let is_last = wait(shared, &mut messages, due);
        let lost = if messages.is_empty() { 0 } else { sink.write(&messages) };
        messages.clear();
        let dropped = {
            let mut queue = shared.queue();
            shared.count_dropped(&mut queue, lost);
            queue.dropped
        };
        due = sink.upkeep(dropped, is_last).map(|pause| Instant::now() + pause);
        if is_last && finish(shared, &mut sink) {
            return;
        }
    }
}

/// Messages that come within this time after the first are written with it: at a thousand lines a second and more,
/// callers hardly ever pay for the wake-up.
const GATHER: Duration = Duration::from_millis(1);

/// Waits for messages, for the next upkeep, or for the end; true at the end.
fn wait(shared: &Shared, messages: &mut Messages, due: Option<Instant>) -> bool {
    let mut queue = shared.queue();
    while queue.waiting.is_empty() && !queue.is_ending && !queue.is_closed {
        queue.is_idle = true;
        queue = match due.map(|due| due.saturating_duration_since(Instant::now())) {
            None => shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(Duration::ZERO) => break,
            Some(left) => shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
        };
    }
    queue.is_idle = false;
    if !queue.is_ending && !queue.is_closed && !queue.waiting.is_empty() {
        drop(queue);
        thread::sleep(GATHER);
        queue = shared.queue();
    }
    mem::swap(&mut queue.waiting, messages);
    queue.is_ending || queue.is_closed
}

/// Writes what the last upkeep has added. True if the thread has to end.
fn finish(shared: &Shared, sink: &mut impl Sink) -> bool {
    let last = mem::take(&mut shared.queue().waiting);
    if !last.is_empty() {
        sink.write(&last);
    }
    let mut queue = shared.queue();
    let is_closed = queue.is_closed;
    queue.is_ending = false;
    queue.is_finished = true;
    drop(queue);
    shared.changed.notify_all();
    is_closed
}

fn all() -> MutexGuard<'static, Vec<Weak<Shared>>> {
    static ALL: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until every writer has written its queue, but no longer than `limit`: a reader that has stopped must not keep
/// the process from ending.
pub fn finish_all(limit: Duration) {
    let deadline = Instant::now() + limit;
    let writers: Vec<_> = all().iter().filter_map(Weak::upgrade).collect();
    for shared in &writers {
        let mut queue = shared.queue();
        queue.is_ending = true;
        queue.is_finished = false;
        queue.is_idle = false;
        drop(queue);
        shared.changed.notify_all();
    }
    for shared in &writers {
        let left = deadline.saturating_duration_since(Instant::now());
        let unfinished = |queue: &mut Queue| !queue.is_finished;
        let _ = shared.changed.wait_timeout_while(shared.queue(), left, unfinished);
    }
}

/// A descriptor that takes a stream of bytes: a file, a pipe, a terminal.
pub(crate) struct Stream<F> {
    to: F,
    is_torn: bool,
    is_open: bool,
}

impl<F: AsFd> Stream<F> {
    pub(crate) fn new(to: F) -> Self {
        Self { to, is_torn: false, is_open: true }
    }

    /// Whether the last write succeeded.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Writes the messages, and returns how many were lost: those not written whole because a disk is full or the
    /// reader is gone.
    pub(crate) fn write(&mut self, messages: &Messages) -> u64 {
        // Half a line must not run into the next one.
        self.is_open = !self.is_torn || self.write_all(b"\n") == 1;
        if !self.is_open {
            return messages.beyond(0);
        }
        let written = self.write_all(messages.bytes());
        self.is_open = written == messages.bytes().len();
        self.is_torn = written > 0 && messages.ends.binary_search(&written).is_err();
        messages.beyond(written)
    }

    /// The bytes written before an error.
    fn write_all(&self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::write(&self.to, &bytes[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(Errno::INTR) => {}
                // Another process that shares the terminal or pipe has made it non-blocking.
                Err(Errno::AGAIN) if self.wait() => {}
                Err(_) => break,
            }
        }
        written
    }

    fn wait(&self) -> bool {
        let mut ready = [PollFd::new(&self.to, PollFlags::OUT)];
        matches!(poll(&mut ready, None), Ok(_) | Err(Errno::INTR))
    }
}

impl<F: AsFd + Send + 'static> Sink for Stream<F> {
    fn write(&mut self, messages: &Messages) -> u64 {
        Self::write(self, messages)
    }
}

#[cfg(test)]
mod tests;
