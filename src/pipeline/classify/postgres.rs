//! PostgreSQL's first packets (protocol 3.0, "Start-up" and "SSL Session Encryption").
//!
//! Eight bytes tell all: a length and a code. SSLRequest and GSSENCRequest are nothing but these eight, and
//! the client waits for one byte of answer. Anything else goes to the server as it came.

use bytes::{Buf, Bytes, BytesMut};

use super::{Class, Machine, Protocol, Refusal, Step};

/// A client's start, packet by packet.
#[derive(Clone, Debug, Default)]
pub struct Postgres {
    /// What has arrived of the packet's head.
    head: [u8; HEAD],
    have: usize,
    asked_ssl: bool,
    asked_gss: bool,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Startup {
    /// A session.
    Session,
    /// The end of a query of another session.
    Cancel,
}

/// Length and code.
const HEAD: usize = 8;

/// Codes of requests have 1234 where a version has its major number.
const SSL_REQUEST: u32 = (1234 << 16) | 5679;
const GSSENC_REQUEST: u32 = (1234 << 16) | 5680;
const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;

/// Servers take no more (MAX_STARTUP_PACKET_LENGTH in PostgreSQL's pqcomm.h, and the length itself).
const MAX_STARTUP: u32 = 10_000 + 4;

/// A CancelRequest has a process id and a key of 4 to 256 bytes (variable since protocol 3.2).
const CANCEL_LENGTHS: std::ops::RangeInclusive<u32> = 16..=12 + 256;

/// Majors that were ever in use; a server refuses the old ones in words its client understands.
const MAJORS: std::ops::RangeInclusive<u32> = 1..=3;

impl Machine for Postgres {
    /// Goes on with what has arrived. Takes from `input` what belongs to the head of a packet and leaves
    /// the rest. How the bytes were split makes no difference to the answers.
    fn step(&mut self, input: &mut BytesMut) -> Step {
        while self.have < HEAD {
            if input.is_empty() {
                return Step::More(HEAD - self.have);
            }
            self.head[self.have] = input.get_u8();
            self.have += 1;
            if let Some(refusal) = impossible(&self.head[..self.have]) {
                return Step::No(refusal);
            }
        }
        self.whole_head()
    }
}

impl Postgres {
    fn whole_head(&mut self) -> Step {
        let [a, b, c, d, e, f, g, h] = self.head;
        let (length, code) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        match code {
            SSL_REQUEST | GSSENC_REQUEST if length != HEAD as u32 => no("an encryption request of a wrong length"),
            SSL_REQUEST if self.asked_ssl => no("a second SSLRequest"),
            GSSENC_REQUEST if self.asked_gss => no("a second GSSENCRequest"),
            SSL_REQUEST | GSSENC_REQUEST => {
                self.have = 0;
                self.asked_ssl |= code == SSL_REQUEST;
                self.asked_gss |= code == GSSENC_REQUEST;
                Step::Answer(b"N")
            }
            CANCEL_REQUEST if CANCEL_LENGTHS.contains(&length) => self.yes(Startup::Cancel),
            CANCEL_REQUEST => no("a CancelRequest of a wrong length"),
            version if MAJORS.contains(&(version >> 16)) => self.yes(Startup::Session),
            _ => no("an unknown protocol version"),
        }
    }

