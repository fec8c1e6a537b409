use proptest::prelude::*;

use super::*;

const SUITES: [(Layout, &Algorithm); 6] = [
    (Layout::Tls13, &AES_128_GCM),
    (Layout::Tls13, &AES_256_GCM),
    (Layout::Tls13, &CHACHA20_POLY1305),
    (Layout::Tls12Gcm, &AES_128_GCM),
    (Layout::Tls12Gcm, &AES_256_GCM),
    (Layout::Tls12ChaCha, &CHACHA20_POLY1305),
];

fn pair(layout: Layout, algorithm: &'static Algorithm) -> (Sealer, Opener) {
    let keyed = || Keyed::from_parts(layout, algorithm, &[7; 32][..algorithm.key_len()], [9; 12], 0).unwrap();
    (Sealer { keyed: keyed(), left: u64::MAX }, Opener { keyed: keyed() })
}

fn sealed(sealer: &mut Sealer, kind: ContentType, plain: &[u8]) -> Vec<u8> {
    let layout = sealer.layout();
    let mut slot = vec![0; layout.front() + plain.len() + layout.back()];
    slot[layout.front()..][..plain.len()].copy_from_slice(plain);
    let wire = sealer.seal(kind, &mut slot, plain.len()).unwrap();
    assert_eq!(wire, slot.len());
    slot
}

/// A TLS 1.3 record of this inner plaintext, which `Sealer` would not make.
fn sealed_raw(sealer: &mut Sealer, inner: &[u8]) -> Vec<u8> {
    let header = header(ContentType::ApplicationData, inner.len() + TAG);
    let mut record = [&header, inner, &[0; TAG]].concat();
    let (body, tag) = record[HEADER..].split_at_mut(inner.len());
    sealer.seal_in_place(Aad::from(&header), body, tag);
    sealer.keyed.sequence += 1;
    record
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn rfc8448(key: &str, iv: &str, sequence: u64) -> Keyed {
    let iv = hex(iv).try_into().unwrap();
    Keyed::from_parts(Layout::Tls13, &AES_128_GCM, &hex(key), iv, sequence).unwrap()
}

const CLIENT_KEY: &str = "17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51";
const CLIENT_IV: &str = "5b 78 92 3d ee 08 57 90 33 e5 23 d9";
const SERVER_KEY: &str = "9f 02 28 3b 6c 9c 07 ef c2 6b b9 f2 ac 92 e3 56";
const SERVER_IV: &str = "cf 78 2b 88 dd 83 54 9a ad f1 e9 84";

/// RFC 8448 section 3, the client's data and close_notify.
#[test]
fn seals_what_rfc_8448_seals() {
    let mut sealer = Sealer { keyed: rfc8448(CLIENT_KEY, CLIENT_IV, 0), left: 99 };
    let data: Vec<u8> = (0..50).collect();
    let record = sealed(&mut sealer, ContentType::ApplicationData, &data);
    let expected = "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b \
        98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 \
        15 e4";
    assert_eq!(record, hex(expected));
    let record = sealed(&mut sealer, ContentType::Alert, &[1, 0]);
    assert_eq!(record, hex("17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3"));
}

/// RFC 8448 section 3, what the server sends after its ticket.
#[test]
fn opens_what_rfc_8448_seals() {
    let mut opener = Opener { keyed: rfc8448(SERVER_KEY, SERVER_IV, 1) };
    let mut record =
        hex("17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc 32 25 d0 5f 82 aa 1b 36 \
        e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2 ab f3 32 54 0d d0 32 e1 67 \
        c2 95 5d");
    let (kind, plain) = opener.open(&mut record).unwrap();
    assert_eq!((kind, &record[plain]), (ContentType::ApplicationData, &(0..50).collect::<Vec<u8>>()[..]));
    let mut record = hex("17 03 03 00 13 b5 8f d6 71 66 eb f5 99 d2 47 20 cf be 7e fa 7a 88 64 a9");
    let (kind, plain) = opener.open(&mut record).unwrap();
    assert_eq!((kind, &record[plain]), (ContentType::Alert, &[1, 0][..]));
}

#[test]
fn every_length_of_every_suite_comes_back() {
    for (layout, algorithm) in SUITES {
        let (mut sealer, mut opener) = pair(layout, algorithm);
        for len in [0, 1, 15, 16, 17, 1000, MAX_PLAINTEXT - 1, MAX_PLAINTEXT] {
            let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut record = sealed(&mut sealer, ContentType::ApplicationData, &plain);
            assert_eq!(opener.frame(&record), Ok(Frame::Whole(record.len())));
            let (kind, range) = opener.open(&mut record).unwrap();
            assert_eq!((kind, &record[range]), (ContentType::ApplicationData, &plain[..]));
        }
    }
}

#[test]
fn one_changed_bit_anywhere_is_a_bad_mac() {
    for (layout, algorithm) in SUITES {
        let (mut sealer, _) = pair(layout, algorithm);
        let record = sealed(&mut sealer, ContentType::ApplicationData, b"data");
        // The length is left out: TLS 1.2 authenticates that of the plaintext, which follows from it.
        for bit in (0..24).chain(40..record.len() * 8) {
            let (_, mut opener) = pair(layout, algorithm);
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opener.open(&mut changed), Err(Fault::BadRecordMac), "{layout:?}, bit {bit}");
        }
    }
}

