//! A ClientHello that offers all that egret does not speak, to learn what a server would choose.
//!
//! It is never followed by anything: the answer is read, and the connection closed. What is offered here is
//! broken or old; that a server chooses it is the explanation, not the repair.

use rustls::{CipherSuite, NamedGroup};

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
    let mut body = vec![3, 3];
    body.extend((0..32).map(|_| fastrand::u8(..)));
    body.push(32);
    body.extend((0..32).map(|_| fastrand::u8(..)));
    body.extend(list16(&SUITES));
    body.extend([1, 0]);
    let mut extensions = Vec::new();
    if let Some(name) = server_name {
        let entry = with_length16(&[&[0][..], &with_length16(name.as_bytes())].concat());
        extension(&mut extensions, 0, &entry);
    }
    extension(&mut extensions, 10, &list16(&GROUPS));
    extension(&mut extensions, 11, &[1, 0]);
    extension(&mut extensions, 13, &list16(&SIGNATURES));
    extension(&mut extensions, 23, &[]);
    let versions: Vec<u8> = VERSIONS.iter().flat_map(|version| version.to_be_bytes()).collect();
    extension(&mut extensions, 43, &[&[versions.len() as u8][..], &versions].concat());
    extension(&mut extensions, 45, &[1, 1]);
    extension(&mut extensions, 51, &[0, 0]);
    extension(&mut extensions, 0xff01, &[0]);
    body.extend(with_length16(&extensions));
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &with_length16(&message)].concat()
}

fn extension(into: &mut Vec<u8>, kind: u16, body: &[u8]) {
    into.extend(kind.to_be_bytes());
    into.extend(with_length16(body));
}

fn list16(values: &[u16]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
    with_length16(&bytes)
}

/// Lengths here stay below some hundred bytes.
fn with_length16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// Reads as much of a server's first flight as has arrived.
pub(crate) fn read(records: &[u8]) -> Read {
    let Some(messages) = handshake_messages(records) else { return Read::Nothing };
    let mut found = None;
    for (kind, body) in &messages {
        match (kind, &mut found) {
            (2, _) => match server_hello(body) {
                // In TLS 1.3 all that follows is encrypted.
                Some(answer) if answer.version == "TLSv1.3" => return Read::Answer(answer),
                Some(answer) => found = Some(answer),
                None => return Read::Nothing,
            },
            // ServerKeyExchange: named_curve (RFC 8422 section 5.4).
            (12, Some(answer)) => {
                if let [3, high, low, ..] = body[..] {
                    set_group(answer, u16::from_be_bytes([high, low]));
                }
                return Read::Answer(answer.clone());
            }
            // ServerHelloDone, without a key exchange of its own.
            (14, Some(answer)) => return Read::Answer(answer.clone()),
            _ => {}
        }
    }
    Read::More
}

/// For a flight that was cut off.
pub(crate) fn so_far(records: &[u8]) -> Option<Answer> {
    let messages = handshake_messages(records)?;
    messages.iter().find(|(kind, _)| *kind == 2).and_then(|(_, body)| server_hello(body))
}

/// The handshake messages in these records; `None` if the first is of another kind.
fn handshake_messages(mut records: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut stream = Vec::new();
    while let [kind, 3, _, high, low, rest @ ..] = records {
        if *kind != 22 {
            break;
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let body = rest.get(..length.min(rest.len()))?;
        stream.extend_from_slice(body);
        records = rest.get(length..).unwrap_or_default();
    }
    if stream.is_empty() && records.first().is_some_and(|kind| *kind != 22) {
        return None;
    }
    let mut messages = Vec::new();
    let mut at = &stream[..];
    while let [kind, a, b, c, rest @ ..] = at {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(body) = rest.get(..length) else { break };
        messages.push((*kind, body.to_vec()));
        at = &rest[length..];
    }
    Some(messages)
}

fn server_hello(body: &[u8]) -> Option<Answer> {
    let mut version = u16::from_be_bytes([*body.first()?, *body.get(1)?]);
    let session = usize::from(*body.get(34)?);
    let rest = body.get(35 + session..)?;
    let [high, low, _compression, extensions @ ..] = rest else { return None };
    let suite = u16::from_be_bytes([*high, *low]);
    let mut group = None;
    for (kind, body) in extensions_of(extensions.get(2..).unwrap_or_default()) {
        match (kind, body) {
            (43, [high, low]) => version = u16::from_be_bytes([*high, *low]),
            (51, [high, low, ..]) => group = Some(u16::from_be_bytes([*high, *low])),
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

fn extensions_of(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let [a, b, c, d, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        let Some(body) = rest.get(..length) else { break };
        found.push((u16::from_be_bytes([*a, *b]), body));
        bytes = &rest[length..];
    }
    found
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
        let message = |kind: u8, body: &[u8]| [&[kind, 0, 0, body.len() as u8][..], body].concat();
        let flight = [message(2, &hello), message(12, &[3, 0, 0x19, 1, 2])].concat();
        // Cut into two records in the middle of a message.
        let (first, second) = flight.split_at(20);
        let record = |body: &[u8]| [&[22, 3, 3, 0, body.len() as u8][..], body].concat();
        let bytes = [record(first), record(second)].concat();
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
            let _ = read(&[&[22, 3, 3][..], &with_length16(&[&[2, 0, 0, bytes.len() as u8][..], &bytes].concat())].concat());
            let _ = so_far(&bytes);
        }
    }
}
