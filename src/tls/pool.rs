//! Buffers that a connection holds only while it has something to move.
//!
//! Each worker keeps a few of every size. They hold old bytes of other connections: a user may read only what it has
//! written.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::record::MAX_PLAINTEXT;
use super::session::CONTROL;
use crate::{memory, net};

/// How much is moved at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// One record of any kind.
    Small,
    /// Four full records.
    Medium,
    /// Sixteen full records, 256 KiB. With it bulk costs 0.79 to 0.88 of what it costs with four
    /// records (CPU, one and sixteen streams, both ways, medians of five rounds): half the reads and
    /// half the writes. Larger ones were not measured.
    Large,
}

/// The most a full record of data takes on the wire: header, explicit nonce, type and tag.
const FULL_RECORD: usize = MAX_PLAINTEXT + 5 + 8 + 1 + 16;
/// What a TLS 1.2 record may expand by beyond that; a small buffer has to hold the longest record.
const SLACK: usize = 2048;

impl Size {
    pub(crate) const fn records(self) -> usize {
        match self {
            Self::Small => 1,
            Self::Medium => 4,
            Self::Large => 16,
        }
    }

    const fn bytes(self) -> usize {
        CONTROL + self.records() * FULL_RECORD + SLACK
    }

    /// The size for the next transfer after one that moved `n` bytes of the `room` it had: full ones
    /// grow, those that two sizes less would have held shrink.
    pub(crate) const fn after(self, n: usize, room: usize) -> Self {
        match self {
            Self::Small if n == room => Self::Medium,
            Self::Medium if n == room => Self::Large,
            Self::Medium if n <= MAX_PLAINTEXT => Self::Small,
            Self::Large if n <= 4 * MAX_PLAINTEXT => Self::Medium,
            size => size,
        }
    }
}

/// Memory from this worker's spares; dropping it gives it back.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    size: Size,
}

impl Buffer {
    /// One of this size, or the smallest if all streams together hold too much memory, or the kernel's buffers are
    /// small: they then go on record by record.
    pub(crate) fn take(size: Size) -> Self {
        let fits = || LENT.load(Ordering::Relaxed) + size.bytes() <= memory::for_buffers();
        let granted = size == Size::Small || (net::suits_write_of(size.bytes()) && fits());
        Self::exactly(if granted { size } else { Size::Small })
    }

    /// One of this size, whatever is held already.
    pub(crate) fn exactly(size: Size) -> Self {
        if size > Size::Small {
            LENT.fetch_add(size.bytes(), Ordering::Relaxed);
        }
        let spare = SPARES.try_with(|spares| spares.borrow_mut()[size as usize].pop()).ok().flatten();
        if spare.is_some() {
            SPARE.fetch_sub(size.bytes(), Ordering::Relaxed);
        }
        let bytes = spare.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice());
        Self { bytes, size }
    }

    pub(crate) const fn size(&self) -> Size {
        self.size
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.size > Size::Small {
            LENT.fetch_sub(self.size.bytes(), Ordering::Relaxed);
        }
        let bytes = std::mem::take(&mut self.bytes);
        // Fails only while the thread ends; the memory is then freed.
        let _ = SPARES.try_with(|spares| {
            let spares = &mut spares.borrow_mut()[self.size as usize];
            if spares.len() < KEPT[self.size as usize] && SPARE.load(Ordering::Relaxed) < memory::for_buffers() / 4 {
                SPARE.fetch_add(self.size.bytes(), Ordering::Relaxed);
                spares.push(bytes);
            }
        });
    }
}

/// Spares that a worker keeps of each size: 0.3 + 0.5 + 1 MiB. A worker holds more than a few at once
/// only while peers are slow to take what was read.
const KEPT: [usize; 3] = [16, 8, 4];

/// Bytes lent above the smallest size, which `memory` bounds. The bound is reached only when many peers at once are slow
/// to take what was read for them; a busy stream whose peers keep up holds its buffer for microseconds. The smallest
/// are bounded by two for each stream. A race may exceed the bound by one buffer a worker.
static LENT: AtomicUsize = AtomicUsize::new(0);

/// Bytes of spares, of all workers. They take a quarter of the buffers' share at most: on a machine with many
/// processors, the workers' spares together would be more than a small container has.
static SPARE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Last in, first out: the memory used last is the likeliest to be in the processor's cache.
    static SPARES: RefCell<[Vec<Box<[u8]>>; 3]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::record::MAX_WIRE;

    fn spares(size: Size) -> usize {
        SPARES.with_borrow(|spares| spares[size as usize].len())
    }

    #[test]
    fn the_smallest_holds_the_longest_record() {
        assert!(Buffer::take(Size::Small).len() >= MAX_WIRE);
    }

    // One test, since it holds the whole budget.
    #[test]
    fn memory_comes_back_and_is_bounded() {
        let taken: Vec<Buffer> = std::iter::repeat_with(|| Buffer::take(Size::Medium)).take(20).collect();
        assert_eq!(spares(Size::Medium), 0);
        drop(taken);
        assert_eq!(spares(Size::Medium), KEPT[Size::Medium as usize]);

        let count = memory::for_buffers() / Size::Large.bytes() + 2;
        let taken: Vec<Buffer> = std::iter::repeat_with(|| Buffer::take(Size::Large)).take(count).collect();
        assert_eq!(taken.last().map(Buffer::size), Some(Size::Small));
        assert_eq!(Buffer::exactly(Size::Large).size(), Size::Large);
        drop(taken);
        assert_eq!(Buffer::take(Size::Large).size(), Size::Large);
    }

    #[test]
    fn size_grows_with_full_transfers_and_shrinks_with_short_ones() {
        assert_eq!(Size::Small.after(10, 20), Size::Small);
        assert_eq!(Size::Small.after(20, 20), Size::Medium);
        assert_eq!(Size::Medium.after(80_000, 80_000), Size::Large);
        assert_eq!(Size::Medium.after(MAX_PLAINTEXT, 80_000), Size::Small);
    }
}
