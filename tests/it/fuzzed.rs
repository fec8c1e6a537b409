//! What the fuzzer checks, on random bytes: each build runs a little of it.

use proptest::prelude::*;

#[path = "../../fuzz/checks/records.rs"]
mod records;
#[path = "../../fuzz/checks/session/mod.rs"]
mod session;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn records_are_opened_as_they_were_sealed_or_not_at_all(data in prop::collection::vec(any::<u8>(), 0..3000)) {
        records::check(&data);
    }

    /// Bytes that begin as a record does get further than most.
    #[test]
    fn headers_of_any_length_are_framed_or_refused(
        choice in any::<u8>(),
        kind in 19u8..25,
        length in any::<u16>(),
        body in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let [high, low] = length.to_be_bytes();
        records::check(&[&[choice, 1, 0, 1, kind, 3, 3, high, low], &body[..]].concat());
    }
}

proptest! {
    // Each begins with a handshake.
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn whatever_a_server_says_after_the_handshake_has_its_answer(data in prop::collection::vec(any::<u8>(), 0..300)) {
        session::check(&data);
    }
}
