use std::cell::RefCell;

/// A window of bytes in memory that is held only while bytes wait in it: `prepare` takes the memory from
/// this worker's spares, the last `consume` gives it back. Spares keep old bytes of other streams;
/// only what `advance` has covered can be read.
#[derive(Default)]
pub(super) struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

/// How much is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Large,
}

impl Buffer {
    /// Makes an empty buffer ready to take `size` bytes.
    pub(super) fn prepare(&mut self, size: Size) {
        debug_assert!(self.is_empty());
        if self.memory.len() != size.bytes() {
            self.release();
            self.memory = SPARES.try_with(|spares| spares.borrow_mut().take(size)).unwrap_or_else(|_| allocate(size));
        }
        (self.start, self.end) = (0, 0);
    }

    /// Gives the memory back if no byte waits.
    pub(super) fn release_if_empty(&mut self) {
        if self.is_empty() {
            self.release();
        }
    }

    pub(super) fn unfilled(&mut self) -> &mut [u8] {
        &mut self.memory[self.end..]
    }

    /// The first `n` bytes of `unfilled` have been written.
    pub(super) fn advance(&mut self, n: usize) {
        self.end += n;
        assert!(self.end <= self.memory.len(), "more was read than fits");
    }

    /// The first `n` waiting bytes are done with.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        assert!(self.start <= self.end, "more was taken than waits");
        self.release_if_empty();
    }

    pub(super) fn waiting(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn is_full(&self) -> bool {
        self.end == self.memory.len()
    }

    fn release(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        (self.start, self.end) = (0, 0);
        if !memory.is_empty() {
            // Fails only while the thread ends; the memory is then freed.
            let _ = SPARES.try_with(|spares| spares.borrow_mut().put(memory));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

impl Size {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Small => SMALL,
            Self::Large => LARGE,
        }
    }

    /// The size for the next read after one that brought `n` bytes: full reads grow, reads that would
    /// have fitted the small size shrink.
    pub(super) const fn after(self, n: usize) -> Self {
        match self {
            Self::Small if n == SMALL => Self::Large,
            Self::Large if n <= SMALL => Self::Small,
            size => size,
        }
    }
}

/// One TLS record holds at most so much (RFC 8446 section 5.1).
const SMALL: usize = 16 * 1024;
/// Four records, which rustls writes in one system call. Processor seconds per GiB of the relay's thread on
/// loopback (TLS 1.3, median of five interleaved rounds on a busy machine), with 16 / 32 / 64 / 256 KiB: up
/// 0.73, 0.58, 0.52, 0.52; down 1.13, 0.72, 0.71, 1.00 (that much no longer fits the cache). A 64-byte
/// round trip costs 18.6 us with any of them.
pub(super) const LARGE: usize = 64 * 1024;

/// Spares of each size that a worker keeps: enough for the streams that stall and resume at once on one
/// worker, and at most 1.25 MiB of memory a worker.
const SPARE: usize = 16;

thread_local! {
    static SPARES: RefCell<Spares> = const { RefCell::new(Spares { small: Vec::new(), large: Vec::new() }) };
}

/// Last in, first out: the memory used last is the likeliest to be in the processor's cache.
struct Spares {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
}

impl Spares {
    fn take(&mut self, size: Size) -> Box<[u8]> {
        self.of(size.bytes()).pop().unwrap_or_else(|| allocate(size))
    }

    fn put(&mut self, memory: Box<[u8]>) {
        let spares = self.of(memory.len());
        if spares.len() < SPARE {
            spares.push(memory);
        }
    }

    fn of(&mut self, bytes: usize) -> &mut Vec<Box<[u8]>> {
        if bytes == SMALL { &mut self.small } else { &mut self.large }
    }
}

fn allocate(size: Size) -> Box<[u8]> {
    vec![0; size.bytes()].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spares() -> (usize, usize) {
        SPARES.with_borrow(|spares| (spares.small.len(), spares.large.len()))
    }

    #[test]
    fn memory_is_held_only_while_bytes_wait() {
        let mut buffer = Buffer::default();
        buffer.prepare(Size::Small);
        buffer.unfilled()[..3].copy_from_slice(b"abc");
        buffer.advance(3);
        buffer.consume(2);
        assert_eq!((buffer.waiting(), spares()), (&b"c"[..], (0, 0)));
        buffer.consume(1);
        assert_eq!((buffer.memory.len(), spares()), (0, (1, 0)));
    }

    #[test]
    fn spares_are_bounded() {
        let mut buffers: Vec<Buffer> = std::iter::repeat_with(Buffer::default).take(SPARE + 5).collect();
        buffers.iter_mut().for_each(|buffer| buffer.prepare(Size::Large));
        drop(buffers);
        assert_eq!(spares(), (0, SPARE));
    }

    #[test]
    fn size_grows_with_full_reads_and_shrinks_with_short_ones() {
        assert_eq!(Size::Small.after(SMALL - 1), Size::Small);
        assert_eq!(Size::Small.after(SMALL), Size::Large);
        assert_eq!(Size::Large.after(SMALL + 1), Size::Large);
        assert_eq!(Size::Large.after(SMALL), Size::Small);
    }
}
