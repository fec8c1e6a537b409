//! Records of TLS 1.3, AES-256-GCM, in place.

mod stage;

use divan::Bencher;
use divan::counter::BytesCount;
use stage::tls;

fn main() {
    divan::main();
}

const SIZES: [usize; 3] = [64, 1024, 16 * 1024];

#[divan::bench(args = SIZES)]
fn seal(bencher: Bencher<'_, '_>, size: usize) {
    bencher.counter(BytesCount::new(size)).bench_local(tls::seal(size));
}

/// What it takes longer than `seal` is opening.
#[divan::bench(args = SIZES)]
fn seal_and_open(bencher: Bencher<'_, '_>, size: usize) {
    bencher.counter(BytesCount::new(size)).bench_local(tls::seal_and_open(size));
}
