//! The keys by which PostgreSQL's sessions are cancelled: BackendKeyData of a server, CancelRequest of a client. Both hold
//! a process id and a secret of 4 bytes, since protocol 3.2 of up to 256.

use super::cancel::{Cancellation, KeyReader, Reading};
use super::postgres::{CANCEL_CODE, CANCEL_LENGTHS, HEAD};

pub(super) const CANCELLATION: Cancellation = Cancellation { requested, announced: || Box::new(Announced::default()) };

/// Process id and secret of a whole CancelRequest.
fn requested(packet: &[u8]) -> Option<&[u8]> {
    let (head, key) = packet.split_at_checked(HEAD)?;
    let length = u32::try_from(packet.len()).ok().filter(|length| CANCEL_LENGTHS.contains(length))?;
    (head == [length.to_be_bytes(), CANCEL_CODE.to_be_bytes()].concat()).then_some(key)
}

/// Type and length.
const MESSAGE_HEAD: usize = 5;
/// Bytes of a BackendKeyData without its head: process id and secret.
const KEYS: std::ops::RangeInclusive<usize> = 8..=4 + 256;
/// Bytes of a server that are looked at: authentication and the parameters of a session take some 500.
const MOST: usize = 16_384;

/// Reads a server's messages until its BackendKeyData, or until the session is ready without one.
#[derive(Default)]
struct Announced {
    seen: usize,
    head: Vec<u8>,
    /// Bytes of the message that are still to come, once its head is known.
    left: usize,
    key: Vec<u8>,
}

impl KeyReader for Announced {
    fn read(&mut self, mut bytes: &[u8]) -> Reading {
        self.seen += bytes.len();
        while !bytes.is_empty() {
            if self.head.len() < MESSAGE_HEAD {
                let (head, rest) = bytes.split_at(bytes.len().min(MESSAGE_HEAD - self.head.len()));
                self.head.extend_from_slice(head);
                bytes = rest;
                if self.head.len() == MESSAGE_HEAD && !self.begin() {
                    return Reading::Without;
                }
            } else {
                let (part, rest) = bytes.split_at(bytes.len().min(self.left));
                if self.head[0] == b'K' {
                    self.key.extend_from_slice(part);
                }
                self.left -= part.len();
                bytes = rest;
            }
            if self.head.len() == MESSAGE_HEAD && self.left == 0 {
                if self.head[0] == b'K' {
                    return Reading::Key(std::mem::take(&mut self.key).into());
                }
                self.head.clear();
            }
        }
        if self.seen < MOST { Reading::More } else { Reading::Without }
    }
}

impl Announced {
    /// False: no key follows, or these are not messages of PostgreSQL.
    fn begin(&mut self) -> bool {
        let [kind, a, b, c, d] = self.head[..] else { return false };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let Some(left) = length.checked_sub(4) else { return false };
        self.left = left;
        match kind {
            b'K' => KEYS.contains(&left),
            // Authentication, ParameterStatus, NoticeResponse, NegotiateProtocolVersion.
            b'R' | b'S' | b'N' | b'v' => left <= MOST,
            // ReadyForQuery, ErrorResponse and all that comes later.
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    /// What a server says before ReadyForQuery, with this key.
    fn session(key: &[u8]) -> Vec<u8> {
        [
            message(b'R', &[0, 0, 0, 10, b'S', b'C', b'R', b'A', b'M', 0, 0]),
            message(b'R', &[0, 0, 0, 0]),
            message(b'S', b"server_version\x0015.5\0"),
            message(b'N', b"SNOTICE\0\0"),
            message(b'K', key),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    fn read(pieces: &[&[u8]]) -> Reading {
        let mut reader = Announced::default();
        let readings = pieces.iter().map(|piece| reader.read(piece));
        readings.into_iter().find(|reading| *reading != Reading::More).unwrap_or(Reading::More)
    }

    #[test]
    fn keys_of_all_lengths_are_found() {
        for length in [8, 12, 36, 260] {
            let key: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            assert_eq!(read(&[&session(&key)]), Reading::Key(key.into()), "{length}");
        }
    }

    #[test]
    fn session_without_a_key_is_not_looked_at_for_long() {
        let without = [message(b'R', &[0, 0, 0, 0]), message(b'Z', b"I")].concat();
        let error = message(b'E', b"SFATAL\0\0");
        let many = message(b'S', &[b'a'; 1000]).repeat(17);
        for bytes in
            [&without[..], &error, &session(&[0; 7]), &session(&[0; 261]), b"HTTP/1.1 200 OK", b"R\0\0\0\x03", &many]
        {
            assert_eq!(read(&[bytes]), Reading::Without, "{bytes:?}");
        }
        assert_eq!(read(&[&message(b'R', &[0, 0, 0, 0])]), Reading::More);
    }

    #[test]
    fn request_is_matched_with_what_was_announced() {
        let key = [0, 0, 1, 2, 9, 8, 7, 6];
        let packet = [&[0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e][..], &key].concat();
        assert_eq!(requested(&packet), Some(&key[..]));
        for other in [&packet[..12], &packet[..8], &[0, 0, 0, 16, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], b""] {
            assert_eq!(requested(other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_key(length in 8usize..=260, cuts in prop::collection::vec(0usize..400, 0..8)) {
            let key = vec![7; length];
            let bytes = session(&key);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), Reading::Key(key.into()));
        }

        #[test]
        fn any_bytes_come_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..64), pieces in 1usize..600) {
            let mut reader = Announced::default();
            for _ in 0..pieces {
                match reader.read(&bytes) {
                    Reading::More => prop_assert!(reader.seen < MOST),
                    Reading::Key(key) => { prop_assert!(KEYS.contains(&key.len())); break }
                    Reading::Without => break,
                }
            }
        }
    }
}
