//! What a client says first: a PostgreSQL start and a ClientHello, whole and in pieces.

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

/// Bytes that arrive at a time; hellos with a post-quantum key are two segments on most networks.
#[divan::bench(args = [1, 1400, 64_000])]
fn client_hello(bencher: Bencher<'_, '_>, piece: usize) {
    bencher.bench_local(operations::classify_hello(piece));
}
