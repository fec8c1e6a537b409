//! A ClientHello that offers all that egret does not speak, to learn what a server would choose.
//!
//! It is never followed by anything: the answer is read, and the connection closed. What is offered here is
//! broken or old; that a server chooses it is the explanation, not the repair.

use rustls::{CipherSuite, NamedGroup};

use crate::tls::hello::{self, u16_list};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Such as `TLSv1.1`.
    pub(crate) version: String,
    /// By its name of IANA's registry, or its number.
    pub(crate) suite: String,
    /// `None` where the server sends it encrypted.
    pub(crate) group: Option<String>,
    pub(crate) suite_is_spoken: bool,
    pub(crate) group_is_spoken: bool,
    pub(crate) version_is_spoken: bool,
}

pub(crate) enum Read {
    Answer(Answer),
    More,
    /// The bytes are no ServerHello.
    Nothing,
}

/// Suites of TLS 1.3, then of 1.2 with and without AEAD, then those of old: AES-CBC and 3DES with and
/// without forward secrecy, RC4, DHE.
const SUITES: [u16; 37] = [
    0x1302, 0x1303, 0x1301, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc02b, 0xc02f, 0xc0ad, 0xc0ac, 0xc024, 0xc028, 0xc00a,
    0xc014, 0xc023, 0xc027, 0xc009, 0xc013, 0x009f, 0x009e, 0xccaa, 0x006b, 0x0067, 0x0039, 0x0033, 0x009d, 0x009c,
    0x003d, 0x003c, 0x0035, 0x002f, 0xc012, 0xc008, 0x000a, 0x0005, 0x1305,
];

/// X25519, P-256, P-384, P-521, X448, brainpool of 256 to 512 bits, and finite fields.
const GROUPS: [u16; 10] = [0x001d, 0x0017, 0x0018, 0x0019, 0x001e, 0x001a, 0x001b, 0x001c, 0x0100, 0x0101];

/// The curves and EdDSA, RSA-PSS, PKCS #1 down to SHA-1.
const SIGNATURES: [u16; 16] = [
    0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0804, 0x0805, 0x0806, 0x0809, 0x080a, 0x080b, 0x0401, 0x0501, 0x0601,
    0x0203, 0x0201,
];

/// 1.3 down to 1.0.
const VERSIONS: [u16; 4] = [0x0304, 0x0303, 0x0302, 0x0301];

/// The ClientHello as one record. Its key share is empty: a server of TLS 1.3 answers with a HelloRetryRequest
/// that names its group in plaintext (RFC 8446 section 4.2.8).
pub(crate) fn hello(server_name: Option<&str>) -> Vec<u8> {
    let random = || std::array::from_fn(|_| fastrand::u8(..));
    let versions: Vec<u8> = VERSIONS.iter().flat_map(|version| version.to_be_bytes()).collect();
    let mut extensions: Vec<_> = server_name.map(hello::server_name).into_iter().collect();
    extensions.extend([
        (hello::SUPPORTED_GROUPS, u16_list(&GROUPS)),
        (hello::EC_POINT_FORMATS, vec![1, 0]),
        (hello::SIGNATURE_ALGORITHMS, u16_list(&SIGNATURES)),
        (hello::EXTENDED_MASTER_SECRET, Vec::new()),
        (hello::SUPPORTED_VERSIONS, [&[versions.len() as u8][..], &versions].concat()),
        (hello::PSK_KEY_EXCHANGE_MODES, vec![1, 1]),
        (hello::KEY_SHARE, vec![0, 0]),
        (hello::RENEGOTIATION_INFO, vec![0]),
    ]);
    let session: [u8; 32] = random();
    hello::record(&hello::client_hello(&random(), &session, &SUITES, &extensions))
}

