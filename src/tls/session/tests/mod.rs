use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::crypto::aws_lc_rs::cipher_suite as suites;
use rustls::server::ServerConnectionData;

use self::handshaken::{Handshaken, Tickets};
use super::*;
use crate::tls::record::{MAX_PLAINTEXT, blocks};

mod handshaken;
mod kernel;

const ALL: [SupportedCipherSuite; 6] = [
    suites::TLS13_AES_128_GCM_SHA256,
    suites::TLS13_AES_256_GCM_SHA384,
    suites::TLS13_CHACHA20_POLY1305_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

struct Server {
    sealer: Sealer,
    opener: Opener,
    kernel: KernelConnection<ServerConnectionData>,
}

impl Server {
    fn record(&mut self, kind: ContentType, body: &[u8]) -> Vec<u8> {
        let layout = self.sealer.layout();
        let mut slot = vec![0; layout.front() + body.len() + layout.back()];
        slot[layout.front()..][..body.len()].copy_from_slice(body);
        self.sealer.seal(kind, &mut slot, body.len()).unwrap();
        slot
    }

    fn data(&mut self, body: &[u8]) -> Vec<u8> {
        self.record(ContentType::ApplicationData, body)
    }

    fn key_update(&mut self, request: u8) -> Vec<u8> {
        let record = self.record(ContentType::Handshake, &[24, 0, 0, 1, request]);
        let (sequence, secrets) = self.kernel.update_tx_secret().unwrap();
        self.sealer = Sealer::new(true, &secrets, sequence, u64::MAX).unwrap();
        record
    }

    fn process_key_update(&mut self) {
        let (sequence, secrets) = self.kernel.update_rx_secret().unwrap();
        self.opener = Opener::new(true, &secrets, sequence).unwrap();
    }

    fn open(&mut self, record: &[u8]) -> (ContentType, Vec<u8>) {
        let mut record = record.to_vec();
        assert_eq!(self.opener.frame(&record), Ok(Frame::Whole(record.len())));
        let (kind, plain) = self.opener.open(&mut record).unwrap();
        (kind, record[plain].to_vec())
    }
}

/// A client's session and its server, and what the server sent right after the handshake.
fn pair(suite: SupportedCipherSuite) -> (Session, Server, Vec<u8>, Arc<Tickets>) {
    pair_for(None, suite)
}

/// A TLS 1.2 session that may send `blocks` and is warned of at half of them; it has no server.
pub(crate) fn limited_to(blocks: u64) -> Session {
    let (mut session, ..) = pair(ALL[3]);
    session.sealer.limit_to(blocks);
    session.warn_at = blocks / 2;
    session
}

/// The same, with what a kernel may have of the session.
fn pair_for(offers: Option<&Offers>, suite: SupportedCipherSuite) -> (Session, Server, Vec<u8>, Arc<Tickets>) {
    let Handshaken { client, server, down, tickets } = Handshaken::of(suite);
    let (secrets, kernel) = client.dangerous_into_kernel_connection().unwrap();
    let session = Session::new(secrets, kernel, offers).unwrap();
    let (secrets, kernel) = server.dangerous_into_kernel_connection().unwrap();
    let tls13 = suite.tls13().is_some();
    let sealer = Sealer::new(tls13, &secrets.tx.1, secrets.tx.0, u64::MAX).unwrap();
    let opener = Opener::new(tls13, &secrets.rx.1, secrets.rx.0).unwrap();
    (session, Server { sealer, opener, kernel }, down, tickets)
}

/// A TLS 1.3 pair whose tickets have been taken.
fn quiet_pair() -> (Session, Server, Arc<Tickets>) {
    let (mut session, server, mut down, tickets) = pair(ALL[0]);
    assert_eq!(open_all(&mut session, &mut down), Ok((Vec::new(), false)));
    (session, server, tickets)
}

/// All data of whole records, and whether close_notify came.
fn open_all(session: &mut Session, mut bytes: &mut [u8]) -> Result<(Vec<u8>, bool), Error> {
    let mut data = Vec::new();
    loop {
        let wire = match session.open(bytes)? {
            Opened::Partial(_) => return Ok((data, false)),
            Opened::Closed => return Ok((data, true)),
            Opened::Quiet { wire } => wire,
            Opened::Data { wire, plain } => {
                data.extend_from_slice(&bytes[plain]);
                wire
            }
        };
        bytes = &mut bytes[wire..];
    }
}

fn sealed(session: &mut Session, data: &[u8]) -> Vec<u8> {
    let layout = session.layout();
    let mut slot = vec![0; layout.front() + data.len() + layout.back()];
    slot[layout.front()..][..data.len()].copy_from_slice(data);
    session.seal(&mut slot, data.len()).unwrap();
    slot
}

fn control(session: &mut Session) -> Vec<u8> {
    let mut out = [0; CONTROL];
    let n = session.control(&mut out, 1).unwrap();
    out[..n].to_vec()
}

fn fault(session: &mut Session, mut bytes: Vec<u8>) -> AlertDescription {
    open_all(session, &mut bytes).unwrap_err().alert().unwrap()
}

#[test]
fn every_suite_carries_data_both_ways() {
    for suite in ALL {
        let (mut session, mut server, mut down, _) = pair(suite);
        let large = vec![5; MAX_PLAINTEXT];
        for data in [&b"hello"[..], b"", &large] {
            down.extend(server.data(data));
            assert_eq!(server.open(&sealed(&mut session, data)), (ContentType::ApplicationData, data.to_vec()));
        }
        down.extend(server.record(ContentType::Alert, &[1, 0]));
        assert_eq!(open_all(&mut session, &mut down), Ok(([b"hello", &large[..]].concat(), true)), "{suite:?}");
    }
}

#[test]
fn tickets_reach_the_store() {
    let (_, _, tickets) = quiet_pair();
    assert_eq!(tickets.0.load(Ordering::Relaxed), 2);
}

#[test]
fn tickets_in_pieces_and_together_reach_the_store() {
    let (mut session, mut server, tickets) = quiet_pair();
    // lifetime, age_add, nonce, ticket, extensions
    let body = [&[0, 0, 1, 0, 9, 9, 9, 9, 1, 7, 0, 3][..], b"abc", &[0, 0]].concat();
    let ticket = [&[4, 0, 0, body.len() as u8][..], &body].concat();
    let two = [&ticket[..], &ticket[..5]].concat();
    let mut down = server.record(ContentType::Handshake, &two);
    down.extend(server.record(ContentType::Handshake, &ticket[5..6]));
    down.extend(server.record(ContentType::Handshake, &ticket[6..]));
    down.extend(server.data(b"after"));
    assert_eq!(open_all(&mut session, &mut down), Ok((b"after".to_vec(), false)));
    assert_eq!(tickets.0.load(Ordering::Relaxed), 4);
}

#[test]
fn a_bad_ticket_is_a_decode_error() {
    let (mut session, mut server, _) = quiet_pair();
    let record = server.record(ContentType::Handshake, &[4, 0, 0, 2, 1, 1]);
    assert_eq!(fault(&mut session, record), AlertDescription::DecodeError);
}

#[test]
fn data_goes_on_after_the_servers_key_updates() {
    let (mut session, mut server, _) = quiet_pair();
    let mut down = server.data(b"1");
    for data in [b"2", b"3"] {
        down.extend(server.key_update(0));
        down.extend(server.data(data));
    }
    assert_eq!(open_all(&mut session, &mut down), Ok((b"123".to_vec(), false)));
    assert!(!session.owes_reply());
}

#[test]
fn requested_key_updates_are_answered_once_and_before_more_data() {
    let (mut session, mut server, _) = quiet_pair();
    let mut down = [server.key_update(1), server.key_update(1)].concat();
    assert_eq!(open_all(&mut session, &mut down), Ok((Vec::new(), false)));
    assert!(session.owes_reply());
    let answer = control(&mut session);
    assert_eq!(server.open(&answer), (ContentType::Handshake, vec![24, 0, 0, 1, 0]));
    server.process_key_update();
    assert_eq!(server.open(&sealed(&mut session, b"new key")).1, b"new key");
    assert!(!session.owes_reply() && control(&mut session).is_empty());
}

#[test]
fn a_key_that_nears_its_limit_is_changed_in_time() {
    let (mut session, mut server, _) = quiet_pair();
    let (sequence, secrets) = server.kernel.update_rx_secret().unwrap();
    server.opener = Opener::new(true, &secrets, sequence).unwrap();
    let Some(kernel) = session.kernel.as_mut() else { panic!() };
    let (sequence, secrets) = kernel.update_tx_secret().unwrap();
    // Good for a full record and control records around it, until two small ones were made.
    let limit = blocks(MAX_PLAINTEXT) + 3 * blocks(1) + 1;
    session.sealer = Sealer::new(true, &secrets, sequence, limit).unwrap();
    assert!(control(&mut session).is_empty());
    server.open(&sealed(&mut session, b"1"));
    assert!(control(&mut session).is_empty());
    server.open(&sealed(&mut session, b"2"));
    assert_eq!(server.open(&control(&mut session)).1, [24, 0, 0, 1, 0]);
    server.process_key_update();
    assert_eq!(server.open(&sealed(&mut session, b"3")).1, b"3");
}

#[test]
fn a_key_that_cannot_be_changed_is_warned_of_once_and_ends_before_data_is_read() {
    for suite in [ALL[3], ALL[4]] {
        let (mut session, mut server, ..) = pair(suite);
        let full = blocks(MAX_PLAINTEXT);
        session.sealer.limit_to(4 * full + 4 * blocks(5));
        session.warn_at = 2 * full;
        assert!(!session.nears_limit() && control(&mut session).is_empty());
        while session.sealer.left() >= session.warn_at {
            server.open(&sealed(&mut session, &[7; MAX_PLAINTEXT]));
        }
        assert!(session.nears_limit() && !session.nears_limit());
        assert!(control(&mut session).is_empty(), "one more is good");
        server.open(&sealed(&mut session, &[7; MAX_PLAINTEXT]));
        assert_eq!(session.control(&mut [0; CONTROL], 1), Err(Exhausted));
        // What the client has said can still be ended.
        let mut out = [0; CONTROL];
        let length = session.alert(&mut out, AlertDescription::CloseNotify).unwrap();
        assert_eq!(server.open(&out[..length]), (ContentType::Alert, vec![1, 0]));
    }
}

/// Only the suites with a bound are warned of, and only where it is final.
#[test]
fn keys_without_a_final_limit_are_not_warned_of() {
    let warned = ALL.map(|suite| pair(suite).0.warn_at > 0);
    assert_eq!(warned, [false, false, false, true, true, true]);
    // 2^34 blocks with AES-GCM; ChaCha20-Poly1305 has more than any stream needs.
    assert_eq!(ALL.map(|suite| confidentiality_limit(suite) == 1 << 34), [true, true, false, true, true, false]);
    assert_eq!(confidentiality_limit(ALL[5]), u64::MAX);
}

#[test]
fn what_breaks_the_protocol_gets_its_alert() {
    let handshake = ContentType::Handshake;
    let cases: [(&str, ContentType, &[u8], AlertDescription); 9] = [
        ("empty handshake record", handshake, &[], AlertDescription::UnexpectedMessage),
        ("key update before the end of a record", handshake, &[24, 0, 0, 1, 0, 4], AlertDescription::UnexpectedMessage),
        ("key update that asks nonsense", handshake, &[24, 0, 0, 1, 2], AlertDescription::DecodeError),
        ("certificate request nobody allowed", handshake, &[13, 0, 0, 0], AlertDescription::UnexpectedMessage),
        ("hello request in TLS 1.3", handshake, &[0, 0, 0, 0], AlertDescription::UnexpectedMessage),
        ("a message without end", handshake, &[4, 1, 0, 0], AlertDescription::DecodeError),
        ("short alert", ContentType::Alert, &[1], AlertDescription::DecodeError),
        ("alert of no level", ContentType::Alert, &[3, 0], AlertDescription::DecodeError),
        ("change of cipher", ContentType::ChangeCipherSpec, &[1], AlertDescription::UnexpectedMessage),
    ];
    for (name, kind, body, expected) in cases {
        let (mut session, mut server, _) = quiet_pair();
        let record = server.record(kind, body);
        assert_eq!(fault(&mut session, record), expected, "{name}");
    }
}

#[test]
fn nothing_comes_between_the_parts_of_a_message() {
    let (mut session, mut server, _) = quiet_pair();
    let mut down = server.record(ContentType::Handshake, &[4, 0]);
    down.extend(server.data(b"x"));
    assert_eq!(fault(&mut session, down), AlertDescription::UnexpectedMessage);
}

#[test]
fn what_came_before_a_damaged_record_is_sound() {
    let (mut session, mut server, _) = quiet_pair();
    let mut good = server.data(b"good");
    let mut bad = server.data(b"bad");
    bad[7] ^= 1;
    assert_eq!(open_all(&mut session, &mut good), Ok((b"good".to_vec(), false)));
    assert_eq!(fault(&mut session, bad), AlertDescription::BadRecordMac);
}

#[test]
fn alerts_of_tls_1_3_are_fatal_whatever_their_level() {
    for level in [1, 2] {
        let (mut session, mut server, _) = quiet_pair();
        let mut record = server.record(ContentType::Alert, &[level, 116]);
        let error = open_all(&mut session, &mut record).unwrap_err();
        assert_eq!((&error, error.alert()), (&Error::Alert(AlertDescription::CertificateRequired), None));
    }
}

#[test]
fn warnings_of_tls_1_2_are_borne_but_not_without_end() {
    let (mut session, mut server, ..) = pair(ALL[3]);
    let mut warnings = |n| (0..n).flat_map(|_| server.record(ContentType::Alert, &[1, 110])).collect::<Vec<u8>>();
    assert_eq!(open_all(&mut session, &mut warnings(MAX_NON_DATA_RECORDS)), Ok((Vec::new(), false)));
    assert_eq!(fault(&mut session, warnings(1)), AlertDescription::UnexpectedMessage);
}

#[test]
fn renegotiation_is_declined() {
    let (mut session, mut server, ..) = pair(ALL[3]);
    let mut record = server.record(ContentType::Handshake, &[0, 0, 0, 0]);
    assert_eq!(open_all(&mut session, &mut record), Ok((Vec::new(), false)));
    assert_eq!(server.open(&control(&mut session)), (ContentType::Alert, vec![1, 100]));
    assert_eq!(server.open(&sealed(&mut session, b"goes on")).1, b"goes on");
}

#[test]
fn nothing_is_opened_after_close_notify() {
    let (mut session, mut server, _) = quiet_pair();
    let mut down = server.record(ContentType::Alert, &[1, 0]);
    down.extend(server.data(b"junk"));
    assert_eq!(open_all(&mut session, &mut down), Ok((Vec::new(), true)));
    assert_eq!(session.open(&mut server.data(b"junk")), Ok(Opened::Closed));
}
