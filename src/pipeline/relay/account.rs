use metrics::Counter;
use tokio::time::Instant;

pub(super) struct Account<'a> {
    active: bool,
    moved: u64,
    first_byte: Option<Instant>,
    counter: &'a Counter,
}

impl<'a> Account<'a> {
    pub(super) fn new(counter: &'a Counter) -> Self {
        Self { active: false, moved: 0, first_byte: None, counter }
    }

    pub(super) fn gave(&mut self) {
        self.active = true;
    }

    /// Notes the time of the first byte.
    pub(super) fn first(&mut self) {
        if self.first_byte.is_none() {
            self.first_byte = Some(Instant::now());
        }
    }

    /// The receiver's socket took bytes; `n` of them are counted now.
    pub(super) fn took(&mut self, n: u64) {
        self.active = true;
        self.moved += n;
        self.counter.increment(n);
    }

    /// Whether bytes have moved since the last call.
    pub(super) fn take_active(&mut self) -> bool {
        std::mem::take(&mut self.active)
    }

    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    pub(super) fn first_byte(&self) -> Option<Instant> {
        self.first_byte
    }
}
