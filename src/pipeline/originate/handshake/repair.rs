//! The lines of configuration that repair a failure.

use super::error::{Cause, Scene};
use super::first_bytes::Plaintext;
use crate::config::values::quoting::string;
use crate::config::values::{Name, TlsVersion};
use crate::config::write::{Text, Value};
use crate::credentials::certificate::CertificateFacts;
use crate::credentials::fingerprint::{labelled_hex, labelled_pin};
use crate::credentials::observation::CertificateRequest;
use crate::credentials::refusal::Refusal;
use crate::credentials::trust::DEFAULT_NAME;

/// Printed before a certificate that was only presented: a man in the middle presents one too.
const COMPARE: &str = "First compare this fingerprint with the one that you get from the server's owner.";

pub(super) fn repair(cause: &Cause, scene: &Scene, upstream: &Name) -> Option<String> {
    match cause {
        Cause::Certificate(refusal) => of_refusal(refusal, scene, upstream),
        Cause::ClientCertificateRequired if !scene.has_identity => Some(identity(Text::default(), upstream)),
        Cause::ClientCertificateRejected(_) => Some(another_identity(scene.seen.request.as_ref(), upstream)),
        Cause::AlpnRefused => Some(tls(upstream, "alpn", Value::strings::<&str>([]))),
        Cause::NotTls(Plaintext::Upgrade(protocol)) => {
            let mut text = Text::default();
            Some(text.table(&["upstreams", upstream.as_str()]).set("upgrade", protocol.word).finish())
        }
        Cause::VersionMismatch => match scene.key.versions() {
            (TlsVersion::V1_3, _) => Some(tls(upstream, "min_version", "1.2")),
            (_, TlsVersion::V1_2) => Some(tls(upstream, "max_version", "1.3")),
            _ => None,
        },
        Cause::NoCommonParameters if scene.key.narrows_key_exchange() => {
            let all = ["x25519mlkem768", "x25519", "secp256r1", "secp384r1"];
            Some(tls(upstream, "key_exchange", Value::strings(all)))
        }
        _ => None,
    }
}

pub(crate) fn late_repair(cause: &Cause, request: Option<&CertificateRequest>, upstream: &Name) -> Option<String> {
    match cause {
        Cause::ClientCertificateRequired => Some(identity(Text::default(), upstream)),
        Cause::ClientCertificateRejected(_) => Some(another_identity(request, upstream)),
        _ => None,
    }
}

fn of_refusal(refusal: &Refusal, scene: &Scene, upstream: &Name) -> Option<String> {
    let server = scene.server.as_ref()?;
    match refusal {
        Refusal::SelfSigned { .. } | Refusal::NotAnEndEntity(_) | Refusal::NotTheExactOne => {
            Some(exactly(server, upstream))
        }
        Refusal::UnknownIssuer => {
            let mut text = Text::default();
            text.comment(&format!("The certificate of \"{}\", from its owner.", server.issuer));
            text.table(&["trust", upstream.as_str()]).set("roots", Value::strings([format!("{upstream}-ca.pem")]));
            text.set_list("names", scene.expected.iter().filter(|_| scene.has_names));
            Some(set_tls(&mut text, upstream, "trust", upstream.as_str()))
        }
        Refusal::PinMismatch => {
            let mut text = Text::default();
            text.comment(COMPARE).table(&["trust", scene.trust.as_str()]);
            Some(text.set("pins", Value::strings([labelled_pin(&server.spki_sha256)])).finish())
        }
        Refusal::NameMismatch { .. } => right_name(server, upstream, scene),
        _ => None,
    }
}

/// A name in the certificate that would pass.
fn right_name(server: &CertificateFacts, upstream: &Name, scene: &Scene) -> Option<String> {
    let named = |kind| server.names.iter().filter_map(move |name| name.strip_prefix(kind));
    // Without any name, a certificate can only be trusted by its fingerprint; for a wildcard, the host has to be known.
    if server.names.is_empty() {
        return Some(exactly(server, upstream));
    }
    // The names of a trust replace the server name.
    if scene.has_names {
        let name = server.names.iter().find(|name| !name.contains('*'))?;
        return Some(names(scene, name, upstream));
    }
    let server_name = named("dns:").find(|name| !name.contains('*')).or_else(|| named("ip:").next());
    if let Some(name) = server_name {
        return Some(tls(upstream, "server_name", name));
    }
    let uri = named("uri:").next()?;
    Some(names(scene, &format!("uri:{uri}"), upstream))
}

/// Adds the name to the trust in use; the system's roots are not in the file, and become a trust of their own.
fn names(scene: &Scene, name: &str, upstream: &Name) -> String {
    let mut text = Text::default();
    if scene.trust.as_str() != DEFAULT_NAME {
        return text.table(&["trust", scene.trust.as_str()]).set("names", Value::strings([name])).finish();
    }
    text.table(&["trust", upstream.as_str()]).set("system_roots", true).set("names", Value::strings([name]));
    set_tls(&mut text, upstream, "trust", upstream.as_str())
}

fn exactly(server: &CertificateFacts, upstream: &Name) -> String {
    let mut text = Text::default();
    text.comment(COMPARE).table(&["trust", upstream.as_str()]).set("certificate", labelled_hex(&server.sha256));
    set_tls(&mut text, upstream, "trust", upstream.as_str())
}

fn identity(mut text: Text, upstream: &Name) -> String {
    text.table(&["identities", upstream.as_str()]);
    text.set("certificate", format!("{upstream}.crt")).set("private_key", format!("{upstream}.key"));
    set_tls(&mut text, upstream, "identity", upstream.as_str())
}

fn another_identity(request: Option<&CertificateRequest>, upstream: &Name) -> String {
    let acceptable = request.map_or(&[][..], |request| &request.acceptable);
    let issuers: Vec<String> = acceptable.iter().map(|name| string(name)).collect();
    let issued = match &issuers[..] {
        [] => "by an authority that the server accepts (it does not say which)".to_owned(),
        issuers => format!("by {}", issuers.join(" or ")),
    };
    let mut text = Text::default();
    text.comment(&format!("In place of the identity that was refused: issued {issued}, valid today, not revoked."));
    identity(text, upstream)
}

/// A key of the upstream's TLS settings, alone.
fn tls(upstream: &Name, key: &str, value: impl Into<Value>) -> String {
    set_tls(&mut Text::default(), upstream, key, value)
}

fn set_tls(text: &mut Text, upstream: &Name, key: &str, value: impl Into<Value>) -> String {
    text.table(&["upstreams", upstream.as_str(), "tls"]).set(key, value).finish()
}
