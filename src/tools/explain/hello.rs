//! A ClientHello, field by field: what otherwise takes a packet capture to see (RFC 8446 section 4.1.2).

use rustls::{CipherSuite, NamedGroup, SignatureScheme};

use crate::credentials::certificate::clean;
use crate::credentials::fingerprint::hex;
use crate::tools::explain::legacy_hello::version_name;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// As in the RFC.
    pub(crate) name: String,
    pub(crate) value: String,
}

/// The fields of a ClientHello in their order; empty if these records hold none.
pub(crate) fn fields(records: &[u8]) -> Vec<Field> {
    let mut fields = vec![Field::new("bytes", records.len())];
    let message = message(records);
    match body(Cursor(&message), &mut fields) {
        Some(()) => fields,
        None => Vec::new(),
    }
}

/// The handshake bytes of all records, without their headers.
fn message(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [22, 3, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        message.extend_from_slice(&rest[..length]);
        records = &rest[length..];
    }
    message
}

fn body(mut hello: Cursor<'_>, fields: &mut Vec<Field>) -> Option<()> {
    if hello.u8()? != 1 {
        return None;
    }
    hello.take(3)?;
    fields.push(Field::new("legacy_version", version_name(hello.u16()?)));
    fields.push(Field::new("random", hex(hello.take(32)?)));
    let session = hello.with_length8()?;
    fields.push(Field::new("legacy_session_id", format!("{} bytes", session.0.len())));
    let suites = hello.with_length16()?.all16();
    fields.push(Field::new("cipher_suites", names(suites, suite)));
    let compression = hello.with_length8()?;
    let none = if compression.0 == [0] { "null".into() } else { hex(compression.0) };
    fields.push(Field::new("compression_methods", none));
    let mut extensions = hello.with_length16()?;
    while let Some(kind) = extensions.u16() {
        let body = extensions.with_length16()?;
        let value = extension(kind, Cursor(body.0)).unwrap_or_else(|| format!("{} bytes", body.0.len()));
        fields.push(Field::new(extension_name(kind), value));
    }
    Some(())
}

/// `None` for extensions that are shown by their length only.
fn extension(kind: u16, mut body: Cursor<'_>) -> Option<String> {
    Some(match kind {
        0 => {
            let mut entries = body.with_length16()?;
            entries.u8()?;
            clean(&String::from_utf8_lossy(entries.with_length16()?.0))
        }
        5 => "OCSP".into(),
        10 => names(body.with_length16()?.all16(), group),
        11 => "uncompressed".into(),
        13 | 50 => names(body.with_length16()?.all16(), signature),
        16 => {
            let mut list = body.with_length16()?;
            let mut found = Vec::new();
            while let Some(protocol) = list.with_length8() {
                found.push(clean(&String::from_utf8_lossy(protocol.0)));
            }
            found.join(", ")
        }
        23 | 0xff01 => "present".into(),
        35 if body.0.is_empty() => "none held".into(),
        35 => format!("a ticket of {} bytes", body.0.len()),
        41 => "a session is offered".into(),
        43 => names(body.with_length8()?.all16(), version_name),
        45 => "psk_dhe_ke".into(),
        51 => key_shares(body.with_length16()?),
        _ => return None,
    })
}

fn key_shares(mut list: Cursor<'_>) -> String {
    let mut found = Vec::new();
    while let Some(id) = list.u16() {
        let Some(key) = list.with_length16() else { break };
        found.push(format!("{} ({} bytes)", group(id), key.0.len()));
    }
    found.join(", ")
}

fn extension_name(kind: u16) -> String {
    let name = match kind {
        0 => "server_name",
        5 => "status_request",
        10 => "supported_groups",
        11 => "ec_point_formats",
        13 => "signature_algorithms",
        16 => "application_layer_protocol_negotiation",
        21 => "padding",
        22 => "encrypt_then_mac",
        23 => "extended_master_secret",
        35 => "session_ticket",
        41 => "pre_shared_key",
        42 => "early_data",
        43 => "supported_versions",
        44 => "cookie",
        45 => "psk_key_exchange_modes",
        49 => "post_handshake_auth",
        50 => "signature_algorithms_cert",
        51 => "key_share",
        0xfe0d => "encrypted_client_hello",
        0xff01 => "renegotiation_info",
        other => return format!("extension {other}"),
    };
    name.into()
}

fn names(values: Vec<u16>, name: impl Fn(u16) -> String) -> String {
    values.into_iter().map(name).collect::<Vec<_>>().join(", ")
}

fn suite(id: u16) -> String {
    CipherSuite::from(id).as_str().map_or_else(|| format!("0x{id:04x}"), str::to_owned)
}

fn group(id: u16) -> String {
    NamedGroup::from(id).as_str().map_or_else(|| format!("0x{id:04x}"), str::to_owned)
}

fn signature(id: u16) -> String {
    SignatureScheme::from(id).as_str().map_or_else(|| format!("0x{id:04x}"), str::to_owned)
}

impl Field {
    fn new(name: impl Into<String>, value: impl ToString) -> Self {
        Self { name: name.into(), value: value.to_string() }
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn with_length8(&mut self) -> Option<Self> {
        let length = usize::from(self.u8()?);
        self.take(length).map(Self)
    }

    fn with_length16(&mut self) -> Option<Self> {
        let length = usize::from(self.u16()?);
        self.take(length).map(Self)
    }

    fn all16(mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.u16()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tools::explain::legacy_hello;

    #[test]
    fn every_field_of_a_hello_is_named() {
        let fields = fields(&legacy_hello::hello(Some("server.example.com")));
        let value = |name: &str| fields.iter().find(|field| field.name == name).map(|field| field.value.as_str());
        assert_eq!(value("server_name"), Some("server.example.com"));
        assert_eq!(value("supported_versions"), Some("TLSv1.3, TLSv1.2, TLSv1.1, TLSv1.0"));
        assert_eq!(value("legacy_session_id"), Some("32 bytes"));
        assert!(value("supported_groups").is_some_and(|groups| groups.starts_with("X25519, secp256r1")));
        assert!(value("signature_algorithms").is_some_and(|all| all.contains("RSA_PSS_SHA256")));
        assert!(!fields.iter().any(|field| field.name.starts_with("extension ")), "{fields:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..300usize) {
            let _ = fields(&bytes);
            let hello = legacy_hello::hello(Some("a.example.com"));
            let _ = fields(&hello[..cut.min(hello.len())]);
            let framed = [&[22, 3, 1, 1, 44, 1, 0, 1, 40][..], &bytes].concat();
            let _ = fields(&framed);
        }
    }
}
