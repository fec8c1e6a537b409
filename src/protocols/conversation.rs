//! Plays a server's answers against the side of egret: for the tests of the protocols.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::exchange::{ServerRefusal, Step};
use super::{Protocol, text};

/// The answers of a server, one for each request (and the greeting, if it speaks first); the requests; the end.
pub(super) struct Case<'a>(pub &'a [&'a [u8]], pub &'a [&'a [u8]], pub End<'a>);

#[derive(Debug)]
pub(super) enum End<'a> {
    /// What is shown to the client.
    Done(&'a [u8]),
    NoTls,
    Declined(&'a str),
    Error(&'a str),
    Unexpected(&'a str),
    Impossible,
    NotTheProtocol(u8),
    Injection,
    TooLong,
    /// The answers are not whole.
    Waits,
}

const NAME: &str = "server.example.com";

/// More steps than any exchange has, for bytes that arrive one at a time.
const STEPS: usize = 100_000;

/// The requests, and the end; `None`: it waits for more.
fn play(
    protocol: &Protocol,
    answers: &[&[u8]],
    cuts: &[usize],
) -> (Vec<Vec<u8>>, Option<Result<Bytes, ServerRefusal>>) {
    let mut server = (protocol.server)(NAME);
    let mut input = BytesMut::new();
    let mut requests = Vec::new();
    let mut answers = answers.iter().copied();
    let mut unread: &[u8] = b"";
    let mut cuts = cuts.iter().copied().cycle();
    // A server that speaks first has its answer ready.
    let mut may_answer = true;
    for _ in 0..STEPS {
        match server.step(&mut input) {
            Step::Send(bytes) => {
                requests.push(bytes.into_owned());
                may_answer = true;
            }
            Step::Read(most) => {
                assert!(most > 0, "at least one byte is read");
                if unread.is_empty() && std::mem::take(&mut may_answer) {
                    unread = answers.next().unwrap_or_default();
                }
                if unread.is_empty() {
                    return (requests, None);
                }
                let length = cuts.next().unwrap_or(usize::MAX).clamp(1, most.min(unread.len()));
                input.extend_from_slice(&unread[..length]);
                unread = &unread[length..];
            }
            Step::ReadReason(_) => panic!("not for these protocols"),
            // What `nothing_more` would find in the socket.
            Step::Done(_) if !unread.is_empty() => return (requests, Some(Err(ServerRefusal::Injection))),
            Step::Done(greeting) => return (requests, Some(Ok(greeting))),
            Step::Refuse(refusal) => return (requests, Some(Err(refusal))),
        }
    }
    panic!("no end after {STEPS} steps")
}

fn is_end(end: &End<'_>, got: Option<&Result<Bytes, ServerRefusal>>) -> bool {
    match (end, got) {
        (End::Done(greeting), Some(Ok(got))) => got == greeting,
        (End::NoTls, Some(Err(ServerRefusal::NoTls)))
        | (End::Impossible, Some(Err(ServerRefusal::Impossible(_))))
        | (End::Injection, Some(Err(ServerRefusal::Injection)))
        | (End::TooLong, Some(Err(ServerRefusal::TooLong)))
        | (End::Waits, None) => true,
        (End::Error(text), Some(Err(ServerRefusal::Error(got)))) => got.text == *text,
        (End::Declined(text), Some(Err(ServerRefusal::Declined(got))))
        | (End::Unexpected(text), Some(Err(ServerRefusal::Unexpected(got)))) => got == text,
        (End::NotTheProtocol(byte), Some(Err(ServerRefusal::NotTheProtocol(got)))) => got == byte,
        _ => false,
    }
}

/// Each case ends as it says, however its bytes are cut; each that comes to its end waits for the rest of a truncated
/// answer, and takes a byte behind the last one for an injection. Whatever bytes replace an answer, the machine ends
/// with a bounded, escaped text.
pub(super) fn check(protocol: Protocol, cases: &[Case<'_>]) {
    for Case(answers, requests, end) in cases {
        for cuts in [&[usize::MAX][..], &[1], &[2], &[3, 1, 7], &[5, 64]] {
            let (sent, got) = play(&protocol, answers, cuts);
            assert!(is_end(end, got.as_ref()), "{}: {answers:?} cut {cuts:?}: {got:?}, not {end:?}", protocol.word);
            assert_eq!(sent, *requests, "{}: {answers:?} cut {cuts:?}", protocol.word);
        }
        if matches!(end, End::Done(_)) {
            truncated_or_prolonged(&protocol, answers);
        }
    }
    replaced(&protocol, cases);
}

fn truncated_or_prolonged(protocol: &Protocol, answers: &[&[u8]]) {
    for (at, answer) in answers.iter().enumerate() {
        for length in 0..answer.len() {
            let mut truncated = answers[..=at].to_vec();
            truncated[at] = &answer[..length];
            let (_, got) = play(protocol, &truncated, &[usize::MAX]);
            assert!(got.is_none(), "{}: {truncated:?} ends: {got:?}", protocol.word);
        }
    }
    for more in [&b"\x16\x03\x03"[..], b"\r\n", b"x"] {
        let last = answers.last().expect("at least one answer");
        let last = [last, more].concat();
        let prolonged = [&answers[..answers.len() - 1], &[&last[..]]].concat();
        for cuts in [&[usize::MAX][..], &[1]] {
            let (_, got) = play(protocol, &prolonged, cuts);
            assert!(is_end(&End::Injection, got.as_ref()), "{}: {prolonged:?}: {got:?}", protocol.word);
        }
    }
}

fn replaced(protocol: &Protocol, cases: &[Case<'_>]) {
    let answers: Vec<Vec<u8>> = cases.iter().flat_map(|case| case.0).map(|answer| answer.to_vec()).collect();
    let piece = prop_oneof![
        4 => prop::sample::select(answers),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::sample::select(vec![b"\r\n".to_vec(), b"\n".to_vec(), b"\0".to_vec(), b"-".to_vec(), vec![b'x'; 3000]]),
    ];
    let answer = prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat());
    let strategy = (prop::collection::vec(answer, 1..5), prop::collection::vec(1usize..50, 1..6));
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let result = runner.run(&strategy, |(answers, cuts)| {
        let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
        let (requests, whole) = play(protocol, &answers, &[usize::MAX]);
        let (in_pieces, cut) = play(protocol, &answers, &cuts);
        // Bytes behind an answer that is not the last are an injection as soon as they are seen, and else the next answer.
        if !matches!(whole, Some(Err(ServerRefusal::Injection))) {
            prop_assert_eq!(&requests, &in_pieces);
            prop_assert_eq!(&whole, &cut);
        }
        prop_assert!(requests.len() <= 3);
        let text = match cut {
            Some(Err(ServerRefusal::Error(error))) => Some(error.text),
            Some(Err(ServerRefusal::Declined(text) | ServerRefusal::Unexpected(text))) => Some(text),
            _ => None,
        };
        if let Some(text) = text {
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert!(text.chars().count() <= text::MAX_SHOWN * 10 + 100);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{}: {error}", protocol.word));
}
