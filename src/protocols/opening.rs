//! Clients that speak first and are not answered before TLS: their first bytes show whether they speak the protocol.

use bytes::{Bytes, BytesMut};

use super::exchange::{ClientRefusal, Exchange, Step};

/// Bytes read at once: a first request has some hundred, and an answer in place of the server's refers to it.
const ROOM: usize = 1024;

/// How a handshake record of TLS begins (RFC 8446 section 5.1).
const TLS_RECORD: [u8; 2] = [0x16, 0x03];

/// The side towards such a client.
pub(super) struct Opening {
    /// Whether the protocol begins so. `None`: more bytes are needed.
    begins: fn(&[u8]) -> Option<bool>,
}

impl Opening {
    pub(super) fn new(begins: fn(&[u8]) -> Option<bool>) -> Self {
        Self { begins }
    }
}

impl Exchange for Opening {
    type Outcome = Bytes;
    type Refusal = ClientRefusal;

    fn step(&mut self, input: &mut BytesMut) -> Step<Bytes, ClientRefusal> {
        match (&input[..], (self.begins)(input)) {
            ([0x16], _) => Step::Read(ROOM - 1),
            (bytes, _) if bytes.starts_with(&TLS_RECORD) => Step::Refuse(ClientRefusal::SpeaksTls),
            (_, Some(true)) => Step::Done(input.split().freeze()),
            (bytes, None) if bytes.len() < ROOM => Step::Read(ROOM - bytes.len()),
            (_, Some(false) | None) => {
                Step::Refuse(ClientRefusal::NotTheProtocol("its first bytes are not of the protocol"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::Upgrade;

    /// Plays these pieces against the client's side of a protocol: the end, `None` while it waits.
    fn end(word: &str, pieces: &[&[u8]]) -> Option<Result<Vec<u8>, ClientRefusal>> {
        let protocol = Upgrade::of(word).expect("a protocol");
        let mut side = (protocol.client.as_ref().expect("clients speak first").side)();
        let mut input = BytesMut::new();
        let mut pieces = pieces.iter();
        loop {
            match side.step(&mut input) {
                Step::Read(most) => {
                    let piece = pieces.next()?;
                    assert!(most >= 1 && input.len() + most <= ROOM, "{most}");
                    input.extend_from_slice(piece);
                }
                Step::Done(bytes) => return Some(Ok([&bytes[..], &input].concat())),
                Step::Refuse(refusal) => return Some(Err(refusal)),
                step => panic!("{step:?}"),
            }
        }
    }

    /// Of one byte each, and whole.
    fn both(word: &str, bytes: &[u8]) -> Option<Result<Vec<u8>, ClientRefusal>> {
        let whole = end(word, &[bytes]);
        let singly = end(word, &bytes.chunks(1).collect::<Vec<_>>());
        let is_same = match (&whole, &singly) {
            // The rest stays in the socket.
            (Some(Ok(whole)), Some(Ok(singly))) => whole.starts_with(singly),
            (whole, singly) => whole == singly,
        };
        assert!(is_same, "{word} {bytes:?}: {whole:?}, byte by byte {singly:?}");
        whole
    }

    #[test]
    fn first_requests_are_forwarded_with_every_byte() {
        for (word, bytes) in [
            ("ldap", &b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0"[..]),
            ("ldap", b"\x30\x84\0\0\0\x0c\x02\x01\x07\x60\x07\x02\x01\x03\x04\0\x80\0"),
            ("ldap", b"\x30\x81\x0c\x02\x01\x07\x60"),
            ("xmpp", b"<?xml version='1.0'?><stream:stream to='example.com'>"),
            ("xmpp", b" \r\n<stream:stream>"),
            ("xmpp-server", b"<stream:stream xmlns='jabber:server'>"),
        ] {
            assert_eq!(both(word, bytes), Some(Ok(bytes.to_vec())), "{word}");
        }
    }

    #[test]
    fn what_is_no_first_request_is_refused_and_tls_as_that() {
        for word in ["ldap", "xmpp", "xmpp-server"] {
            for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"\0\0\0\x08\x04\xd2\x16\x2f", b"0-200", b"\x16\x02", &[0xff; 9]]
            {
                let refusal = both(word, bytes);
                assert!(
                    matches!(refusal, Some(Err(ClientRefusal::NotTheProtocol(_)))),
                    "{word} {bytes:?}: {refusal:?}"
                );
            }
            assert_eq!(both(word, b"\x16\x03\x01\x02\0\x01"), Some(Err(ClientRefusal::SpeaksTls)), "{word}");
            assert_eq!(both(word, b""), None);
        }
        let spaces = [b' '; ROOM];
        assert!(matches!(both("xmpp", &spaces), Some(Err(_))), "not for ever");
        for waiting in [&b"\x30"[..], b"\x30\x84\0\0\0\x0c", b"\x16"] {
            assert_eq!(both("ldap", waiting), None, "{waiting:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_the_same_way_however_they_are_split(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            for word in ["ldap", "xmpp"] {
                both(word, &bytes);
            }
        }
    }
}
