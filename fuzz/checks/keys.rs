//! The key that a PostgreSQL server announces, out of any bytes.

use egret::protocols::Upgrade;
use egret::protocols::cancel::Reading;

/// The reading of these bytes in pieces of this length, and how many of them were looked at.
fn read(bytes: &[u8], piece: usize) -> Reading {
    let mut reader =
        Upgrade::of("postgres").expect("a word of the table").key_reader().expect("sessions are cancelled");
    let mut pieces = bytes.chunks(piece);
    loop {
        let Some(piece) = pieces.next() else { return Reading::More };
        let reading = reader.read(piece);
        if reading != Reading::More {
            return reading;
        }
    }
}

/// A key is the body of a BackendKeyData in the bytes, of a length that servers use, and the same however the bytes are cut.
pub fn check(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let whole = read(bytes, bytes.len().max(1));
    let cut = read(bytes, usize::from(*cut).max(1));
    // Past the bound a piece is looked at to its end, or the next one not at all.
    if bytes.len() < 16_384 {
        assert_eq!(cut, whole);
    }
    if let Reading::Key(key) = whole {
        assert!((8..=260).contains(&key.len()), "{} bytes", key.len());
        let length = u32::try_from(key.len() + 4).expect("checked above");
        let message = [b"K", &length.to_be_bytes()[..], &key].concat();
        assert!(bytes.windows(message.len()).any(|window| window == message), "a key that was not announced");
    }
}
