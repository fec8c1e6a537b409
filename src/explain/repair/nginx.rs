//! A plan as directives of nginx.

use std::fmt::Write;

use super::Plan;
use crate::config::values::{Anchors, ExactCertificate, KeyExchange, TlsVersion};
use crate::explain::chain::Chain;
use rustls::pki_types::ServerName;

/// Directives for `server { }` of nginx's stream module; those of `location { }` of http are the same but for
/// the first two.
pub(super) fn directives(plan: &Plan, chain: &Chain, comments: &[String]) -> String {
    let mut text = String::new();
    for comment in comments {
        let _ = writeln!(text, "# {comment}");
    }
    let mut line = |directive: &str, value: &str| {
        let _ = writeln!(text, "{directive} {value};");
    };
    let server = plan.upstream.servers.first().map(ToString::to_string).unwrap_or_default();
    line("proxy_pass", &server);
    line("proxy_ssl", "on");
    let tls = &plan.upstream.tls;
    let host = plan.upstream.servers.first().map(|server| server.host.server_name());
    if let Some(name) = tls.server_name.clone().or(host) {
        if tls.sni && matches!(name, ServerName::DnsName(_)) {
            line("proxy_ssl_server_name", "on");
        }
        line("proxy_ssl_name", &word(&name.to_str()));
    }
    line("proxy_ssl_verify", "on");
    line("proxy_ssl_trusted_certificate", &word(&trusted(plan)));
    // Those between leaf and root, and one more: the default of 1 is short of two intermediates.
    line("proxy_ssl_verify_depth", &(chain.intermediates() + 1).max(2).to_string());
    if let Some(identity) = &plan.identity {
        let certificate = identity.certificate.display().to_string();
        let key = identity.private_key.as_ref().map_or_else(|| certificate.clone(), |key| key.display().to_string());
        line("proxy_ssl_certificate", &word(&certificate));
        line("proxy_ssl_certificate_key", &word(&key));
        if let Some(file) = &identity.password_file {
            line("proxy_ssl_password_file", &word(&file.display().to_string()));
        }
    }
    if let Some(crl) = plan.trust.as_ref().and_then(|trust| trust.crls.first()) {
        line("proxy_ssl_crl", &word(&crl.display().to_string()));
    }
    line("proxy_ssl_protocols", protocols(tls.min_version, tls.max_version));
    if !tls.key_exchange.is_empty() {
        let groups: Vec<&str> = tls.key_exchange.iter().map(|name| group(*name)).collect();
        line("proxy_ssl_conf_command", &format!("Groups {}", groups.join(":")));
    }
    if plan.identity.is_some() {
        text.push_str("# nginx shares TLS sessions between all who use this server, whatever their certificate.\n");
        text.push_str("proxy_ssl_session_reuse off;\n");
    }
    text
}

/// What nginx trusts: it has no roots of its own.
fn trusted(plan: &Plan) -> String {
    match plan.trust.as_ref().map(|trust| &trust.anchors) {
        Some(Anchors::Roots { paths, .. }) if !paths.is_empty() => paths[0].display().to_string(),
        Some(Anchors::Certificate(ExactCertificate::File(file))) => file.display().to_string(),
        // The one certificate itself, as `egret trust fetch` or `openssl s_client` writes it.
        Some(Anchors::Certificate(ExactCertificate::Sha256(_)) | Anchors::PinsOnly) => format!("{}.pem", plan.name),
        Some(Anchors::Roots { .. }) | None => "/etc/ssl/certs/ca-certificates.crt".into(),
    }
}

fn protocols(min: TlsVersion, max: TlsVersion) -> &'static str {
    match (min, max) {
        (TlsVersion::V1_3, _) => "TLSv1.3",
        (_, TlsVersion::V1_2) => "TLSv1.2",
        _ => "TLSv1.2 TLSv1.3",
    }
}

fn group(name: KeyExchange) -> &'static str {
    match name {
        KeyExchange::X25519Mlkem768 => "X25519MLKEM768",
        KeyExchange::X25519 => "X25519",
        KeyExchange::Secp256r1 => "P-256",
        KeyExchange::Secp384r1 => "P-384",
    }
}

/// A parameter, quoted where nginx's grammar asks for it.
fn word(text: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-:*@+".contains(char);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if char.is_control() => quoted.push('\u{fffd}'),
            char => quoted.push(char),
        }
    }
    quoted + "\""
}
