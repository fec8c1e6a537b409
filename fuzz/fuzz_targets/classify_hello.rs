//! Any bytes, in any pieces: no panic, no more wanted than the bound, the same answer however they were split, and
//! nothing of them lost.
#![no_main]

use bytes::BytesMut;
use egret::pipeline::classify::hello::{ClientHello, Hello, MAX_HELLO, Refusal};
use egret::protocols::exchange::{Exchange, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&piece, bytes)) = data.split_first() else { return };
    let (whole, split) = (answer(bytes, bytes.len().max(1)), answer(bytes, usize::from(piece % 64) + 1));
    // Why it is no TLS may be known better when more of it is there.
    match (&whole, &split) {
        (Some(Err(Refusal::NotTls(_) | Refusal::Asks(_))), Some(Err(Refusal::NotTls(_)))) => {}
        _ => assert_eq!(whole, split),
    }
});

fn answer(bytes: &[u8], piece: usize) -> Option<Result<ClientHello, Refusal>> {
    let mut machine = Hello::default();
    let mut input = BytesMut::new();
    let mut pieces = bytes.chunks(piece);
    loop {
        match machine.step(&mut input) {
            Step::Read(count) => {
                assert!((1..=MAX_HELLO - input.len()).contains(&count), "no more is read than the bound");
                input.extend_from_slice(pieces.next()?);
            }
            Step::Done((hello, early)) => {
                assert!(bytes.starts_with(&early), "the server gets what came");
                return Some(Ok(hello));
            }
            Step::Refuse(refusal) => return Some(Err(refusal)),
            Step::Send(_) | Step::ReadReason(_) => panic!("TLS is not answered"),
        }
    }
}
