use metrics::Counter;
use tokio::time::Instant;

pub(super) struct Account<'a> {
    active: bool,
    moved: u64,
    first_byte: Option<Instant>,
    counter: &'a Counter,
}

impl<'a> Account<'a> {
    /// `counter` is told the same.
    pub(super) fn new(counter: &'a Counter) -> Self {
        Self { active: false, moved: 0, first_byte: None, counter }
    }

    /// The sender's socket gave some bytes.
    pub(super) fn gave(&mut self) {
        self.active = true;
    }

    /// There is something for the receiver; the first time it is noted when.
    pub(super) fn first(&mut self) {
        if self.first_byte.is_none() {
            self.first_byte = Some(Instant::now());
        }
    }

    /// The receiver's socket took bytes, `n` of which are now to be counted.
    pub(super) fn took(&mut self, n: u64) {
        self.active = true;
        self.moved += n;
        self.counter.increment(n);
    }

    /// Whether bytes have moved since the last call.
    pub(super) fn take_active(&mut self) -> bool {
        std::mem::take(&mut self.active)
    }

    /// Bytes counted so far.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    pub(super) fn first_byte(&self) -> Option<Instant> {
        self.first_byte
    }
}
