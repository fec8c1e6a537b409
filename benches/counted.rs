//! One operation so often, for `benches/instructions/run`, which runs this under valgrind and counts what happens inside
//! of [`counted`].
//!
//! `counted NAME TIMES` does it; `counted --list` prints the names.

mod stage;

use std::hint::black_box;

use stage::operations::{ALL, Operation};

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    match (words.next(), words.next().map(|times| times.parse::<u32>())) {
        (Some(name), Some(Ok(times))) => {
            let (_, set_up) = ALL.iter().find(|(known, _)| *known == name).expect("a name of --list");
            let mut operation = set_up();
            // What is done at the first time only (tables, sizes of buffers) belongs to the set-up.
            for _ in 0..2 {
                operation();
            }
            counted(&mut operation, times);
        }
        // `cargo bench` without a word of what to do lists as well.
        _ => ALL.iter().for_each(|(name, _)| println!("{name}")),
    }
}

/// A function of its own in the program, so that valgrind can find it by name.
#[inline(never)]
fn counted(operation: &mut Operation, times: u32) {
    for _ in 0..times {
        black_box(&mut *operation)();
    }
}
