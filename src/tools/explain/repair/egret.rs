//! A plan as tables of egret's configuration.

use std::fmt::Write;
use std::path::Path;

use super::Plan;
use crate::config::values::quoting::{key, string};
use crate::config::values::{
    self, Anchors, ExactCertificate, KeyExchange, KeyShare, Name, Server, Share, Strategy, TlsVersion, Verify,
};
use crate::credentials::fingerprint::{labelled_hex, labelled_pin};

/// Whole tables: what differs from the defaults is written.
pub(super) fn tables(plan: &Plan, comments: &[String]) -> String {
    let mut text = String::new();
    for comment in comments {
        let _ = writeln!(text, "# {comment}");
    }
    if plan.is_part {
        text.push_str("# What else stands in these tables (timeouts, limits, options) may stay.\n");
    }
    if let Some(identity) = &plan.identity {
        let name = plan.upstream.tls.identity.as_ref().unwrap_or(&plan.name);
        let _ = writeln!(text, "[identities.{}]", key(name.as_str()));
        identity_lines(identity, &mut text);
        text.push('\n');
    }
    if let Some(trust) = &plan.trust {
        let _ = writeln!(text, "[trust.{}]", key(trust_name(plan).as_str()));
        trust_lines(trust, &mut text);
        text.push('\n');
    }
    let _ = writeln!(text, "[upstreams.{}]", key(plan.name.as_str()));
    let servers: Vec<String> = plan.upstream.servers.iter().map(|server| one_server(plan, server)).collect();
    let _ = writeln!(text, "servers = [{}]", servers.join(", "));
    if let Some(kind) = plan.upstream.upgrade {
        let _ = writeln!(text, "upgrade = {}", string(kind.word));
    }
    let tls = tls_lines(plan);
    if !tls.is_empty() {
        let _ = write!(text, "\n[upstreams.{}.tls]\n{tls}", key(plan.name.as_str()));
    }
    text
}

/// Its address; with what else is said of it, a table.
fn one_server(plan: &Plan, server: &Server) -> String {
    let address = string(&server.to_string());
    let (share, default) = (plan.upstream.balance.share(server), Share::default());
    // By `priority`, the place in the list is the number.
    let placed = plan.upstream.balance.strategy == Strategy::Priority;
    let parts: Vec<String> = [
        (share.weight != default.weight).then(|| format!(", weight = {}", share.weight)),
        (share.priority != default.priority && !placed).then(|| format!(", priority = {}", share.priority)),
        share.max_connections.map(|most| format!(", max_connections = {most}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { address } else { format!("{{ address = {address}{} }}", parts.concat()) }
}

fn trust_name(plan: &Plan) -> &Name {
    plan.upstream.tls.trust.as_ref().unwrap_or(&plan.name)
}

fn identity_lines(identity: &values::Identity, text: &mut String) {
    let _ = writeln!(text, "certificate = {}", path(&identity.certificate));
    for (key, file) in [("private_key", &identity.private_key), ("password_file", &identity.password_file)] {
        if let Some(file) = file {
            let _ = writeln!(text, "{key} = {}", path(file));
        }
    }
    if identity.allow_loose_key_permissions {
        text.push_str("allow_loose_key_permissions = true\n");
    }
}

fn trust_lines(trust: &values::Trust, text: &mut String) {
    match &trust.anchors {
        Anchors::Roots { system, paths } => {
            if !paths.is_empty() {
                let _ =
                    writeln!(text, "roots = [{}]", paths.iter().map(|file| path(file)).collect::<Vec<_>>().join(", "));
            }
            if *system {
                text.push_str("system_roots = true\n");
            }
        }
        Anchors::Certificate(ExactCertificate::File(file)) => {
            let _ = writeln!(text, "certificate = {}", path(file));
        }
        Anchors::Certificate(ExactCertificate::Sha256(sha256)) => {
            let _ = writeln!(text, "certificate = {}", string(&labelled_hex(sha256)));
        }
        Anchors::PinsOnly => text.push_str("pins_only = true\n"),
    }
    let lists = [
        ("pins", trust.pins.iter().map(labelled_pin).map(|pin| string(&pin)).collect::<Vec<_>>()),
        ("names", trust.names.iter().map(|name| string(&name.to_string())).collect()),
        ("crls", trust.crls.iter().map(|file| path(file)).collect()),
        ("candidate_roots", trust.candidate_roots.iter().map(|file| path(file)).collect()),
    ];
    for (key, values) in lists.into_iter().filter(|(_, values)| !values.is_empty()) {
        let _ = writeln!(text, "{key} = [{}]", values.join(", "));
    }
}

fn tls_lines(plan: &Plan) -> String {
    let tls = &plan.upstream.tls;
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    if let Some(name) = &tls.server_name {
        line("server_name", string(&name.to_str()));
    }
    if !tls.sni {
        line("sni", "false".into());
    }
    if let (Some(_), Some(name)) = (&plan.identity, &tls.identity) {
        line("identity", string(name.as_str()));
    }
    if plan.trust.is_some() {
        line("trust", string(trust_name(plan).as_str()));
    }
    match &tls.verify {
        Verify::Full => {}
        Verify::Chain { reason } => {
            line("verify", string("chain"));
            line("insecure_reason", string(reason));
        }
        Verify::Report { reason } => {
            line("verify", string("report"));
            line("insecure_reason", string(reason));
        }
        Verify::None { reason } => {
            line("verify", string("none"));
            line("insecure_reason", string(reason));
        }
    }
    if tls.min_version != TlsVersion::V1_2 {
        line("min_version", string("1.3"));
    }
    if tls.max_version != TlsVersion::V1_3 {
        line("max_version", string("1.2"));
    }
    let words = |words: Vec<String>| format!("[{}]", words.join(", "));
    if !tls.alpn.is_empty() {
        line("alpn", words(tls.alpn.iter().map(|name| string(&String::from_utf8_lossy(name))).collect()));
    }
    if !tls.key_exchange.is_empty() {
        line("key_exchange", words(tls.key_exchange.iter().map(|name| string(group(*name))).collect()));
    }
    match tls.key_share {
        KeyShare::Auto => {}
        KeyShare::Hybrid => line("key_exchange_share", string("hybrid")),
        KeyShare::Classic => line("key_exchange_share", string("classic")),
    }
    if !tls.resumption {
        line("resumption", "false".into());
    }
    text
}

fn group(name: KeyExchange) -> &'static str {
    match name {
        KeyExchange::X25519Mlkem768 => "x25519mlkem768",
        KeyExchange::X25519 => "x25519",
        KeyExchange::Secp256r1 => "secp256r1",
        KeyExchange::Secp384r1 => "secp384r1",
    }
}

fn path(path: &Path) -> String {
    string(&path.display().to_string())
}
