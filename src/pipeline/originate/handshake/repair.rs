//! The lines of configuration that repair a failure.

use std::fmt::Write;

use super::error::{Cause, Scene};
use super::first_bytes::Plaintext;
use crate::config::values::quoting::{key, string};
use crate::config::values::{Name, TlsVersion};
use crate::credentials::certificate::CertificateFacts;
use crate::credentials::fingerprint::{labelled_hex, labelled_pin};
use crate::credentials::observation::CertificateRequest;
use crate::credentials::refusal::Refusal;
use crate::credentials::trust::DEFAULT_NAME;

/// Before a certificate is trusted because it was presented: whoever sits in between presents one too.
const COMPARE: &str = "# First compare this fingerprint with the one that the server's owner tells you.\n";

pub(super) fn repair(cause: &Cause, scene: &Scene, upstream: &Name) -> Option<String> {
    match cause {
        Cause::Certificate(refusal) => of_refusal(refusal, scene, upstream),
        Cause::ClientCertificateRequired if !scene.has_identity => Some(identity(upstream)),
        Cause::ClientCertificateRejected(_) => Some(another_identity(scene.seen.request.as_ref(), upstream)),
        Cause::AlpnRefused => Some(tls(upstream, "alpn = []")),
        Cause::NotTls(Plaintext::Upgrade(protocol)) => {
            Some(format!("[upstreams.{}]\nupgrade = {}\n", key(upstream.as_str()), string(protocol.word)))
        }
        Cause::VersionMismatch => match scene.key.versions() {
            (TlsVersion::V1_3, _) => Some(tls(upstream, "min_version = \"1.2\"")),
            (_, TlsVersion::V1_2) => Some(tls(upstream, "max_version = \"1.3\"")),
            _ => None,
        },
        Cause::NoCommonParameters if scene.key.narrows_key_exchange() => {
            let all = r#"key_exchange = ["x25519mlkem768", "x25519", "secp256r1", "secp384r1"]"#;
            Some(tls(upstream, all))
        }
        _ => None,
    }
}

/// The repair of a refusal that came when the handshake was over, of which this is known.
pub(crate) fn late_repair(cause: &Cause, request: Option<&CertificateRequest>, upstream: &Name) -> Option<String> {
    match cause {
        Cause::ClientCertificateRequired => Some(identity(upstream)),
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
            let mut lines = format!("# The certificate of \"{}\", from its owner.\n", server.issuer);
            let _ = writeln!(lines, "[trust.{0}]\nroots = [\"{1}-ca.pem\"]", key(upstream.as_str()), upstream);
            if scene.has_names {
                let names: Vec<String> = scene.expected.iter().map(|name| string(name)).collect();
                let _ = writeln!(lines, "names = [{}]", names.join(", "));
            }
            Some(format!("{lines}\n{}", tls(upstream, &format!("trust = {}", string(upstream.as_str())))))
        }
        Refusal::PinMismatch => {
            let pin = labelled_pin(&server.spki_sha256);
            Some(format!("{COMPARE}[trust.{}]\npins = [\"{pin}\"]\n", key(scene.trust.as_str())))
        }
        Refusal::NameMismatch { .. } => right_name(server, upstream, scene),
        _ => None,
    }
}

/// The name that would do, if the certificate carries one.
fn right_name(server: &CertificateFacts, upstream: &Name, scene: &Scene) -> Option<String> {
    let named = |kind| server.names.iter().filter_map(move |name| name.strip_prefix(kind));
    // Without any name, a certificate can only be trusted as itself; by a wildcard, one has to know the host.
    if server.names.is_empty() {
        return Some(exactly(server, upstream));
    }
    // The names of a trust take the place of the server name, whatever that is.
    if scene.has_names {
        let name = server.names.iter().find(|name| !name.contains('*'))?;
        return Some(names(scene, name, upstream));
    }
    let server_name = named("dns:").find(|name| !name.contains('*')).or_else(|| named("ip:").next());
    if let Some(name) = server_name {
        return Some(tls(upstream, &format!("server_name = {}", string(name))));
    }
    let uri = named("uri:").next()?;
    Some(names(scene, &format!("uri:{uri}"), upstream))
}

/// The name for the trust in force; the roots of the system are none of the file, and become one.
fn names(scene: &Scene, name: &str, upstream: &Name) -> String {
    let names = format!("names = [{}]\n", string(name));
    if scene.trust.as_str() != DEFAULT_NAME {
        return format!("[trust.{}]\n{names}", key(scene.trust.as_str()));
    }
    let trust = format!("[trust.{}]\nsystem_roots = true\n{names}\n", key(upstream.as_str()));
    trust + &tls(upstream, &format!("trust = {}", string(upstream.as_str())))
}

fn exactly(server: &CertificateFacts, upstream: &Name) -> String {
    let trust = format!("[trust.{}]\ncertificate = \"{}\"\n\n", key(upstream.as_str()), labelled_hex(&server.sha256));
    format!("{COMPARE}{trust}{}", tls(upstream, &format!("trust = {}", string(upstream.as_str()))))
}

fn identity(upstream: &Name) -> String {
    let files = format!("certificate = \"{upstream}.crt\"\nprivate_key = \"{upstream}.key\"\n\n");
    format!(
        "[identities.{}]\n{files}{}",
        key(upstream.as_str()),
        tls(upstream, &format!("identity = {}", string(upstream.as_str())))
    )
}

/// The server has told whose certificates it accepts, or has not.
fn another_identity(request: Option<&CertificateRequest>, upstream: &Name) -> String {
    let acceptable = request.map_or(&[][..], |request| &request.acceptable);
    let issuers: Vec<String> = acceptable.iter().map(|name| string(name)).collect();
    let issued = match &issuers[..] {
        [] => "by an authority that the server accepts (it does not say which)".to_owned(),
        issuers => format!("by {}", issuers.join(" or ")),
    };
    format!(
        "# In place of the identity that was refused: issued {issued}, valid today, not revoked.\n{}",
        identity(upstream)
    )
}

fn tls(upstream: &Name, line: &str) -> String {
    format!("[upstreams.{}.tls]\n{line}\n", key(upstream.as_str()))
}
