//! Hellos, whole, in pieces and broken.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::tls::hello::{server_name, with_u16_length};

fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    hello::client_hello(&[7; 32], &[], &[0x0a0a, 0x1301], extensions)
}

fn alpn(protocols: &[&str]) -> (u16, Vec<u8>) {
    let short = |protocol: &&str| [&[u8::try_from(protocol.len()).unwrap()][..], protocol.as_bytes()].concat();
    (ALPN, with_u16_length(&protocols.iter().flat_map(short).collect::<Vec<_>>()))
}

fn records(message: &[u8], fragment: usize) -> Vec<u8> {
    message.chunks(fragment).flat_map(hello::record).collect()
}

/// The result of bytes that arrive in pieces; `None`: more are needed.
fn classify(bytes: &[u8], piece: usize) -> Option<Result<(ClientHello, Bytes), Refusal>> {
    let mut machine = Hello::default();
    let mut input = BytesMut::new();
    let mut pieces = bytes.chunks(piece);
    loop {
        match machine.step(&mut input) {
            Step::Read(wanted) => {
                assert!((1..=MAX_HELLO - input.len()).contains(&wanted));
                input.extend_from_slice(pieces.next()?);
            }
            Step::Done(found) => return Some(Ok(found)),
            Step::Refuse(refusal) => return Some(Err(refusal)),
            Step::Send(_) | Step::ReadReason(_) => panic!("TLS is not answered"),
        }
    }
}

fn hello(bytes: &[u8]) -> Option<Result<ClientHello, Refusal>> {
    classify(bytes, usize::MAX).map(|answer| answer.map(|(hello, _)| hello))
}

#[test]
fn name_and_protocols_are_found_among_other_extensions() {
    let grease = (0x0a0a, vec![]);
    let extensions =
        [grease.clone(), server_name("DB.Example.COM."), (43, vec![2, 3, 4]), alpn(&["\u{2}", "h2"]), grease];
    let found = hello(&records(&message(&extensions), MAX_PLAINTEXT)).unwrap().unwrap();
    assert_eq!(found.server_name.as_deref(), Some("db.example.com"));
    assert_eq!(found.alpn, [b"\x02"[..].into(), b"h2"[..].into()]);
}

#[test]
fn a_hello_without_extensions_asks_for_nothing() {
    let mut whole = message(&[]);
    whole.truncate(whole.len() - 2);
    whole[3] -= 2;
    assert_eq!(hello(&records(&whole, 100)), Some(Ok(ClientHello::default())));
    assert_eq!(hello(&records(&message(&[]), 100)), Some(Ok(ClientHello::default())));
}

#[test]
fn what_is_no_hello_is_told_with_its_first_bytes() {
    for first in [&b"GET / HTTP/1.1\r\n"[..], b"S", b"\x16\x02", b"\x16\x03\x01\x00\x05\x02", b"\x80\x2e"] {
        assert!(matches!(hello(first), Some(Err(Refusal::NotTls(_)))), "{first:?}");
    }
    for first in [&b"\x16\x03\x01\x00\x00"[..], b"\x16\x03\x01\x40\x01", b"\x16\x03\x01\x40\x00\x01\x01\x00\x00"] {
        assert!(matches!(hello(first), Some(Err(Refusal::Malformed(_)))), "{first:?}");
    }
    for protocol in Upgrade::all() {
        if let Some(request) = protocol.tls_request() {
            let asks = |named: Upgrade| named.tls_request().is_some_and(|one| one.bytes == request.bytes);
            let refused = hello(request.bytes);
            assert!(matches!(refused, Some(Err(Refusal::Asks(named))) if asks(named)), "{protocol:?}: {refused:?}");
        }
    }
    assert_eq!(hello(b"\x16\x03"), None);
}

#[test]
fn contradictions_are_refused() {
    let a = server_name("a.example.com");
    let b = server_name("b.example.com");
    let both = (SERVER_NAME, with_u16_length(&[&a.1[2..], &b.1[2..]].concat()));
    let cut = (SERVER_NAME, a.1[..a.1.len() - 1].to_vec());
    let cases: [&[(u16, Vec<u8>)]; 8] = [
        &[a, b],
        &[both],
        &[cut],
        &[alpn(&[""])],
        &[alpn(&["h2"]), alpn(&["h2"])],
        &[server_name("")],
        &[server_name("ä.example.com")],
        &[server_name(&"a".repeat(MAX_NAME + 1))],
    ];
    for extensions in cases {
        let answer = hello(&records(&message(extensions), MAX_PLAINTEXT));
        assert!(matches!(answer, Some(Err(Refusal::Malformed(_)))), "{extensions:?}");
    }
}

#[test]
fn no_more_than_the_bound_is_read() {
    // Records of one byte: five of six bytes are heads.
    let whole = message(&[(21, vec![0; 30_000])]);
    assert_eq!(hello(&records(&whole, 1)[..MAX_HELLO]), Some(Err(TOO_LONG)));
    assert!(matches!(hello(&records(&whole, MAX_PLAINTEXT)), Some(Ok(_))));
}

proptest! {
    #[test]
    fn pieces_and_fragments_make_no_difference(
        host in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){0,3}",
        offer in vec("[a-z]{1,9}", 0..4),
        padding in 0..3000_usize,
        fragment in 1..4000_usize,
        piece in 1..5000_usize,
        data in vec(any::<u8>(), 0..100),
    ) {
        let offer: Vec<&str> = offer.iter().map(String::as_str).collect();
        let whole = message(&[(21, vec![0; padding]), server_name(&host), alpn(&offer)]);
        let early = [records(&whole, fragment), data].concat();
        let (hello, read) = classify(&early, piece).expect("all is there").expect("it is right");
        prop_assert!(early.starts_with(&read));
        let alpn = offer.iter().map(|protocol| protocol.as_bytes().into()).collect();
        prop_assert_eq!(hello, ClientHello { server_name: Some(host.into()), alpn });
    }

    #[test]
    fn any_bytes_have_one_answer_however_they_are_split(
        tail in vec(any::<u8>(), 0..200),
        body in vec(any::<u8>(), 0..200),
        piece in 1..40_usize,
    ) {
        for bytes in [tail.clone(), records(&[&message(&[])[..], &tail].concat(), 50), records(&body, 7)] {
            let hello = |piece| classify(&bytes, piece).map(|answer| answer.map(|(hello, _)| hello));
            // A request for TLS is recognized only when it came in one piece.
            let mut asking = Upgrade::all().filter_map(|protocol| Some(protocol.tls_request()?.bytes));
            if !asking.any(|request| bytes.starts_with(&request[..1])) {
                prop_assert_eq!(hello(usize::MAX), hello(piece));
            }
        }
    }
}