    fn yes(&self, startup: Startup) -> Step {
        Step::Yes(Class { protocol: Protocol::Postgres(startup), early: Bytes::copy_from_slice(&self.head) })
    }
}

fn no(why: &'static str) -> Step {
    Step::No(Refusal::NotPostgres(why))
}

/// Looks at a head as soon as it can, so that a client that will never send eight bytes is told early.
fn impossible(head: &[u8]) -> Option<Refusal> {
    match *head {
        // A TLS record of type handshake: its first byte alone is no length, but names TLS only with its second.
        [0x16] | [0] | [0, 0] | [0, 0, _] => None,
        [0x16, 0x03, ..] => Some(Refusal::SpeaksTls),
        [0, 0, c, d, ..] => {
            let length = u32::from_be_bytes([0, 0, c, d]);
            let possible = (HEAD as u32..=MAX_STARTUP).contains(&length);
            (!possible).then_some(Refusal::NotPostgres("a packet length that servers refuse"))
        }
        _ => Some(Refusal::NotPostgres("the first bytes are no packet length")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(length: u32, code: u32) -> Vec<u8> {
        [length.to_be_bytes(), code.to_be_bytes()].concat()
    }

    /// Every answer to bytes that arrive in these pieces, and what was left untouched.
    fn answers(pieces: &[&[u8]]) -> (Vec<Step>, Vec<u8>) {
        let (mut machine, mut steps, mut input) = (Postgres::default(), Vec::new(), BytesMut::new());
        let mut pieces = pieces.iter();
        loop {
            match machine.step(&mut input) {
                Step::More(_) => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return (steps, input.to_vec()),
                },
                answer @ Step::Answer(_) => steps.push(answer),
                end => {
                    steps.push(end);
                    pieces.for_each(|piece| input.extend_from_slice(piece));
                    return (steps, input.to_vec());
                }
            }
        }
    }

    #[test]
    fn encryption_is_declined_and_the_session_passed_on() {
        let session = [packet(40, 3 << 16), b"user\0app\0".to_vec()].concat();
        let all = [packet(8, GSSENC_REQUEST), packet(8, SSL_REQUEST), session].concat();
        let (steps, left) = answers(&[&all]);
        let early = Bytes::from(packet(40, 3 << 16));
        let class = Class { protocol: Protocol::Postgres(Startup::Session), early };
        assert_eq!(steps, [Step::Answer(b"N"), Step::Answer(b"N"), Step::Yes(class)]);
        assert_eq!(left, b"user\0app\0");
    }

    #[test]
    fn cancel_request_is_passed_on() {
        let (steps, _) = answers(&[&packet(16, CANCEL_REQUEST)]);
        let [Step::Yes(Class { protocol: Protocol::Postgres(Startup::Cancel), .. })] = &steps[..] else {
            panic!("{steps:?}")
        };
    }

    #[test]
    fn what_is_no_start_of_a_session_is_refused() {
        let twice = [packet(8, SSL_REQUEST), packet(8, SSL_REQUEST)].concat();
        assert!(matches!(answers(&[&twice]).0[..], [Step::Answer(_), Step::No(Refusal::NotPostgres(_))]));
        for bad in [&b"GET / HTTP/1.1\r\n"[..], &packet(7, 3 << 16), &packet(20_000, 3 << 16), &packet(8, 9 << 16)] {
            assert!(matches!(answers(&[bad]).0[..], [Step::No(Refusal::NotPostgres(_))]), "{bad:?}");
        }
        assert_eq!(answers(&[b"\x16\x03"]).0, [Step::No(Refusal::SpeaksTls)]);
    }

    /// Bytes that get somewhere: packets with likely codes, cut and followed by noise.
    fn plausible() -> impl Strategy<Value = Vec<u8>> {
        let code = prop_oneof![
            Just(SSL_REQUEST),
            Just(GSSENC_REQUEST),
            Just(CANCEL_REQUEST),
            Just(3 << 16),
            Just((3 << 16) | 2),
            any::<u32>()
        ];
        let length = prop_oneof![4 => Just(8u32), 2 => 0u32..300, 1 => any::<u32>()];
        let packets = prop::collection::vec((length, code).prop_map(|(length, code)| packet(length, code)), 0..4);
        (packets, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(packets, noise)| [packets.concat(), noise].concat())
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_answers(bytes in plausible(), cuts in prop::collection::vec(0usize..60, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(answers(&pieces), answers(&[&bytes[..]]));
        }

        #[test]
        fn any_bytes_end_within_two_answers(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(answers(&[&bytes]).0.len() <= 3);
        }
    }
}
