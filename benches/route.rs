//! From an accepted connection to its route, and from a configuration to the generation that holds the routes.

mod stage;

use divan::Bencher;
use stage::operations;

fn main() {
    divan::main();
}

/// What a listener asks of the running generation, once for each connection.
#[divan::bench(args = [1, 100, 1000])]
fn entry(bencher: Bencher<'_, '_>, listeners: usize) {
    bencher.bench_local(operations::entry(listeners));
}

/// The route of a class.
#[divan::bench]
fn find(bencher: Bencher<'_, '_>) {
    bencher.bench_local(operations::find());
}

/// The route of a ClientHello, among so many.
#[divan::bench(args = [1, 100, 10_000])]
fn find_by_name(bencher: Bencher<'_, '_>, rules: usize) {
    bencher.bench_local(operations::find_by_name(rules));
}

/// Text to values.
#[divan::bench(args = [1, 100, 1000])]
fn parse(bencher: Bencher<'_, '_>, listeners: usize) {
    bencher.bench_local(operations::parse(listeners));
}

/// Values to a first generation: reads the files, makes an origin for each upstream.
#[divan::bench(args = [1, 100, 1000])]
fn build(bencher: Bencher<'_, '_>, listeners: usize) {
    bencher.bench_local(operations::build(listeners));
}

/// A reload in which nothing has changed: reads the files, carries every origin over.
#[divan::bench(args = [1, 100, 1000])]
fn rebuild(bencher: Bencher<'_, '_>, listeners: usize) {
    bencher.bench_local(operations::rebuild(listeners));
}
