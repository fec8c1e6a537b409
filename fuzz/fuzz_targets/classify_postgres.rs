//! Any bytes, in any pieces: no panic, an end within two answers, and the same one however they were split.
#![no_main]

use bytes::{Bytes, BytesMut};
use egret::protocols::exchange::{ClientRefusal, Exchange, Step};
use egret::protocols::postgres::Client;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&piece, bytes)) = data.split_first() else { return };
    let whole = answers(bytes, bytes.len().max(1));
    assert!(whole.len() <= 3, "more answers than requests a client may make: {whole:?}");
    assert_eq!(answers(bytes, usize::from(piece % 16) + 1), whole);
});

fn answers(bytes: &[u8], piece: usize) -> Vec<Step<Bytes, ClientRefusal>> {
    let mut client = Client::default();
    let mut input = BytesMut::new();
    let mut steps = Vec::new();
    let mut pieces = bytes.chunks(piece);
    loop {
        match client.step(&mut input) {
            Step::Read(count) => {
                assert!((1..=12 + 256).contains(&count), "nothing is read without need");
                let Some(piece) = pieces.next() else { return steps };
                input.extend_from_slice(piece);
            }
            answer @ Step::Send(_) => steps.push(answer),
            end => {
                steps.push(end);
                return steps;
            }
        }
    }
}
