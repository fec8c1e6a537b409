//! Any server: no panic, one byte read before a yes, bounded text without control characters.
#![no_main]

use bytes::BytesMut;
use egret::protocols::exchange::{Exchange, ServerRefusal, Step};
use egret::protocols::postgres::Server;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut server = Server::default();
    let mut input = BytesMut::new();
    let mut left = data;
    for _ in 0..8 {
        let most = match server.step(&mut input) {
            Step::Send(_) => 0,
            Step::Read(_) if left.is_empty() => return,
            Step::Read(most) | Step::ReadReason(most) => most,
            Step::Done(greeting) => {
                assert!(greeting.is_empty());
                assert_eq!((data.len() - left.len(), data[0]), (1, b'S'));
                return;
            }
            Step::Refuse(ServerRefusal::Error(error)) => {
                assert!(error.text.len() <= 4096 && !error.text.chars().any(char::is_control));
                assert!(data.starts_with(&error.message));
                return;
            }
            Step::Refuse(_) => {
                assert_eq!(data.len() - left.len(), 1);
                return;
            }
        };
        let (read, rest) = left.split_at(most.min(left.len()));
        input.extend_from_slice(read);
        left = rest;
    }
    panic!("no end in sight");
});
