//! What holds for the record layer whatever bytes come: run by the fuzzer and, on random bytes, by the tests.

use egret::tls::record::{Frame, HEADER, MAX_PLAINTEXT, MAX_WIRE, Opener, Sealer};
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{ConnectionTrafficSecrets, ContentType};

/// The first bytes choose suite, lengths of records and a place; the rest is what is sent.
pub fn check(data: &[u8]) {
    let Some((&[choice, piece, at, flip], rest)) = data.split_first_chunk() else { return };
    let (mut sealer, mut opener) = pair(choice);
    forged(&mut opener, rest);

    let (stream, truth) = sealed(&mut sealer, rest, usize::from(piece) * 67 + 1);
    let (mut sound, mut damaged) = (stream.clone(), stream);
    assert_eq!(opened(&mut opener, &mut sound), (truth.clone(), true), "what was sealed is opened");

    // One byte is another: nothing that was not said is ever taken for said.
    let (_, mut opener) = pair(choice);
    if let Some(byte) = damaged.len().checked_sub(1).map(|last| usize::from(at) * 131 % (last + 1)) {
        damaged[byte] ^= flip;
        let (heard, whole) = opened(&mut opener, &mut damaged);
        assert!(truth.starts_with(&heard), "a prefix of the truth");
        assert!(flip == 0 || !whole, "damage is noticed");
    }
}

/// Keys of 32 bytes are those that can be made without a handshake; AES-128 differs in nothing but its key.
fn pair(choice: u8) -> (Sealer, Opener) {
    let (key, iv) = (AeadKey::from([7; 32]), Iv::copy(&[9; 12]));
    let secrets = match choice & 1 {
        0 => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
        _ => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
    };
    let tls13 = choice & 2 == 0;
    let sealer = Sealer::new(tls13, &secrets, 0, u64::MAX).expect("a suite of TLS");
    (sealer, Opener::new(tls13, &secrets, 0).expect("a suite of TLS"))
}

/// Bytes that nobody sealed: framed or refused, and never opened.
fn forged(opener: &mut Opener, bytes: &[u8]) {
    match opener.frame(bytes) {
        Ok(Frame::Partial(needed)) => assert!(bytes.len() < needed && (HEADER..=MAX_WIRE).contains(&needed)),
        Ok(Frame::Whole(wire)) => {
            assert!((HEADER..=bytes.len().min(MAX_WIRE)).contains(&wire));
            assert!(opener.open(&mut bytes[..wire].to_vec()).is_err(), "a forged record is opened");
        }
        Err(fault) => drop(fault.alert()),
    }
}

/// `plain` in records of at most `piece` bytes.
fn sealed(sealer: &mut Sealer, plain: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>) {
    let layout = sealer.layout();
    let mut stream = Vec::new();
    for piece in plain.chunks(piece.min(MAX_PLAINTEXT)) {
        let mut slot = vec![0; layout.front() + piece.len() + layout.back()];
        slot[layout.front()..][..piece.len()].copy_from_slice(piece);
        let wire = sealer.seal(ContentType::ApplicationData, &mut slot, piece.len()).expect("the key is fresh");
        assert_eq!(wire, slot.len());
        stream.extend_from_slice(&slot);
    }
    (stream, plain.to_vec())
}

/// Everything that can be opened, and whether that was all.
fn opened(opener: &mut Opener, mut stream: &mut [u8]) -> (Vec<u8>, bool) {
    let mut heard = Vec::new();
    while let Ok(Frame::Whole(wire)) = opener.frame(stream) {
        let (record, rest) = stream.split_at_mut(wire);
        let Ok((ContentType::ApplicationData, plain)) = opener.open(record) else { return (heard, false) };
        heard.extend_from_slice(&record[plain]);
        stream = rest;
    }
    (heard, stream.is_empty())
}
