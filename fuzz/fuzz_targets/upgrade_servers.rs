//! Any server of a protocol that begins in plaintext: no panic, an end within a bound, bounded text without control
//! characters, and the same end however the bytes are cut.
#![no_main]

use bytes::{Bytes, BytesMut};
use egret::protocols::Upgrade;
use egret::protocols::exchange::{ServerRefusal, Step};
use libfuzzer_sys::fuzz_target;

const WORDS: [&str; 10] = ["ftp", "imap", "ldap", "lmtp", "nntp", "pop3", "sieve", "smtp", "xmpp", "xmpp-server"];

/// Ends one answer of the server; the next one follows the next request.
const END_OF_ANSWER: &[u8] = b"\xff\xfe";

#[derive(Debug, PartialEq)]
enum End {
    Done(Bytes),
    Refused(ServerRefusal),
    Waits,
}

fn play(word: &str, answers: &[&[u8]], cut: usize) -> (usize, End) {
    let mut server = Upgrade::of(word).expect("a word of the table").server_side("server.example.com");
    let mut input = BytesMut::new();
    let mut answers = answers.iter();
    let mut unread: &[u8] = b"";
    let mut may_answer = true;
    let mut requests = 0;
    for _ in 0..100_000 {
        match server.step(&mut input) {
            Step::Send(_) => {
                requests += 1;
                may_answer = true;
            }
            Step::Read(most) => {
                assert!(most > 0);
                if unread.is_empty() && may_answer {
                    may_answer = false;
                    unread = answers.next().copied().unwrap_or_default();
                }
                if unread.is_empty() {
                    return (requests, End::Waits);
                }
                let (read, rest) = unread.split_at(cut.min(most).min(unread.len()));
                input.extend_from_slice(read);
                unread = rest;
            }
            Step::ReadReason(_) => panic!("not for these protocols"),
            Step::Done(_) if !unread.is_empty() => return (requests, End::Refused(ServerRefusal::Injection)),
            Step::Done(greeting) => return (requests, End::Done(greeting)),
            Step::Refuse(refusal) => return (requests, End::Refused(refusal)),
        }
    }
    panic!("no end in sight");
}

fn split(data: &[u8]) -> Vec<&[u8]> {
    let mut answers = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(END_OF_ANSWER.len()).position(|window| window == END_OF_ANSWER) {
        answers.push(&rest[..at]);
        rest = &rest[at + END_OF_ANSWER.len()..];
    }
    answers.push(rest);
    answers
}

fuzz_target!(|data: &[u8]| {
    let [word, cut, rest @ ..] = data else { return };
    let word = WORDS[usize::from(*word) % WORDS.len()];
    let answers = split(rest);
    let (requests, whole) = play(word, &answers, usize::MAX);
    assert!(requests <= 2);
    if let End::Done(greeting) = &whole {
        assert!(greeting.len() <= 8192);
    }
    let text = match &whole {
        End::Refused(ServerRefusal::Error(error)) => Some(&error.text),
        End::Refused(ServerRefusal::Declined(text) | ServerRefusal::Unexpected(text)) => Some(text),
        _ => None,
    };
    if let Some(text) = text {
        assert!(text.len() <= 4096 && !text.chars().any(char::is_control));
    }
    // Bytes behind an answer that is not the last are an injection as soon as they are seen, and else the next answer.
    if whole != End::Refused(ServerRefusal::Injection) {
        assert_eq!(play(word, &answers, usize::from(*cut).max(1)), (requests, whole));
    }
});
