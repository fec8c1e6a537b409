//! A plan as directives of nginx, or why it has none for it.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

use rustls::pki_types::ServerName;

use super::Plan;
use crate::config::values::{Anchors, ExactCertificate, ExpectedName, Host, KeyExchange, Server, TlsVersion};
use crate::tools::explain::chain::Chain;

/// Directives for `server { }` of nginx's stream module; those of `location { }` of http are the same but for
/// the first two. Certificate and name are verified in all of them.
///
/// # Errors
/// Why nginx cannot do it, in a sentence.
pub(super) fn directives(
    plan: &Plan,
    server: &Server,
    chain: &Chain,
    comments: &[String],
) -> Result<String, Cow<'static, str>> {
    if let Some(protocol) = plan.upstream.upgrade {
        return Err(format!("nginx cannot ask a server of {} for TLS", protocol.name).into());
    }
    if plan.trust.as_ref().is_some_and(|trust| !trust.pins.is_empty()) {
        return Err("nginx cannot pin a key".into());
    }
    if matches!(server.host, Host::Service(_)) {
        return Err("nginx takes no service in proxy_pass: give it one of its hosts, with the port".into());
    }
    let (name, is_sent) = name(plan, server, chain)?;
    let (trusted, comment) = trusted(plan, chain);
    let own = comment.into_iter().chain(lacks(plan)).map(str::to_owned);
    let mut text: String = comments.iter().cloned().chain(own).map(|comment| format!("# {comment}\n")).collect();
    let mut line = |directive: &str, value: &str| {
        let _ = writeln!(text, "{directive} {value};");
    };
    line("proxy_pass", &server.to_string());
    line("proxy_ssl", "on");
    if is_sent {
        line("proxy_ssl_server_name", "on");
    }
    line("proxy_ssl_name", &word(&name));
    line("proxy_ssl_verify", "on");
    line("proxy_ssl_trusted_certificate", &word(&trusted));
    // Those between leaf and root, and one more: the default of 1 is short of two intermediates.
    line("proxy_ssl_verify_depth", &(chain.intermediates() + 1).max(2).to_string());
    for (directive, file) in files(plan) {
        line(directive, &word(&file.display().to_string()));
    }
    if has_crls(plan) {
        line("proxy_ssl_crl", &word(&format!("{}-crl.pem", plan.name)));
    }
    Ok(text + &settings(plan))
}

fn settings(plan: &Plan) -> String {
    let tls = &plan.upstream.tls;
    let mut text = format!("proxy_ssl_protocols {};\n", protocols(tls.min_version, tls.max_version));
    if !tls.key_exchange.is_empty() {
        // OpenSSL sends the key share of the first: behind a classic one it would not use the hybrid, and before version
        // 3.5 it does not take its name.
        let first = tls.key_exchange.iter().take(1);
        let classic = |name: &&KeyExchange| **name != KeyExchange::X25519Mlkem768;
        let others = tls.key_exchange.iter().skip(1).filter(classic);
        let groups: Vec<&str> = first.chain(others).map(|name| group(*name)).collect();
        let _ = writeln!(text, "proxy_ssl_conf_command Groups {};", groups.join(":"));
    }
    if plan.identity.is_some() {
        text.push_str("# nginx shares TLS sessions between all who use this server, whatever their certificate.\n");
    }
    if plan.identity.is_some() || !tls.resumption {
        text.push_str("proxy_ssl_session_reuse off;\n");
    }
    text
}

fn has_crls(plan: &Plan) -> bool {
    plan.trust.as_ref().is_some_and(|trust| !trust.crls.is_empty())
}

fn files(plan: &Plan) -> Vec<(&'static str, &Path)> {
    let mut files = Vec::new();
    if let Some(identity) = &plan.identity {
        let key = identity.private_key.as_ref().unwrap_or(&identity.certificate);
        files.push(("proxy_ssl_certificate", identity.certificate.as_path()));
        files.push(("proxy_ssl_certificate_key", key));
        files.extend(identity.password_file.iter().map(|file| ("proxy_ssl_password_file", file.as_path())));
    }
    files
}

