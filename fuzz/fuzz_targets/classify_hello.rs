//! Any bytes, in any pieces: no panic, no more wanted than the bound, the same answer however they were split, and
//! nothing of them lost.
#![no_main]

use bytes::BytesMut;
use egret::pipeline::classify::hello::{Hello, MAX_HELLO};
use egret::pipeline::classify::{Machine, Protocol, Refusal, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&piece, bytes)) = data.split_first() else { return };
    let (whole, split) = (answer(bytes, bytes.len().max(1)), answer(bytes, usize::from(piece % 64) + 1));
    // Why it is no TLS may be known better when more of it is there.
    match (&whole, &split) {
        (Some(Err(Refusal::NotTls(_))), Some(Err(Refusal::NotTls(_)))) => {}
        _ => assert_eq!(whole, split),
    }
});

fn answer(bytes: &[u8], piece: usize) -> Option<Result<Protocol, Refusal>> {
    let (mut machine, mut input) = (Hello::default(), BytesMut::new());
    let mut pieces = bytes.chunks(piece);
    loop {
        match machine.step(&mut input) {
            Step::More(count) => {
                assert!((1..=MAX_HELLO - input.len()).contains(&count), "no more is read than the bound");
                input.extend_from_slice(pieces.next()?);
            }
            Step::Yes(class) => {
                assert!(bytes.starts_with(&class.early), "the server gets what came");
                return Some(Ok(class.protocol));
            }
            Step::No(refusal) => return Some(Err(refusal)),
            Step::Answer(_) => panic!("TLS is not answered"),
        }
    }
}
