//! The store of sessions: one is taken and one is put back, as each connection does it.

mod stage;

use divan::Bencher;
use stage::operations;
use stage::sessions::ENDPOINT;

fn main() {
    divan::main();
}

/// The store holds so many sessions of the same endpoint.
#[divan::bench(args = [1, 16, 256])]
fn same_endpoint(bencher: Bencher<'_, '_>, held: usize) {
    bencher.bench_local(operations::take_and_put(held, ENDPOINT));
}

/// All sessions are another endpoint's, so all of them are looked at before one is taken.
#[divan::bench(args = [1, 16, 256])]
fn another_endpoint(bencher: Bencher<'_, '_>, held: usize) {
    bencher.bench_local(operations::take_and_put(held, "198.51.100.1:443"));
}
