//! What is kept so that a connection need not wait: finished originations, and chains that were believed.

mod stage;

use divan::Bencher;
use stage::{operations, tls};

fn main() {
    divan::main();
}

/// One is taken and another put in its place; the shelf holds so many.
#[divan::bench(args = [1, 16, 256])]
fn shelf(bencher: Bencher<'_, '_>, held: usize) {
    bencher.bench_local(operations::shelf_take_and_put(held));
}

/// A server's chain that is known.
#[divan::bench]
fn chain_hit(bencher: Bencher<'_, '_>) {
    bencher.bench_local(tls::chain_hit());
}

/// A server's chain that has to be built.
#[divan::bench]
fn chain_miss(bencher: Bencher<'_, '_>) {
    bencher.bench_local(tls::chain_miss());
}
