//! Any bytes, in any pieces: no panic, an end within two answers, and the same one however they were split.
#![no_main]

use bytes::BytesMut;
use egret::pipeline::classify::postgres::Postgres;
use egret::pipeline::classify::{Machine, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&piece, bytes)) = data.split_first() else { return };
    let whole = answers(bytes, bytes.len().max(1));
    assert!(whole.len() <= 3, "more answers than requests a client may make: {whole:?}");
    assert_eq!(answers(bytes, usize::from(piece % 16) + 1), whole);
});

fn answers(bytes: &[u8], piece: usize) -> Vec<Step> {
    let (mut machine, mut input, mut steps) = (Postgres::default(), BytesMut::new(), Vec::new());
    let mut pieces = bytes.chunks(piece);
    loop {
        match machine.step(&mut input) {
            Step::More(count) => {
                assert!((1..=8).contains(&count), "nothing is read without need");
                let Some(piece) = pieces.next() else { return steps };
                input.extend_from_slice(piece);
            }
            answer @ Step::Answer(_) => steps.push(answer),
            end => {
                steps.push(end);
                return steps;
            }
        }
    }
}