/// Differences in nginx that do not prevent the repair.
fn lacks(plan: &Plan) -> impl Iterator<Item = &'static str> {
    let tls = &plan.upstream.tls;
    let hybrid = tls.key_exchange.first() == Some(&KeyExchange::X25519Mlkem768);
    [
        (plan.upstream.servers.len() > 1)
            .then_some("One server of several: for all of them nginx has `upstream`, with one name for all."),
        (!tls.alpn.is_empty()).then_some("nginx offers no protocol by ALPN."),
        has_crls(plan)
            .then_some("nginx takes one file of revocation lists, and wants those of all authorities of the chain."),
        hybrid.then_some("X25519MLKEM768 takes an nginx that is built with OpenSSL 3.5 or newer."),
    ]
    .into_iter()
    .flatten()
}

/// The name that the certificate is checked for, and whether it is sent. nginx checks for the name that it sends, and
/// compares names only: never an address or a URI of the certificate.
fn name(plan: &Plan, server: &Server, chain: &Chain) -> Result<(String, bool), &'static str> {
    let tls = &plan.upstream.tls;
    let own = tls.server_name.clone().unwrap_or_else(|| server.host.server_name());
    let expected = plan.trust.as_ref().map(|trust| &trust.names[..]).unwrap_or_default();
    let is_sent = tls.sni && matches!(own, ServerName::DnsName(_));
    if let ServerName::DnsName(name) = &own
        && (expected.is_empty() || expected.contains(&ExpectedName::Dns(name.clone())))
    {
        return Ok((own.to_str().into_owned(), is_sent));
    }
    if is_sent {
        return Err("nginx checks the certificate for the name that it sends, and for no other");
    }
    let by_name = expected.iter().find_map(|name| match name {
        ExpectedName::Dns(name) => Some(name.as_ref().to_owned()),
        _ => None,
    });
    let is_address = |name: &ExpectedName| matches!(name, ExpectedName::Ip(_));
    let found = by_name.or_else(|| for_address(&own, chain).filter(|_| expected.iter().all(is_address)));
    found.map(|name| (name, false)).ok_or("nginx checks a certificate for a DNS name, and for no address or URI")
}

/// The name to check the certificate of a server by its address: a name that it carries too, or the address as common
/// name, which OpenSSL accepts where there is no name.
fn for_address(address: &ServerName<'_>, chain: &Chain) -> Option<String> {
    let facts = &chain.leaf()?.facts;
    let mut names = facts.names.iter().filter_map(|name| name.strip_prefix("dns:")).peekable();
    if names.peek().is_some() {
        return names.find(|name| !name.contains('*')).map(str::to_owned);
    }
    facts.common_name.clone().filter(|name| *name == address.to_str())
}

/// The file that nginx trusts, and a remark on it. nginx has no roots of its own, takes one file, and completes a chain
/// only if that ends with a self-signed certificate of the file.
fn trusted(plan: &Plan, chain: &Chain) -> (String, Option<&'static str>) {
    let own = format!("{}-ca.pem", plan.name);
    let is_self_signed = chain.leaf().is_none_or(|leaf| leaf.facts.self_signed);
    match plan.trust.as_ref().map(|trust| &trust.anchors) {
        Some(Anchors::Roots { paths, system: false }) if paths.len() == 1 => {
            let is_whole = chain.rooted || paths[0] == Path::new(&own);
            if is_whole { (paths[0].display().to_string(), None) } else { (own, Some(ONE_FILE)) }
        }
        Some(Anchors::Roots { paths, .. }) if !paths.is_empty() => (own, Some(ONE_FILE)),
        Some(Anchors::Roots { .. }) | None => ("/etc/ssl/certs/ca-certificates.crt".into(), None),
        Some(Anchors::Certificate(ExactCertificate::File(file))) if is_self_signed => {
            (file.display().to_string(), None)
        }
        // As `egret trust fetch` or `openssl s_client` writes it.
        Some(Anchors::Certificate(_) | Anchors::PinsOnly) if is_self_signed => {
            (format!("{}.pem", plan.name), Some("The certificate that the server shows, as PEM."))
        }
        Some(Anchors::Certificate(_) | Anchors::PinsOnly) => (own, Some(ABOVE)),
    }
}

const ONE_FILE: &str =
    "nginx takes one file of roots, and an intermediate only with those above it: all of them, up to the root.";
const ABOVE: &str = "nginx trusts no single certificate that others have signed: those above it, up to the root.";

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

/// Quoted where nginx's grammar asks for it.
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
