//! What the fuzzer checks, on random bytes: each build runs a little of it.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[path = "../../fuzz/checks/keys.rs"]
mod keys;
#[path = "../../fuzz/checks/login.rs"]
mod login;
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

/// What begins the corpora of the fuzzer, whole, with one wrong byte, and cut at each place.
fn with_wrong_bytes_and_cuts(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds = 0;
    for file in fs::read_dir(folder).unwrap() {
        let seed = fs::read(file.unwrap().path()).unwrap();
        check(&seed);
        seeds += 1;
        for at in 0..seed.len() {
            let mut wrong = seed.clone();
            wrong[at] ^= 0x81;
            check(&wrong);
            check(&seed[..at]);
        }
    }
    assert!(seeds > 5, "only {seeds} seeds");
}

#[test]
fn a_login_with_a_wrong_byte_or_a_cut_comes_to_an_end() {
    with_wrong_bytes_and_cuts("login_mysql", login::check);
}

#[test]
fn a_key_with_a_wrong_byte_or_a_cut_is_the_one_announced_or_none() {
    with_wrong_bytes_and_cuts("postgres_keys", keys::check);
}
