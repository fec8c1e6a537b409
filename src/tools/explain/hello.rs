//! A ClientHello, field by field: what otherwise takes a packet capture to see (RFC 8446 section 4.1.2).

use rustls::{CipherSuite, NamedGroup, SignatureScheme};

use crate::credentials::certificate::clean;
use crate::credentials::fingerprint::hex;
use crate::tls::hello::{self, Reader, read_u16s};
use crate::tools::explain::legacy_hello::version_name;
use crate::tools::explain::report::Field;

/// The fields of a ClientHello in their order; empty if these records hold none.
pub(crate) fn fields(records: &[u8]) -> Vec<Field> {
    let content = hello::read_records(records);
    match hello::read_messages(&content).first() {
        Some((hello::CLIENT_HELLO, body)) => of_body(records.len(), body).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn of_body(bytes: usize, body: &[u8]) -> Result<Vec<Field>, &'static str> {
    let hello = hello::ClientHello::read(body)?;
    let compression = if hello.compression == [0] { "null".into() } else { hex(hello.compression) };
    let mut fields = vec![
        field("bytes", bytes),
        field("legacy_version", version_name(hello.version)),
        field("random", hex(hello.random)),
        field("legacy_session_id", format!("{} bytes", hello.session.len())),
        field("cipher_suites", names(hello.suites, suite)),
        field("compression_methods", compression),
    ];
    for read in hello.extensions {
        let (kind, content) = read?;
        let value = extension(kind, content).unwrap_or_else(|| format!("{} bytes", content.len()));
        fields.push(field(extension_name(kind), value));
    }
    Ok(fields)
}

/// `None` for extensions that are shown by their length only.
fn extension(kind: u16, content: &[u8]) -> Option<String> {
    Some(match kind {
        hello::SERVER_NAME => clean(&String::from_utf8_lossy(hello::read_server_name(content).ok()??)),
        5 => "OCSP".into(),
        hello::SUPPORTED_GROUPS => names(hello::whole_list(content)?.0, group),
        hello::EC_POINT_FORMATS => "uncompressed".into(),
        hello::SIGNATURE_ALGORITHMS | 50 => names(hello::whole_list(content)?.0, signature),
        hello::ALPN => {
            let protocols = hello::read_protocols(content).ok()?.into_iter();
            protocols.map(|protocol| clean(&String::from_utf8_lossy(protocol))).collect::<Vec<_>>().join(", ")
        }
        hello::EXTENDED_MASTER_SECRET | hello::RENEGOTIATION_INFO => "present".into(),
        35 if content.is_empty() => "none held".into(),
        35 => format!("a ticket of {} bytes", content.len()),
        41 => "a session is offered".into(),
        hello::SUPPORTED_VERSIONS => names(Reader(content).with_u8_length()?, version_name),
        hello::PSK_KEY_EXCHANGE_MODES => "psk_dhe_ke".into(),
        hello::KEY_SHARE => key_shares(hello::whole_list(content)?),
        _ => return None,
    })
}

fn key_shares(mut list: Reader<'_>) -> String {
    let mut found = Vec::new();
    while let Some(id) = list.u16() {
        let Some(key) = list.with_u16_length() else { break };
        found.push(format!("{} ({} bytes)", group(id), key.len()));
    }
    found.join(", ")
}

fn extension_name(kind: u16) -> String {
    let name = match kind {
        hello::SERVER_NAME => "server_name",
        5 => "status_request",
        hello::SUPPORTED_GROUPS => "supported_groups",
        hello::EC_POINT_FORMATS => "ec_point_formats",
        hello::SIGNATURE_ALGORITHMS => "signature_algorithms",
        hello::ALPN => "application_layer_protocol_negotiation",
        21 => "padding",
        22 => "encrypt_then_mac",
        hello::EXTENDED_MASTER_SECRET => "extended_master_secret",
        35 => "session_ticket",
        41 => "pre_shared_key",
        42 => "early_data",
        hello::SUPPORTED_VERSIONS => "supported_versions",
        44 => "cookie",
        hello::PSK_KEY_EXCHANGE_MODES => "psk_key_exchange_modes",
        49 => "post_handshake_auth",
        50 => "signature_algorithms_cert",
        hello::KEY_SHARE => "key_share",
        0xfe0d => "encrypted_client_hello",
        hello::RENEGOTIATION_INFO => "renegotiation_info",
        other => return format!("extension {other}"),
    };
    name.into()
}

fn names(list: &[u8], name: impl Fn(u16) -> String) -> String {
    read_u16s(list).map(name).collect::<Vec<_>>().join(", ")
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

fn field(name: impl Into<String>, value: impl ToString) -> Field {
    Field { name: name.into(), value: value.to_string() }
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