/// Reads as much of a server's first flight as has arrived.
pub(crate) fn read(records: &[u8]) -> Read {
    let content = hello::read_records(records);
    if content.is_empty() && records.first().is_some_and(|kind| *kind != hello::HANDSHAKE) {
        return Read::Nothing;
    }
    let mut found = None;
    for (kind, body) in hello::read_messages(&content) {
        match (kind, &mut found) {
            (hello::SERVER_HELLO, _) => match server_hello(body) {
                // In TLS 1.3 all that follows is encrypted.
                Some(answer) if answer.version == "TLSv1.3" => return Read::Answer(answer),
                Some(answer) => found = Some(answer),
                None => return Read::Nothing,
            },
            // Its named_curve (RFC 8422 section 5.4).
            (hello::SERVER_KEY_EXCHANGE, Some(answer)) => {
                if let [3, high, low, ..] = body[..] {
                    set_group(answer, u16::from_be_bytes([high, low]));
                }
                return Read::Answer(answer.clone());
            }
            // Without a key exchange of its own.
            (hello::SERVER_HELLO_DONE, Some(answer)) => return Read::Answer(answer.clone()),
            _ => {}
        }
    }
    Read::More
}

/// For a flight that was cut off.
pub(crate) fn so_far(records: &[u8]) -> Option<Answer> {
    let content = hello::read_records(records);
    let messages = hello::read_messages(&content);
    messages.iter().find(|(kind, _)| *kind == hello::SERVER_HELLO).and_then(|(_, body)| server_hello(body))
}

fn server_hello(body: &[u8]) -> Option<Answer> {
    let hello::ServerHello { mut version, suite, extensions } = hello::ServerHello::read(body)?;
    let mut group = None;
    for (kind, content) in extensions.map_while(Result::ok) {
        match (kind, content) {
            (hello::SUPPORTED_VERSIONS, [high, low]) => version = u16::from_be_bytes([*high, *low]),
            (hello::KEY_SHARE, [high, low, ..]) => group = Some(u16::from_be_bytes([*high, *low])),
            _ => {}
        }
    }
    let mut answer = Answer {
        version: version_name(version),
        suite: CipherSuite::from(suite).as_str().map_or_else(|| format!("0x{suite:04x}"), str::to_owned),
        group: None,
        suite_is_spoken: SPOKEN_SUITES.contains(&suite),
        group_is_spoken: true,
        version_is_spoken: version == 0x0303 || version == 0x0304,
    };
    group.into_iter().for_each(|group| set_group(&mut answer, group));
    Some(answer)
}

/// Those of the provider (AEAD, and forward secret).
const SPOKEN_SUITES: [u16; 9] = [0x1301, 0x1302, 0x1303, 0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9];

fn set_group(answer: &mut Answer, group: u16) {
    answer.group = Some(NamedGroup::from(group).as_str().map_or_else(|| format!("0x{group:04x}"), str::to_owned));
    answer.group_is_spoken = [0x0017, 0x0018, 0x001d, 0x11ec].contains(&group);
}

pub(crate) fn version_name(version: u16) -> String {
    match version {
        0x0300 => "SSLv3".into(),
        0x0301 => "TLSv1.0".into(),
        0x0302 => "TLSv1.1".into(),
        0x0303 => "TLSv1.2".into(),
        0x0304 => "TLSv1.3".into(),
        other => format!("0x{other:04x}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_server_of_tls12_names_its_group_in_the_key_exchange() {
        let mut hello = vec![3, 3];
        hello.extend([7; 32]);
        hello.extend([0, 0xc0, 0x13, 0]);
        let key_exchange = hello::message(hello::SERVER_KEY_EXCHANGE, &[3, 0, 0x19, 1, 2]);
        let flight = [hello::message(hello::SERVER_HELLO, &hello), key_exchange].concat();
        // Cut into two records in the middle of a message.
        let (first, second) = flight.split_at(20);
        let bytes = [hello::record(first), hello::record(second)].concat();
        let Read::Answer(answer) = read(&bytes) else { panic!("it is complete") };
        assert_eq!(answer.version, "TLSv1.2");
        assert_eq!(answer.suite, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA");
        assert_eq!(answer.group.as_deref(), Some("secp521r1"));
        assert!(!answer.group_is_spoken && !answer.suite_is_spoken && answer.version_is_spoken);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = read(&hello::record(&hello::message(hello::SERVER_HELLO, &bytes)));
            let _ = so_far(&bytes);
        }
    }
}