#[test]
fn a_record_that_is_replayed_or_left_out_is_a_bad_mac() {
    for (layout, algorithm) in SUITES {
        // TLS 1.2 with GCM sends the nonce, so there it is the additional data that counts the records.
        let (mut sealer, mut opener) = pair(layout, algorithm);
        let first = sealed(&mut sealer, ContentType::ApplicationData, b"first");
        let mut second = sealed(&mut sealer, ContentType::ApplicationData, b"second");
        assert_eq!(opener.open(&mut second), Err(Fault::BadRecordMac));
        assert!(opener.open(&mut first.clone()).is_ok());
        assert_eq!(opener.open(&mut first.clone()), Err(Fault::BadRecordMac));
    }
}

#[test]
fn padding_is_taken_off_and_a_record_of_padding_alone_is_refused() {
    let (mut sealer, mut opener) = pair(Layout::Tls13, &AES_128_GCM);
    let mut record = sealed_raw(&mut sealer, &[b"data\x17", &[0; 300][..]].concat());
    let (kind, plain) = opener.open(&mut record).unwrap();
    assert_eq!((kind, &record[plain]), (ContentType::ApplicationData, &b"data"[..]));
    let mut record = sealed_raw(&mut sealer, &[0; 300]);
    assert_eq!(opener.open(&mut record), Err(Fault::UnexpectedMessage));
}

#[test]
fn plaintext_beyond_the_limit_overflows_even_if_it_authenticates() {
    let (mut sealer, mut opener) = pair(Layout::Tls13, &AES_128_GCM);
    let mut record = sealed_raw(&mut sealer, &[23; MAX_PLAINTEXT + 2]);
    assert_eq!(opener.frame(&record), Ok(Frame::Whole(record.len())));
    assert_eq!(opener.open(&mut record), Err(Fault::RecordOverflow));
}

#[test]
fn headers_that_cannot_be_are_refused_before_their_body_comes() {
    for (layout, algorithm) in SUITES {
        let (_, opener) = pair(layout, algorithm);
        let is_tls13 = layout == Layout::Tls13;
        let alert = opener.frame(&[21, 3, 3, 0, 26]);
        assert_eq!(alert.is_err(), is_tls13, "an alert in the clear");
        assert_eq!(opener.frame(&[20, 3, 3, 0, 1]), Err(Fault::UnexpectedMessage));
        assert_eq!(opener.frame(&[99, 3, 3, 0, 1]), Err(Fault::UnexpectedMessage));
        assert_eq!(opener.frame(&[23, 2, 0, 0, 9]), Err(Fault::DecodeError));
        let [high, low] = (layout.max_length() as u16 + 1).to_be_bytes();
        assert_eq!(opener.frame(&[23, 3, 3, high, low]), Err(Fault::RecordOverflow));
        assert_eq!(opener.frame(&[23, 3, 3, high, low - 1]), Ok(Frame::Partial(HEADER + layout.max_length())));
    }
}

