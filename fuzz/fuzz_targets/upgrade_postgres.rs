//! Any server: no panic, one byte read before a yes, bounded text without control characters.
#![no_main]

use egret::pipeline::originate::upgrade::postgres::Postgres;
use egret::pipeline::originate::upgrade::{Refusal, Step, Steps};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (mut machine, mut left, mut read) = (Postgres::default(), data, 0);
    let mut step = machine.step(&[]);
    for _ in 0..8 {
        let count = match step {
            Step::Write(_) => 0,
            Step::Need(count) if count > left.len() => return,
            Step::Need(count) => count,
            Step::Rest(most) => most.min(left.len()),
            Step::Done => {
                assert_eq!((read, data[0]), (1, b'S'));
                return;
            }
            Step::Fail(Refusal::Error(text)) => {
                assert!(text.len() <= 4096 && !text.chars().any(char::is_control));
                return;
            }
            Step::Fail(_) => {
                assert_eq!(read, 1);
                return;
            }
        };
        let (input, rest) = left.split_at(count);
        (left, read) = (rest, read + count);
        step = machine.step(input);
    }
    panic!("no end in sight");
});
