//! What a client says first: a PostgreSQL start, whole and in pieces.

mod stage;

use divan::Bencher;
use stage::operations;

fn main() {
    divan::main();
}

/// Bytes that arrive at a time; libpq's packets arrive whole.
#[divan::bench(args = [1, 3, 64])]
fn postgres_startup(bencher: Bencher<'_, '_>, piece: usize) {
    bencher.bench_local(operations::classify(piece));
}