#[test]
fn a_body_too_short_for_a_tag_is_a_bad_mac() {
    for (layout, algorithm) in SUITES {
        let (_, mut opener) = pair(layout, algorithm);
        for length in 0..24 {
            let mut record = [&header(ContentType::ApplicationData, length)[..], &vec![0; length]].concat();
            assert_eq!(opener.open(&mut record), Err(Fault::BadRecordMac));
        }
    }
}

#[test]
fn a_key_seals_no_more_blocks_than_its_limit() {
    let (mut sealer, _) = pair(Layout::Tls13, &AES_128_GCM);
    sealer.left = blocks(1) + blocks(40);
    sealed(&mut sealer, ContentType::ApplicationData, &[1; 40]);
    sealed(&mut sealer, ContentType::ApplicationData, b"2");
    assert_eq!((sealer.left(), sealer.seal(ContentType::ApplicationData, &mut [0; 99], 1)), (0, Err(Exhausted)));
}

#[test]
fn small_records_use_up_less_of_a_key() {
    // A request and an answer of a database, and full records: the type and the tag count as well.
    assert_eq!([blocks(0), blocks(15), blocks(16), blocks(100), blocks(MAX_PLAINTEXT)], [2, 2, 3, 8, 1026]);
    let (mut sealer, _) = pair(Layout::Tls12Gcm, &AES_256_GCM);
    sealer.left = 10 * blocks(MAX_PLAINTEXT);
    for _ in 0..10 * blocks(MAX_PLAINTEXT) / blocks(100) {
        sealed(&mut sealer, ContentType::ApplicationData, &[7; 100]);
    }
    assert!(!sealer.is_good_for(1));
}

proptest! {
    /// However a stream of records is cut into reads, what comes out is what went in.
    #[test]
    fn any_cut_of_the_stream_gives_the_same_bytes(
        suite in 0..SUITES.len(),
        lengths in prop::collection::vec(prop_oneof![0..40usize, 0..3000usize, Just(MAX_PLAINTEXT)], 1..12),
        cuts in prop::collection::vec(1..20_000usize, 1..20),
    ) {
        let (mut sealer, mut opener) = pair(SUITES[suite].0, SUITES[suite].1);
        let mut wire = Vec::new();
        let mut expected = Vec::new();
        for (n, len) in lengths.into_iter().enumerate() {
            let plain = vec![n as u8; len];
            wire.extend(sealed(&mut sealer, ContentType::ApplicationData, &plain));
            expected.extend(plain);
        }
        let mut inbox = Vec::new();
        let mut got = Vec::new();
        let mut cuts = cuts.into_iter().cycle();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let (read, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            rest = after;
            inbox = [&inbox, read].concat();
            while let Frame::Whole(len) = opener.frame(&inbox).unwrap() {
                let (_, plain) = opener.open(&mut inbox[..len]).unwrap();
                got.extend_from_slice(&inbox[plain]);
                inbox.drain(..len);
            }
        }
        prop_assert_eq!((got, inbox.len()), (expected, 0));
    }

    /// No bytes of a peer make the record layer panic.
    #[test]
    fn no_bytes_panic(suite in 0..SUITES.len(), mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_, mut opener) = pair(SUITES[suite].0, SUITES[suite].1);
        if let Ok(Frame::Whole(len)) = opener.frame(&bytes) {
            prop_assert!(opener.open(&mut bytes[..len]).is_err());
        }
    }
}
